/**
 * What writing samples adds to a training step, at the defaults of what is recorded: steps without and with them by turns.
 * The recorded rows are few of a step's, and what they cost drowns in what other programs do to a whole step. So the steps
 * by turns have the recorded group alone, and what it costs there is compared with a whole step. The result stands in bench/results/recording.json and in docs/run-format.md.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DpoConfig, GrpoConfig } from '../src/config/index.js';
import { SeededRandom, type PreferenceExample, type PromptExample } from '../src/data/index.js';
import { createModel, makeDecoderConfig, type Decoder } from '../src/models/index.js';
import { AdamW, decayGroups } from '../src/optim/index.js';
import { SampleFiles } from '../src/runs/sampleFiles.js';
import { createCharacterTokenizer, type Tokenizer } from '../src/tokenizers/index.js';
import { DpoTrainer, GrpoTrainer, type Trainer } from '../src/trainers/index.js';
import { setNumThreads } from '../src/torch/index.js';
import { circumstances, ROOT, type Circumstances } from './machine.js';
import { alignedTable } from './results.js';
import { median, rounded } from './statistics.js';

/** One line of the table. */
export interface RecordingRow {
  readonly name: string;
  /** Lines that a step writes, and their bytes. */
  readonly samples: number;
  readonly kilobytes: number;
  /** Processor time of a whole step without samples, on one thread, median. */
  readonly milliseconds: number;
  /** What the samples add to it. */
  readonly added: number;
  readonly pairs: number;
  /**
   * As a share of the step. `added` compares lower quartiles, because what other programs do to the caches only ever adds;
   * the interval of 95 % is over pairs drawn again and again.
   */
  readonly share: number;
  readonly low: number;
  readonly high: number;
}

interface RecordingResults {
  readonly case: 'recording';
  readonly circumstances: Circumstances;
  readonly rows: readonly RecordingRow[];
}

interface Case {
  readonly name: string;
  readonly pairs: number;
  /** @param isWhole a step as the defaults have it, or one of the rows alone that are written down */
  readonly make: (isWhole: boolean) => Toggled;
}

/**
 * One trainer whose next step writes samples or does not: two trainers would have chosen kernels each by itself, and put
 * each other's weights out of the caches.
 */
interface Toggled {
  readonly trainer: Trainer;
  /** Read at the beginning of every step. */
  readonly config: { samplesPerStep: number };
}

/** Steps before the first that counts. */
const WARM_UP = 6;
/** Whole steps. */
const WHOLE_STEPS = 7;
/** Samples of the pairs from which the interval is read. */
const DRAWS = 2000;
/** Characters that tokens are made of; the first of the CJK ideographs. */
const FIRST_CHARACTER = 0x4e00;
const DOCUMENT = join(ROOT, 'docs', 'run-format.md');
const BLOCK = /<!-- bench recording -->\n[^]*?<!-- end bench -->/;

function tokenizerOf(characters: number): Tokenizer {
  const points = Array.from({ length: characters }, (_, at) => FIRST_CHARACTER + at);
  return createCharacterTokenizer({ characters: String.fromCodePoint(...points) });
}

function modelOf(
  tokenizer: Tokenizer,
  shape: { hiddenSize: number; intermediateSize: number; numLayers: number; numHeads: number },
): Decoder {
  const { vocabSize, eosTokenId = null, padTokenId = null } = tokenizer;
  const special = { eosTokenId, padTokenId, maxPositionEmbeddings: 128, tieWordEmbeddings: true };
  return createModel(makeDecoderConfig({ vocabSize, ...shape, ...special }), { seed: 1 });
}

/** Prompts of 16 tokens. */
function promptsOf(tokenizer: Tokenizer, count: number): PromptExample[] {
  return Array.from({ length: count }, (_, row): PromptExample => {
    const inputIds = Array.from({ length: 16 }, (__, at) => (7 * row + 3 * at) % 12);
    const values = { prompt: tokenizer.decode(inputIds) };
    return { inputIds, text: values.prompt, row: { values, file: 'bench', line: row + 1 } };
  });
}

