/**
 * The sizes of published models with random weights: `npm run bench -- models` loads each, generates, and trains a few
 * steps, each in a process of its own. The table goes to bench/results/models.json and docs/models.md.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { UsageError } from '../src/errors/index.js';
import { circumstances, ROOT, type Circumstances } from './machine.js';

/** The fields of each published config.json that change the computation; weights are bfloat16 as published. */
export const PUBLISHED = {
  'SmolLM2-135M': {
    model_type: 'llama',
    ...{ hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30 },
    ...{ num_attention_heads: 9, num_key_value_heads: 3, vocab_size: 49152 },
    ...{ max_position_embeddings: 8192, rms_norm_eps: 1e-5, rope_theta: 100_000 },
    tie_word_embeddings: true,
  },
  'Qwen2.5-0.5B': {
    model_type: 'qwen2',
    ...{ hidden_size: 896, intermediate_size: 4864, num_hidden_layers: 24 },
    ...{ num_attention_heads: 14, num_key_value_heads: 2, vocab_size: 151_936 },
    ...{ max_position_embeddings: 32_768, rms_norm_eps: 1e-6, rope_theta: 1_000_000 },
    tie_word_embeddings: true,
  },
  'Llama-3.2-1B': {
    model_type: 'llama',
    ...{ hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 16 },
    ...{ num_attention_heads: 32, num_key_value_heads: 8, head_dim: 64, vocab_size: 128_256 },
    ...{ max_position_embeddings: 131_072, rms_norm_eps: 1e-5, rope_theta: 500_000 },
    rope_scaling: {
      rope_type: 'llama3',
      ...{ factor: 32, low_freq_factor: 1, high_freq_factor: 4 },
      original_max_position_embeddings: 8192,
    },
    tie_word_embeddings: true,
  },
} as const;

/** What one process does. */
export interface ShapeTask {
  readonly action: 'make' | 'generate' | 'lora grpo' | 'sft';
  readonly shape: keyof typeof PUBLISHED;
  readonly model: string;
  readonly out: string;
  readonly settings: { readonly dtype?: 'float32' | 'bfloat16'; readonly lora?: object };
}

/** What it tells. */
export interface ShapeReport {
  readonly peakBytes: number;
  /** Of the last step; of one token. */
  readonly seconds?: number;
  /** Why a run was refused before anything was loaded. */
  readonly refused?: string;
}

interface ShapeRow extends ShapeReport {
  readonly shape: string;
  readonly does: string;
}

/** Four rows of 128 tokens; two prompts of 32 tokens with four completions of 32. */
const CASES: readonly (readonly [
  does: string,
  action: ShapeTask['action'],
  settings: ShapeTask['settings'],
])[] = [
  ['generate 32 tokens, one row, float32', 'generate', { dtype: 'float32' }],
  ['generate 32 tokens, one row, bfloat16', 'generate', { dtype: 'bfloat16' }],
  ['LoRA GRPO step, 2 × 4 completions', 'lora grpo', { lora: {} }],
  ['SFT step of all weights, 4 × 128 tokens', 'sft', {}],
];

const RESULTS = join(ROOT, 'bench', 'results', 'models.json');
const DOCUMENT = join(ROOT, 'docs', 'models.md');
const BLOCK = /<!-- bench models -->\n[^]*?<!-- end bench -->/;

/**
 * Runs everything and writes what was found.
 *
 * @param only shapes whose name holds this text; all of them unless said, and only then the table is written
 * @throws UsageError where there are none
 */
export async function benchRealShapes(only: string | undefined): Promise<void> {
  const names = Object.keys(PUBLISHED) as (keyof typeof PUBLISHED)[];
  const shapes = names.filter((name) => only === undefined || name.includes(only));
  if (shapes.length === 0)
    throw new UsageError(
      `bench: expected --shape to be part of ${names.join(', ')}, received ${only}.`,
    );
  const before = circumstances();
  const rows: ShapeRow[] = [];
  for (const shape of shapes) {
    const folder = mkdtempSync(join(tmpdir(), 'posttrain-models-'));
    const task = { shape, model: join(folder, 'model') };
    try {
      await child({ ...task, action: 'make', out: '', settings: {} });
      for (const [index, [does, action, settings]] of CASES.entries()) {
        const out = join(folder, `run${index}`);
        const row = { shape, does, ...(await child({ ...task, action, out, settings })) };
        rows.push(row);
        process.stderr.write(`${cells(row).join('  ')}\n`);
        // After every case: the whole takes some ten minutes.
        if (only === undefined) write(rows, before);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
}

function write(rows: readonly ShapeRow[], before: Circumstances): void {
  writeFileSync(RESULTS, `${JSON.stringify({ circumstances: before, rows }, null, 2)}\n`);
  const text = readFileSync(DOCUMENT, 'utf8');
  writeFileSync(
    DOCUMENT,
    text.replace(BLOCK, () => blockOf(rows)),
  );
}

async function child(task: ShapeTask): Promise<ShapeReport> {
  const script = fileURLToPath(new URL('./realShapesCase.js', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, JSON.stringify(task)], {
    maxBuffer: 2 ** 26,
  });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as ShapeReport;
}

function cells({ shape, does, seconds, peakBytes, refused }: ShapeRow): string[] {
  if (refused !== undefined) return [shape, does, `refused: ${refused}`, ''];
  const time =
    seconds === undefined
      ? ''
      : does.startsWith('generate')
        ? `${(1 / seconds).toFixed(1)} tokens/s`
        : `${seconds.toFixed(1)} s`;
  return [shape, does, time, `${(peakBytes / 1e9).toFixed(1)} GB`];
}

function blockOf(rows: readonly ShapeRow[]): string {
  const lines = rows.map((row) => `| ${cells(row).join(' | ')} |`);
  return `<!-- bench models -->

| shape | does | time | peak memory |
| --- | --- | --- | --- |
${lines.join('\n')}

<!-- end bench -->`;
}
