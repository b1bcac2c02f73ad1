/** The cells of each case: what is measured, at which sizes, and against what it can be. */
import { existsSync } from 'node:fs';
import { growthCells } from './growth.js';
import { SHAPES, type Cell, type ModelShape, type TrainJob, type TrainMethod } from './jobs.js';
import { endlessFolderOf, ggufOf, makeDataFile, modelFolderOf } from './modelFolder.js';
import { count, listOf, shapesOf, type Options } from './options.js';
import { measureOurs } from './processes.js';
import { STARTUP_QUANTITIES } from './startup.js';
import { decodingWork, trainingWork } from './work.js';

/** One name that `npm run bench` knows. */
export interface BenchCase {
  /** Names of the other sides. */
  readonly against: readonly string[];
  readonly cells: (options: Options) => Cell[];
  /** Too slow for `all`. */
  readonly isApart?: true;
}

/** Cases whose cells are measured in turn, in the order of `all`. */
export const CASES: Readonly<Record<string, BenchCase>> = {
  dispatch: { against: ['torch'], cells: dispatchCells },
  sft: { against: ['trl'], cells: (options) => trainCells('sft', options) },
  dpo: { against: ['trl'], cells: (options) => trainCells('dpo', options) },
  reward: { against: ['trl'], cells: (options) => trainCells('reward', options) },
  grpo: { against: ['trl'], cells: (options) => trainCells('grpo', options) },
  'grpo-lora': { against: ['trl'], cells: loraCells, isApart: true },
  ppo: { against: ['torch'], cells: (options) => trainCells('ppo', options) },
  generate: { against: ['transformers', 'torch'], cells: generateCells },
  'generate-spread': { against: ['transformers'], cells: spreadCells },
  llama: { against: ['llama.cpp'], cells: llamaCells },
  growth: { against: [], cells: (options) => growthCells(count('rounds', options.rounds ?? '1')) },
  startup: { against: [], cells: startupCells },
  packing: { against: [], cells: packingCells },
  tokenize: { against: ['tokenizers'], cells: tokenizeCells },
};

const DTYPES = ['float32', 'bfloat16'] as const;

function dispatchCells(options: Options): Cell[] {
  const rounds = count('rounds', options.rounds ?? '7');
  const job = {
    kind: 'dispatch',
    rounds,
    calls: count('calls', options.calls ?? '200000'),
  } as const;
  return ['add', 'add, recorded by autograd', 'multiply by a number'].map((quantity) => ({
    ...{ name: quantity, quantity, job, expectedSeconds: 6 },
  }));
}

function generateCells(options: Options): Cell[] {
  const batches = (options.batch ?? '1,16,64').split(',').map((text) => count('batch', text));
  const newTokens = count('tokens', options.tokens ?? '64');
  const promptTokens = count('prompt', options.prompt ?? '32');
  const rounds = count('rounds', options.rounds ?? '3');
  return shapesOf(options).flatMap(({ name, shape }) =>
    listOf('dtype', options.dtype, DTYPES, DTYPES).flatMap((dtype) =>
      batches.map((batch): Cell => {
        const job = {
          ...({ kind: 'generate', dtype, shape, batch, promptTokens, newTokens } as const),
          ...{ model: modelFolderOf(name), warmUpSeconds: 1, seconds: 3, rounds },
        };
        return {
          ...{ name: `${name}, ${dtype}, batch ${batch}`, quantity: 'tokens/s', job },
          ...{ work: decodingWork(job), expectedSeconds: name === 'tiny' ? 10 : 20 + batch },
        };
      }),
    ),
  );
}

/** The most likely token of one row: drawing is not compared. */
function llamaCells(options: Options): Cell[] {
  const newTokens = count('tokens', options.tokens ?? '64');
  const rounds = count('rounds', options.rounds ?? '3');
  return shapesOf(options, ['smollm2-135m']).flatMap(({ name, shape }) =>
    listOf('dtype', options.dtype, DTYPES, DTYPES).map((dtype): Cell => {
      const job = {
        ...({ kind: 'generate', dtype, shape, batch: 1, temperature: 0, newTokens } as const),
        ...{ promptTokens: 32, warmUpSeconds: 1, seconds: 3, rounds },
        ...{ model: modelFolderOf(name), gguf: ggufOf(name, dtype) },
      };
      return {
        ...{ name: `${name}, ${dtype}, one row`, quantity: 'tokens/s', job },
        ...{ work: decodingWork(job), expectedSeconds: 20 },
      };
    }),
  );
}

