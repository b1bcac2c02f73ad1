/**
 * Measured peak memory against the estimate that a run tells before it starts: `npm run bench -- memory`. Each case is a
 * process of its own; the table goes to bench/results/memory.json and docs/memory.md.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { UsageError } from '../src/errors/index.js';
import { SHAPES, type ModelShape } from './jobs.js';
import { ROOT } from './machine.js';

/** What one case trains. */
export interface MemoryCase {
  readonly name: string;
  readonly shape: ModelShape;
  readonly method: 'sft' | 'dpo' | 'grpo' | 'ppo';
  /** Rows, pairs or prompts of a step; eight completions are sampled per prompt. */
  readonly rows: number;
  /** Of a row, prompt and completion together. */
  readonly tokens: number;
  readonly settings: Readonly<Record<string, unknown>>;
}

/** What the process of a case tells. */
export interface MemoryReport {
  readonly peakBytes: number;
  /** What the run said before it started. */
  readonly said: string;
}

interface MemoryRow {
  readonly name: string;
  readonly estimatedBytes: number;
  readonly peakBytes: number;
}

const MIDDLE: ModelShape = {
  vocabSize: 16384,
  hiddenSize: 512,
  intermediateSize: 1376,
  numLayers: 8,
  numHeads: 8,
  numKeyValueHeads: 4,
  tieWordEmbeddings: true,
};
const SIZES: Readonly<Record<string, ModelShape>> = {
  '5 M': SHAPES['tiny'] as ModelShape,
  '32 M': MIDDLE,
  '135 M': SHAPES['smollm2-135m'] as ModelShape,
};

const CASES: readonly MemoryCase[] = (
  [
    ['5 M', 'sft', 32, 256, {}],
    ['5 M', 'sft', 32, 256, { gradientCheckpointing: true }],
    ['5 M', 'sft', 32, 256, { precision: 'bf16-mixed' }],
    ['5 M', 'dpo', 16, 256, {}],
    ['5 M', 'grpo', 8, 128, {}],
    ['5 M', 'ppo', 8, 128, {}],
    ['32 M', 'sft', 16, 256, { microBatchTokens: 2048 }],
    ['32 M', 'dpo', 4, 256, { microBatchTokens: 2048 }],
    ['32 M', 'grpo', 2, 128, { microBatchTokens: 2048 }],
    ['32 M', 'ppo', 2, 128, { microBatchTokens: 2048 }],
    ['135 M', 'sft', 4, 256, { microBatchTokens: 1024 }],
    ['135 M', 'dpo', 1, 256, { microBatchTokens: 512 }],
    // The step of `npm run bench -- grpo`, as it is and in smaller parts.
    ['135 M', 'grpo', 2, 128, {}],
    ['135 M', 'grpo', 2, 128, { microBatchTokens: 512 }],
    ['135 M', 'ppo', 1, 64, { microBatchTokens: 512 }],
  ] as const
).map(([size, method, rows, tokens, settings]) => ({
  name: [
    `${size}, ${method}, ${rows} × ${tokens}`,
    ...Object.entries(settings).map(([key, value]) => `${key} ${value}`),
  ].join(', '),
  shape: SIZES[size] as ModelShape,
  ...{ method, rows, tokens, settings },
}));

/** How far the estimate may be from what was measured. */
const TOLERANCE = 0.25;
const RESULTS = join(ROOT, 'bench', 'results', 'memory.json');
const DOCUMENT = join(ROOT, 'docs', 'memory.md');
const BLOCK = /<!-- bench memory -->\n[^]*?<!-- end bench -->/;

/**
 * Runs the cases and writes what was found.
 *
 * @param only cases whose name holds this text; all of them unless said, and only then the table is written
 * @throws UsageError where there are none
 */
export async function benchMemory(only: string | undefined): Promise<void> {
  const cases = CASES.filter(({ name }) => only === undefined || name.includes(only));
  if (cases.length === 0)
    throw new UsageError(
      `bench: expected --shape to be part of the name of a case (${CASES.map(({ name }) => name).join('; ')}), received ${only}.`,
    );
  const rows: MemoryRow[] = [];
  for (const one of cases) {
    const row = await measure(one);
    rows.push(row);
    process.stderr.write(`${cells(row).join('  ')}\n`);
    // After every case: the whole takes an hour on a slow machine.
    if (only === undefined) write(rows);
  }
}

function write(rows: readonly MemoryRow[]): void {
  writeFileSync(RESULTS, `${JSON.stringify({ tolerance: TOLERANCE, rows }, null, 2)}\n`);
  if (existsSync(DOCUMENT))
    writeFileSync(DOCUMENT, readFileSync(DOCUMENT, 'utf8').replace(BLOCK, blockOf(rows)));
}

async function measure(one: MemoryCase): Promise<MemoryRow> {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-memory-'));
  const task = { ...one, model: join(folder, 'model'), out: join(folder, 'run') };
  try {
    await child({ ...task, action: 'make' });
    const { peakBytes, said } = (await child({ ...task, action: 'train' })) as MemoryReport;
    const estimated = /Needs about ([\d.]+) GB/.exec(said)?.[1];
    return { name: one.name, peakBytes, estimatedBytes: Number(estimated) * 1e9 };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function child(task: object): Promise<unknown> {
  const script = fileURLToPath(new URL('./memoryCase.js', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, JSON.stringify(task)], {
    maxBuffer: 2 ** 26,
  });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
}

function cells({ name, estimatedBytes, peakBytes }: MemoryRow): string[] {
  const off = estimatedBytes / peakBytes - 1;
  const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
  const percent = `${off < 0 ? '−' : '+'}${Math.abs(100 * off).toFixed(0)} %`;
  return [name, gigabytes(estimatedBytes), gigabytes(peakBytes), percent];
}

function blockOf(rows: readonly MemoryRow[]): string {
  const lines = rows.map((row) => `| ${cells(row).join(' | ')} |`);
  return `<!-- bench memory -->

| case | estimated | measured peak | off by |
| --- | --- | --- | --- |
${lines.join('\n')}

<!-- end bench -->`;
}