const QUICKSTART = { hiddenSize: 128, intermediateSize: 344, numLayers: 3, numHeads: 4 };
const FIVE_MILLION = { hiddenSize: 256, intermediateSize: 688, numLayers: 4, numHeads: 4 };

function grpo(
  name: string,
  { characters, shape, pairs }: { characters: number; shape: typeof QUICKSTART; pairs: number },
): Case {
  const tokenizer = tokenizerOf(characters);
  const make = (isWhole: boolean): Toggled => {
    const policy = modelOf(tokenizer, shape);
    const config = GrpoConfig.parse({
      ...{ steps: 1000, groupSize: 8, klCoef: 0, sampling: { maxNewTokens: 24 } },
      ...(isWhole ? {} : { promptsPerStep: 1 }),
    });
    const trainer = new GrpoTrainer(
      {
        ...{ policy, tokenizer, reference: null, prompts: promptsOf(tokenizer, 64) },
        optimizer: new AdamW(decayGroups(policy, 0)),
        rewards: [
          {
            name: 'length',
            weight: 1,
            fn: ({ completion }) => (completion.codePointAt(0) ?? 0) % 7,
          },
        ],
      },
      config,
    );
    return { trainer, config };
  };
  return { name, pairs, make };
}

function dpo(name: string, { shape, pairs: rounds }: { shape: typeof QUICKSTART; pairs: number }) {
  const tokenizer = tokenizerOf(12);
  const pairs = promptsOf(tokenizer, 256).map(({ inputIds, row }, at): PreferenceExample => {
    const side = (from: number): number[] => inputIds.map((id) => (id + from + at) % 12);
    const sides = { chosenIds: side(1), rejectedIds: side(5) };
    return { promptIds: inputIds, ...sides, margin: undefined, comparison: undefined, row };
  });
  const make = (isWhole: boolean): Toggled => {
    const [policy, reference] = [modelOf(tokenizer, shape), modelOf(tokenizer, shape).freeze()];
    const config = DpoConfig.parse({ maxSteps: 1000, ...(isWhole ? {} : { batchSize: 1 }) });
    const optimizer = new AdamW(decayGroups(policy, 0));
    const trainer = new DpoTrainer(
      { policy, reference, optimizer, pairs, tokenizer },
      { method: 'dpo', config },
    );
    return { trainer, config };
  };
  return { name, pairs: rounds, make };
}

const CASES: readonly Case[] = [
  grpo('GRPO, 0.7 M, vocabulary of 1,024', { characters: 1022, shape: QUICKSTART, pairs: 150 }),
  grpo('GRPO, 5.3 M, vocabulary of 8,192', { characters: 8190, shape: FIVE_MILLION, pairs: 50 }),
  dpo('DPO, 0.6 M, vocabulary of 14', { shape: QUICKSTART, pairs: 150 }),
];

/** Processor time of this process, ms: with one thread it is that of what runs, whoever else uses the machine. */
export function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** One step; what it took, and what it wrote. */
async function timedStep(
  { trainer, config }: Toggled,
  samplesPerStep: number,
  files: SampleFiles,
): Promise<{ took: number; lines: number }> {
  config.samplesPerStep = samplesPerStep;
  const start = processorMs();
  const { samples, pairs = [] } = await trainer.trainStep();
  files.append(trainer.step, [...samples, ...pairs]);
  return { took: processorMs() - start, lines: samples.length + pairs.length };
}

/** Processor time of a whole step without samples. */
async function wholeStep(make: Case['make'], files: SampleFiles): Promise<number> {
  const whole = make(true);
  const steps: number[] = [];
  for (let step = 0; step < WHOLE_STEPS; step++)
    steps.push((await timedStep(whole, 0, files)).took);
  return median(steps.slice(2));
}

