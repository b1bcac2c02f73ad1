/**
 * What single parts of the engine gain: `npm run bench -- parts`. Each part is timed with and without, in turn, in one
 * process, so that whatever else the machine does falls on both; the result is written to bench/results/parts.json.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { backwardTokenLogprobs, createModel, makeDecoderConfig } from '../src/models/index.js';
import {
  attendRows,
  cat,
  DTYPE_BYTES,
  fewRowsLinear,
  gatedMlp,
  inferenceMode,
  noGrad,
  onesLike,
  packedLinear,
  packLinearWeight,
  readSafetensors,
  releaseHostMemory,
  rotateHalf,
  scaledDotProductAttention,
  scoreGradient_,
  scoreTokens,
  tensor,
  tidy,
  useOneDnnLinear,
  usePackedKernel,
  useWidenedProducts,
  writeSafetensors,
  zeros,
  type Dtype,
  type Tensor,
} from '../src/torch/index.js';
import { compare, random, type PartRow } from './compareParts.js';
import { decodeParts } from './decodeParts.js';
import { SHAPES } from './jobs.js';
import { circumstances, ROOT, type Circumstances } from './machine.js';
import { alignedTable } from './results.js';

/** What `npm run bench -- parts` writes. */
export interface PartResults {
  readonly case: 'parts';
  readonly circumstances: Circumstances;
  readonly rows: readonly PartRow[];
}

/** Titles of the table's columns. */
export const PARTS_HEADER = ['', 'with, ms', 'without, ms', 'times as fast'];

/** Lines of the table. */
export function partLines(rows: readonly PartRow[]): string[][] {
  return rows.map((row) => [
    row.part,
    row.with.toPrecision(3),
    row.without.toPrecision(3),
    (row.without / row.with).toFixed(2),
  ]);
}

/** Weights are read from memory, as in a model, and not from the processor's caches. */
const COLD_BYTES = 3e8;

/** Forward and backward of one layer on so many rows, its products one way and the other. */
const switched =
  (name: string, dtype: Dtype, use: (enabled: boolean) => boolean) =>
  (rows: number, inputs: number, outputs: number): PartRow => {
    const x = random(rows, inputs).to(dtype).requiresGrad_();
    const weight = random(outputs, inputs).to(dtype).requiresGrad_();
    const run = (enabled: boolean) => () => {
      const set = use(enabled);
      x.linear(weight).sum().backward();
      use(set);
      x.grad = null;
      weight.grad = null;
    };
    return compare(
      `${name} in a linear layer, forward and backward, ${rows} rows, ${outputs}×${inputs}`,
      run(true),
      run(false),
    );
  };
const oneDnn = switched('oneDNN', 'float32', useOneDnnLinear);
const widened = switched('bfloat16 widened to float32', 'bfloat16', useWidenedProducts);

/** A computation and its backward pass, for gradients of `leaves`. */
function trained(leaves: readonly Tensor[], compute: () => Tensor): () => void {
  return () => {
    compute().sum().backward();
    for (const leaf of leaves) leaf.grad = null;
  };
}

/** Forward and backward of one feed-forward layer. */
function feedForward(rows: number, width: number, inner: number): PartRow {
  const leaf = (...shape: number[]): Tensor => random(...shape).requiresGrad_();
  const [x, gate, up, down] = [
    leaf(rows, width),
    leaf(inner, width),
    leaf(inner, width),
    leaf(width, inner),
  ];
  const leaves = [x, gate, up, down];
  return compare(
    `a gated feed-forward layer as one operator, forward and backward, ${rows} rows, ${width} → ${inner}`,
    trained(leaves, () => gatedMlp(x, { gate, up, down }, 'silu')),
    trained(leaves, () => x.linear(gate).silu().mul(x.linear(up)).linear(down)),
  );
}

/** Forward and backward of rotary positions. */
function rotary(tokens: number, heads: number, width: number): PartRow {
  const x = random(tokens, heads, width).requiresGrad_();
  const [half, quarter] = [width / 2, random(tokens, 1, width / 2)];
  const angles = cat([quarter, quarter], -1);
  const [cos, sin] = [angles.cos(), angles.sin()];
  return compare(
    `rotary positions in one pass, forward and backward, ${tokens} tokens, ${heads} heads of ${width}`,
    trained([x], () => rotateHalf(x, cos, sin)),
    trained([x], () => {
      const turned = cat([x.narrow(-1, half, half).neg(), x.narrow(-1, 0, half)], -1);
      return x.mul(cos).add(turned.mul(sin));
    }),
  );
}

