/**
 * What writing samples adds to a training step: the same steps in turn without and with them, at the defaults of what is
 * recorded. The result stands in bench/results/recording.json and in docs/run-format.md.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DpoConfig, GrpoConfig } from '../src/config/index.js';
import type { PreferenceExample, PromptExample } from '../src/data/index.js';
import { createModel, makeDecoderConfig, type Decoder } from '../src/models/index.js';
import { AdamW, decayGroups } from '../src/optim/index.js';
import { SampleFiles } from '../src/runs/sampleFiles.js';
import { createCharacterTokenizer, type Tokenizer } from '../src/tokenizers/index.js';
import { DpoTrainer, GrpoTrainer, type Trainer } from '../src/trainers/index.js';
import { circumstances, ROOT, type Circumstances } from './machine.js';
import { alignedTable } from './results.js';
import { median, rounded } from './statistics.js';

/** One line of the table. */
export interface RecordingRow {
  readonly name: string;
  /** Lines that a step writes, and their bytes. */
  readonly samples: number;
  readonly kilobytes: number;
  /** Of a step without samples, median. */
  readonly milliseconds: number;
  readonly pairs: number;
  /** What the samples add, as a share of the step beside: median of the pairs, and an interval that holds it in 95 %. */
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
  /** Makes a trainer; both sides get the same weights and data, so that both do the same work. */
  readonly make: (isRecording: boolean) => Trainer;
}

/** Rounds before the first that counts. */
const WARM_UP = 3;
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
const OFF = { samplesPerStep: 0 };

function grpo(
  name: string,
  { characters, shape, pairs }: { characters: number; shape: typeof QUICKSTART; pairs: number },
): Case {
  const tokenizer = tokenizerOf(characters);
  const make = (isRecording: boolean): Trainer => {
    const policy = modelOf(tokenizer, shape);
    const config = GrpoConfig.parse({
      ...{ steps: 1000, groupSize: 8, klCoef: 0, sampling: { maxNewTokens: 24 } },
      ...(isRecording ? {} : OFF),
    });
    return new GrpoTrainer(
      {
        ...{ policy, tokenizer, reference: null, prompts: promptsOf(tokenizer, 64) },
        optimizer: new AdamW(decayGroups(policy, 0)),
        rewards: [{ name: 'length', weight: 1, fn: ({ completion }) => completion.length % 7 }],
      },
      config,
    );
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
  const make = (isRecording: boolean): Trainer => {
    const [policy, reference] = [modelOf(tokenizer, shape), modelOf(tokenizer, shape).freeze()];
    const config = DpoConfig.parse({ maxSteps: 1000, ...(isRecording ? {} : OFF) });
    const optimizer = new AdamW(decayGroups(policy, 0));
    return new DpoTrainer(
      { policy, reference, optimizer, pairs, tokenizer },
      { method: 'dpo', config },
    );
  };
  return { name, pairs: rounds, make };
}

const CASES: readonly Case[] = [
  grpo('GRPO, 0.6 M, vocabulary of 14', { characters: 12, shape: QUICKSTART, pairs: 30 }),
  grpo('GRPO, 5.3 M, vocabulary of 8,192', { characters: 8190, shape: FIVE_MILLION, pairs: 10 }),
  dpo('DPO, 0.6 M, 64 pairs', { shape: QUICKSTART, pairs: 30 }),
];

/** Pairs of steps, the first of each pair by turns: what the machine does slower for a while falls on both sides. */
async function measure({ name, pairs, make }: Case): Promise<RecordingRow> {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-bench-'));
  const files = new SampleFiles(folder, 256);
  const trainers = [make(false), make(true)] as const;
  const times: [number[], number[]] = [[], []];
  let [samples, bytes] = [0, 0];
  try {
    for (let round = 0; round < pairs + WARM_UP; round++) {
      for (const side of round % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
        const trainer = trainers[side];
        const start = performance.now();
        const report = await trainer.trainStep();
        const lines = [...report.samples, ...(report.pairs ?? []), ...(report.given ?? [])];
        files.append(trainer.step, lines);
        if (round >= WARM_UP) times[side].push(performance.now() - start);
        if (side === 1) samples = lines.length;
      }
    }
    files.close();
    bytes = readFileSync(join(folder, 'samples.jsonl')).length / (pairs + WARM_UP);
  } finally {
    rmSync(folder, { recursive: true });
  }
  const [without, recorded] = times;
  const shares = recorded.map((time, at) => time / (without[at] ?? NaN) - 1).sort((a, b) => a - b);
  // The median lies between these two of the sorted values in 95 of 100 cases (binomial, by its normal approximation).
  const reach = 0.98 * Math.sqrt(pairs);
  const at = (place: number): number => shares[Math.min(pairs - 1, Math.max(0, place))] ?? NaN;
  return {
    ...{ name, samples, kilobytes: rounded(bytes / 1000), pairs },
    milliseconds: rounded(median(without)),
    share: rounded(median(shares)),
    low: rounded(at(Math.floor(pairs / 2 - reach))),
    high: rounded(at(Math.ceil(pairs / 2 + reach))),
  };
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

function tableOf({ rows, circumstances: where }: RecordingResults): string {
  const header = ['', 'lines a step', 'kB a step', 'ms a step', 'added', '95 % interval'];
  const lines = rows.map((row) => [
    row.name,
    String(row.samples),
    row.kilobytes.toFixed(0),
    row.milliseconds.toFixed(0),
    percent(row.share),
    `${percent(row.low)} to ${percent(row.high)}`,
  ]);
  const { cpu, cores, commit, date } = where;
  return `${alignedTable(header, lines)}\n\n${cpu}, ${cores} cores; commit ${commit}, ${date.slice(0, 10)}.`;
}

/** Measures every case, prints the table, writes the results and puts the table into docs/run-format.md. */
export async function benchRecording(): Promise<void> {
  const before = circumstances();
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