/** Pairs of steps beside each other, either first by turns. */
async function measure({ name, pairs, make }: Case): Promise<RecordingRow> {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-bench-'));
  const files = new SampleFiles(folder, 256);
  try {
    const milliseconds = await wholeStep(make, files);
    const small = make(false);
    const { samplesPerStep } = small.config;
    let lines = 0;
    const step = async (isRecording: boolean): Promise<number> => {
      const found = await timedStep(small, isRecording ? samplesPerStep : 0, files);
      lines = Math.max(lines, found.lines);
      return found.took;
    };
    const times: (readonly [without: number, recorded: number])[] = [];
    for (let warm = 0; warm < WARM_UP; warm++) await step(warm % 2 === 1);
    for (let pair = 0; pair < pairs; pair++) {
      const first = await step(pair % 2 === 1);
      const second = await step(pair % 2 === 0);
      times.push(pair % 2 === 0 ? [first, second] : [second, first]);
    }
    files.close();
    const bytes = readFileSync(join(folder, 'samples.jsonl')).length;
    const drawn = resampled(times, DRAWS).map(added);
    return {
      ...{ name, samples: lines, pairs, milliseconds: rounded(milliseconds) },
      kilobytes: rounded(bytes / 1000 / (pairs + WARM_UP / 2)),
      added: rounded(added(times)),
      share: rounded(added(times) / milliseconds),
      low: rounded(quantile(drawn, 0.025) / milliseconds),
      high: rounded(quantile(drawn, 0.975) / milliseconds),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

type Times = readonly (readonly [without: number, recorded: number])[];

/** Milliseconds that samples add to a step. */
function added(times: Times): number {
  const [without, recorded] = ([0, 1] as const).map((side) =>
    quantile(
      times.map((pair) => pair[side]),
      0.25,
    ),
  );
  return (recorded ?? NaN) - (without ?? NaN);
}

/** The smallest value that this share of all values does not exceed. */
function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}

/** The pairs drawn with replacement, as many as there are, again and again. */
function resampled(times: Times, count: number): Times[] {
  const random = new SeededRandom(1);
  return Array.from({ length: count }, () =>
    times.map(() => times[Math.floor(random.nextFloat() * times.length)] ?? [NaN, NaN]),
  );
}

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

function tableOf({ rows, circumstances: where }: RecordingResults): string {
  const header = [
    '',
    'lines a step',
    'kB a step',
    'processor ms a step',
    'ms added',
    'share',
    '95 % interval',
  ];
  const lines = rows.map((row) => [
    row.name,
    String(row.samples),
    row.kilobytes.toFixed(0),
    row.milliseconds.toFixed(0),
    row.added.toFixed(2),
    percent(row.share),
    `${percent(row.low)} to ${percent(row.high)}`,
  ]);
  const { cpu, cores, commit, date } = where;
  return `${alignedTable(header, lines)}\n\n${cpu}, ${cores} cores; commit ${commit}, ${date.slice(0, 10)}.`;
}

/** Measures every case, prints the table, writes the results and puts the table into docs/run-format.md. */
export async function benchRecording(): Promise<void> {
  const before = circumstances();
  setNumThreads(1);
  const rows: RecordingRow[] = [];
  for (const one of CASES) {
    rows.push(await measure(one));
    process.stderr.write(`${JSON.stringify(rows.at(-1))}\n`);
  }
  const results: RecordingResults = { case: 'recording', circumstances: before, rows };
  const path = join(ROOT, 'bench', 'results', 'recording.json');
  writeFileSync(path, `${JSON.stringify(results, undefined, 2)}\n`);
  const table = tableOf(results);
  const block = `<!-- bench recording -->\n\n${table}\n\n<!-- end bench -->`;
  writeFileSync(
    DOCUMENT,
    readFileSync(DOCUMENT, 'utf8').replace(BLOCK, () => block),
  );
  process.stdout.write(`${table}\n`);
}