/** From logits to the gradient of their log-probabilities, for the sum of which both are weighted alike. */
function logitsGradient(tokens: number, vocabulary: number): PartRow {
  const logits = random(tokens, vocabulary).requiresGrad_();
  const ids = Array.from({ length: tokens }, (_, at) => (at * 7919) % vocabulary);
  const targets = tensor(ids, { dtype: 'int64' });
  const bare = logits.detach().clone();
  return compare(
    `the gradient of logits in their place, ${tokens} tokens × ${vocabulary}`,
    () =>
      noGrad(() => {
        const scores = scoreTokens(bare, targets, { temperature: 1, withEntropy: false });
        const ofLogprobs = onesLike(scores.logprobs);
        const gradient = { targets, temperature: 1, scores, ofLogprobs, ofEntropies: null };
        scoreGradient_(bare, gradient);
      }),
    trained([logits], () => logits.logSoftmax(-1).gather(1, targets.unsqueeze(1))),
  );
}

function fewRows(
  rows: number,
  outputs: number,
  inputs: number,
  dtype: 'float32' | 'bfloat16',
): PartRow {
  const bytes = outputs * inputs * (dtype === 'float32' ? 4 : 2);
  const count = Math.max(1, Math.floor(COLD_BYTES / bytes));
  const weights = Array.from({ length: count }, () => random(outputs, inputs).to(dtype));
  const x = random(rows, inputs).to(dtype);
  const all = (multiply: (weight: Tensor) => Tensor) => () =>
    noGrad(() => {
      for (const weight of weights) tidy(() => void multiply(weight));
    });
  const found = compare(
    `products of ${rows} rows, ${count} weights ${outputs}×${inputs} in ${dtype}`,
    all((weight) => fewRowsLinear(x, weight)),
    all((weight) => x.linear(weight)),
  );
  for (const weight of weights) weight.dispose();
  return found;
}

/** Products with weights that were packed: in panels, and in oneDNN's form. */
function packed(
  rows: number,
  outputs: number,
  inputs: number,
  dtype: 'float32' | 'bfloat16',
): PartRow {
  const count = Math.floor(COLD_BYTES / 2 / (outputs * inputs * DTYPE_BYTES[dtype]));
  const weights = Array.from({ length: count }, () => random(outputs, inputs).to(dtype));
  const best = usePackedKernel('oneDnn');
  const [others, panels] = (['oneDnn', best] as const).map((kernel) => {
    usePackedKernel(kernel);
    return noGrad(() => weights.map((weight) => packLinearWeight(weight, 64)));
  }) as [Tensor[], Tensor[]];
  for (const weight of weights) weight.dispose();
  const x = random(rows, inputs).to(dtype);
  const all = (factors: readonly Tensor[]) => () =>
    noGrad(() => {
      for (const weight of factors) tidy(() => void packedLinear(x, weight));
    });
  const found = compare(
    `panels in place of oneDNN's packed form, ${rows} rows, ${count} weights ${outputs}×${inputs} in ${dtype}`,
    all(panels),
    all(others),
  );
  for (const weight of [...panels, ...others]) weight.dispose();
  return found;
}