function startupCells(options: Options): Cell[] {
  const shape = SHAPES['tiny'];
  if (shape === undefined) return [];
  const rounds = count('rounds', options.rounds ?? '7');
  const job = { kind: 'startup', model: modelFolderOf('tiny'), shape, rounds } as const;
  return STARTUP_QUANTITIES.map((quantity) => ({ name: quantity, quantity, job }));
}

const SPREAD_PROMPTS = 32;
const SPREAD_COMPLETIONS = 8;
/** The longest completion is so many times as long as the shortest. */
const SPREAD = 10;

/**
 * Lengths whose logarithm is spread evenly, in an order that is far from sorted: a step through all rows that has no
 * divisor in common with their number.
 */
export function spreadLimits(rows: number, longest: number): number[] {
  const stride = 37;
  return Array.from({ length: rows }, (_, row) => {
    const place = (row * stride) % rows;
    return Math.round((longest / SPREAD) * SPREAD ** (place / (rows - 1)));
  });
}

function spreadCells(options: Options): Cell[] {
  const batch = SPREAD_PROMPTS * SPREAD_COMPLETIONS;
  return shapesOf(options).flatMap(({ name, shape }) =>
    listOf('dtype', options.dtype, DTYPES, DTYPES).map((dtype): Cell => {
      const longest = count('tokens', options.tokens ?? (name === 'tiny' ? '160' : '80'));
      return {
        name: `${name}, ${dtype}, ${longest / SPREAD} to ${longest} tokens`,
        quantity: 'tokens/s',
        job: {
          ...({ kind: 'generate', dtype, shape, batch } as const),
          model: modelFolderOf(name),
          ...{ copies: SPREAD_COMPLETIONS, promptTokens: count('prompt', options.prompt ?? '32') },
          ...{ newTokens: longest, limits: spreadLimits(batch, longest) },
          ...{ warmUpSeconds: 0, seconds: 0, rounds: count('rounds', options.rounds ?? '2') },
        },
        expectedSeconds: name === 'tiny' ? 40 : 150,
      };
    }),
  );
}

/** Rows of a step, and what the rows are. */
const TRAINING_ROWS: Readonly<Record<TrainMethod, { tiny: number; others: number; of: string }>> = {
  sft: { tiny: 16, others: 4, of: 'rows of 256 tokens' },
  dpo: { tiny: 8, others: 2, of: 'pairs of 256 tokens' },
  reward: { tiny: 8, others: 2, of: 'pairs of 256 tokens' },
  grpo: { tiny: 8, others: 2, of: 'prompts × 8 completions of 64 tokens' },
  ppo: { tiny: 64, others: 16, of: 'completions of 64 tokens' },
};
const PROMPT_TOKENS = 64;
const NEW_TOKENS = 64;

function trainCells(method: TrainMethod, options: Options): Cell[] {
  const online = method === 'grpo' || method === 'ppo';
  return shapesOf(options).flatMap(({ name, shape }) => {
    const sizes = TRAINING_ROWS[method];
    const rows = name === 'tiny' ? sizes.tiny : sizes.others;
    const rounds = count('rounds', options.rounds ?? roundsOf(method, name === 'tiny'));
    return listOf('dtype', options.dtype, [...DTYPES, 'mixed'] as const, DTYPES).flatMap(
      (dtype) => {
        const job = {
          ...({ kind: 'train', method, shape, dtype, rows, rounds, warmUpSteps: 1 } as const),
          ...{
            model: online ? endlessFolderOf(modelFolderOf(name)) : modelFolderOf(name),
            promptTokens: PROMPT_TOKENS,
            newTokens: NEW_TOKENS,
          },
          ...{ tokens: online ? PROMPT_TOKENS + NEW_TOKENS : 256 },
          ...{ groupSize: method === 'grpo' ? 8 : 1, klCoef: method === 'ppo' ? 0.05 : 0 },
        };
        const cell = trainCell(`${name}, ${dtype}, ${rows} ${sizes.of}`, job);
        if (method !== 'grpo') return [cell];
        return [cell, trainCell(`${cell.name}, with a reference`, { ...job, klCoef: 0.04 })];
      },
    );
  });
}