/** Weights in memory of their own, on huge pages, in place of a mapped file. */
async function readWeights(dtype: 'float32' | 'bfloat16'): Promise<PartRow> {
  const [outputs, inputs] = [3072, 576];
  const count = Math.floor(COLD_BYTES / (outputs * inputs * DTYPE_BYTES[dtype]));
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-bench-'));
  try {
    const path = join(folder, 'weights.safetensors');
    const names = Array.from({ length: count }, (_, index) => `w${index}`);
    const stored = new Map(names.map((name) => [name, random(outputs, inputs).to(dtype)]));
    await writeSafetensors(path, stored);
    for (const weight of stored.values()) weight.dispose();
    const file = readSafetensors(path);
    const x = random(1, inputs).to(dtype);
    const [read, mapped] = [
      names.map((name) => file.read(name)),
      names.map((name) => file.tensor(name)),
    ];
    const all = (weights: readonly Tensor[]) => () =>
      noGrad(() => {
        for (const weight of weights) tidy(() => void fewRowsLinear(x, weight));
      });
    const name = `weights are read and not mapped: products of 1 row, ${count} weights ${outputs}×${inputs} in ${dtype}`;
    const found = compare(name, all(read), all(mapped));
    for (const weight of [...read, ...mapped]) weight.dispose();
    file.dispose();
    return found;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Tensors of ever other sizes, which are made of freed ones. */
function cutBlocks(): PartRow {
  const sizes = Array.from({ length: 24 }, (_, index) => 8 + ((index * 37) % 48));
  const run = (between: () => void) => () => {
    for (const mebibytes of sizes) {
      tidy(() => void zeros([mebibytes * 2 ** 18]));
      between();
    }
  };
  const name = 'freed blocks are cut and joined: zeros of 24 sizes from 8 to 55 MiB';
  return compare(
    name,
    run(() => undefined),
    run(releaseHostMemory),
  );
}

function decodeAttention(rows: number, dtype: 'float32' | 'bfloat16'): PartRow {
  const [heads, kvHeads, columns, width] = [9, 3, 256, 64];
  const query = random(rows, heads, width).to(dtype);
  const caches = Array.from({ length: 12 }, () => random(rows, kvHeads, columns, width).to(dtype));
  const pairs = caches.flatMap((keys, at) =>
    at % 2 === 0 ? [[keys, caches[at + 1] as Tensor] as const] : [],
  );
  const found = compare(
    `attention of a new token, ${rows} rows, ${columns} columns, ${dtype}, 6 layers`,
    () =>
      inferenceMode(() => {
        for (const [keys, values] of pairs)
          attendRows(query, keys, values, { mask: null, scale: 0.125, softcap: null });
      }),
    () =>
      inferenceMode(() => {
        const grouped = query.view([rows, kvHeads, heads / kvHeads, width]);
        for (const [keys, values] of pairs)
          scaledDotProductAttention(grouped, keys, values, { scale: 0.125 });
      }),
  );
  for (const cache of caches) cache.dispose();
  return found;
}

/** Forward and backward of rows of one group through a model. */
function group(
  name: string,
  promptTokens: number,
  on: (ids: Tensor) => GroupInput,
  off: (ids: Tensor) => GroupInput,
  between?: () => void,
): PartRow {
  const shape = SHAPES['tiny'] as (typeof SHAPES)[string];
  const model = createModel(makeDecoderConfig({ ...shape, maxPositionEmbeddings: 2048 }), {
    seed: 0,
  });
  const [rows, drawn] = [8, 64];
  const length = promptTokens + drawn;
  const ids = Int32Array.from({ length: rows * length }, (_, at) =>
    at % length < promptTokens ? (at % length) + 5 : (at * 7919) % shape.vocabSize,
  );
  const inputIds = tensor(ids, { shape: [rows, length], dtype: 'int64' });
  const run = (inputOf: (ids: Tensor) => GroupInput) => () => {
    const lengths = {
      promptLengths: Array<number>(rows).fill(promptTokens),
      lengths: Array<number>(rows).fill(length),
    };
    backwardTokenLogprobs(model, { ...inputOf(inputIds), ...lengths }, ({ logprobs }) => ({
      loss: logprobs.sum(),
    }));
    for (const parameter of model.parameters()) parameter.grad = null;
  };
  const found = compare(name, run(on), () => {
    between?.();
    run(off)();
  });
  model.dispose();
  return found;
}

interface GroupInput {
  readonly inputIds: Tensor;
  readonly sharedPrompts?: readonly number[];
}

const shared = Array<number>(8).fill(0);

/** Times every part, prints the table and writes the results. */
export async function benchParts(): Promise<void> {
  const before = circumstances();
  const apart = (inputIds: Tensor): GroupInput => ({ inputIds });
  const together = (inputIds: Tensor): GroupInput => ({ inputIds, sharedPrompts: shared });
  const rows = [
    // First, while pages are as the system gave them.
    await readWeights('float32'),
    await readWeights('bfloat16'),
    oneDnn(1024, 576, 1536),
    oneDnn(1024, 1536, 576),
    oneDnn(256, 576, 49152),
    widened(1024, 576, 1536),
    widened(1024, 1536, 576),
    widened(256, 576, 49152),
    feedForward(4096, 256, 688),
    feedForward(1024, 576, 1536),
    rotary(4096, 4, 64),
    rotary(1024, 9, 64),
    logitsGradient(512, 8192),
    logitsGradient(256, 49152),
    group('one prompt of 64 tokens for 8 completions of 64, 5.3 M, training', 64, together, apart),
    group(
      'one prompt of 512 tokens for 8 completions of 64, 5.3 M, training',
      512,
      together,
      apart,
    ),
    group(
      'freed blocks are kept, 8 rows of 576 tokens, 5.3 M, training',
      512,
      apart,
      apart,
      releaseHostMemory,
    ),
    cutBlocks(),
    fewRows(1, 3072, 576, 'float32'),
    fewRows(1, 3072, 576, 'bfloat16'),
    fewRows(1, 49152, 576, 'float32'),
    fewRows(4, 3072, 576, 'float32'),
    packed(16, 3072, 576, 'float32'),
    packed(64, 3072, 576, 'float32'),
    packed(16, 3072, 576, 'bfloat16'),
    packed(64, 3072, 576, 'bfloat16'),
    packed(64, 1376, 256, 'float32'),
    decodeAttention(1, 'float32'),
    decodeAttention(64, 'float32'),
    decodeAttention(64, 'bfloat16'),
    ...decodeParts(),
  ];
  const results: PartResults = { case: 'parts', circumstances: before, rows };
  const path = join(ROOT, 'bench', 'results', 'parts.json');
  writeFileSync(path, `${JSON.stringify(results, undefined, 2)}\n`);
  console.log(alignedTable(PARTS_HEADER, partLines(rows)));
  process.stderr.write(`Written to ${path}\n`);
}