/** As text, as the option is. A step of PPO has four updates. */
function roundsOf(method: TrainMethod, isTiny: boolean): string {
  if (method === 'ppo') return isTiny ? '2' : '1';
  return isTiny ? '5' : '2';
}

function loraCells(options: Options): Cell[] {
  return shapesOf(options, ['qwen2.5-0.5b']).flatMap(({ name, shape }) =>
    listOf('dtype', options.dtype, DTYPES, ['bfloat16']).map((dtype) =>
      trainCell(`${name}, ${dtype}, 2 prompts × 4 completions of 64 tokens, rank 16`, {
        ...({ kind: 'train', method: 'grpo', shape, dtype, rows: 2, groupSize: 4 } as const),
        ...{ model: endlessFolderOf(modelFolderOf(name)), promptTokens: PROMPT_TOKENS },
        ...{ tokens: PROMPT_TOKENS + NEW_TOKENS, newTokens: NEW_TOKENS, klCoef: 0 },
        ...{ lora: { rank: 16, alpha: 32 }, warmUpSteps: 1 },
        rounds: count('rounds', options.rounds ?? '1'),
      }),
    ),
  );
}

function trainCell(name: string, job: Omit<TrainJob, 'data'>): Cell {
  const data = makeDataFile(job, job.shape, job.warmUpSteps + job.rounds);
  const whole: TrainJob = { ...job, data };
  const isTiny = job.shape.numLayers < 8;
  // As seen on two cores; a step of PPO has four updates of two models.
  const perStep = (isTiny ? 4 : job.dtype === 'float32' ? 20 : 12) * (job.method === 'ppo' ? 5 : 1);
  return {
    ...{ name, quantity: 'tokens/s', job: whole, work: trainingWork(whole) },
    expectedSeconds: 8 + perStep * (job.warmUpSteps + job.rounds),
  };
}

/** Makes what the cells read and what is not there: folders of models, and files for llama.cpp. */
export async function makeModels(cells: readonly Cell[]): Promise<void> {
  const folders = new Map<string, ModelShape>();
  for (const { job } of cells) {
    if (job.kind !== 'train' && job.kind !== 'startup' && job.kind !== 'generate') continue;
    // The last of the folders that are made together.
    const folder = job.model.replace(/-endless$/, '');
    if (!existsSync(folder)) folders.set(folder, job.shape);
  }
  for (const [folder, shape] of folders) {
    process.stderr.write(`making ${folder}\n`);
    await measureOurs({ kind: 'modelFolder', folder, shape });
  }
  for (const { job } of cells) {
    if (job.kind !== 'generate' || job.gguf === undefined || existsSync(job.gguf)) continue;
    const { shape, dtype, model: folder, gguf: path } = job;
    process.stderr.write(`making ${path}\n`);
    await measureOurs({ kind: 'gguf', folder, path, shape, dtype });
  }
}

function packingCells(options: Options): Cell[] {
  const rounds = count('rounds', options.rounds ?? '5');
  return shapesOf(options, ['tiny']).flatMap(({ name, shape }) =>
    [false, true].map((packing): Cell => ({
      name: `${name}, ${packing ? 'packed' : 'a line for each row'}`,
      quantity: 'tokens/s',
      job: { kind: 'packing', rounds, shape, packing, rows: 64, shortest: 16, longest: 512 },
    })),
  );
}

const TOKENIZERS = 'test/golden/tokenizers/rust';

function tokenizeCells(options: Options): Cell[] {
  const cell = (name: string, row: string, characters: number, rowCharacters: number): Cell => ({
    name: `${name}, ${row}`,
    quantity: 'tokens/s',
    job: {
      kind: 'encode',
      rounds: count('rounds', options.rounds ?? '3'),
      seconds: 2,
      tokenizer: `${TOKENIZERS}/${name}.json.gz`,
      texts: `${TOKENIZERS}/strings.json.gz`,
      characters,
      rowCharacters,
    },
  });
  return [
    ...['gpt2', 'llama3', 'mistral', 't5', 'bert'].map((name) => cell(name, 'rows', 1e6, 2000)),
    ...['llama3', 'mistral', 't5'].map((name) => cell(name, 'one text', 1e6, 1e6)),
  ];
}
