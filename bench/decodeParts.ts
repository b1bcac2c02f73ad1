/** The parts of `npm run bench -- parts` that decode one new token per row. */
import { DecodeSession, rolloutWeights, type RolloutWeights } from '../src/generation/index.js';
import { createModel, makeDecoderConfig, type Decoder } from '../src/models/index.js';
import { drawRows, noGrad, tensor, tidy, type Dtype, type Tensor } from '../src/torch/index.js';
import { compare, random, ROUNDS, type PartRow } from './compareParts.js';
import { SHAPES } from './jobs.js';

const STEPS = 8;

/** A function that appends tokens to rows, and frees them with `dispose`. */
function stepsOf(
  weights: RolloutWeights,
  model: Decoder,
  prompts: readonly (readonly number[])[],
  copies: number,
): { run: () => void; dispose: () => void } {
  // Rounds follow each other: there is room for all.
  const capacity = (prompts[0]?.length ?? 0) + STEPS * (ROUNDS + 2);
  const { session, logits } = DecodeSession.start(weights, model.config, prompts, {
    copies,
    capacity,
  });
  logits.dispose();
  const ids = Array.from({ length: session.rows }, (_, row) => row + 3);
  const run = (): void => {
    for (let step = 0; step < STEPS; step++) session.step(ids).dispose();
  };
  return { run, dispose: () => session.dispose() };
}

const model = (name: string, dtype: Dtype): Decoder => {
  const shape = SHAPES[name] as (typeof SHAPES)[string];
  const config = makeDecoderConfig({ ...shape, maxPositionEmbeddings: 2048 });
  return createModel(config, { seed: 0, dtype }).freeze();
};

/** Both halves of a layer in one call each, and operator by operator; weights are packed either way. */
function halves(name: string, rows: number, dtype: Dtype): PartRow {
  const policy = model(name, dtype);
  const weights = rolloutWeights(policy, { rows });
  const single = { ...weights, layers: weights.layers.map((layer) => ({ ...layer, fused: null })) };
  const prompts = Array.from({ length: rows }, (_, row) => Array<number>(32).fill(row + 5));
  const [on, off] = [stepsOf(weights, policy, prompts, 1), stepsOf(single, policy, prompts, 1)];
  const part = `half a layer in one call, ${STEPS} tokens of ${rows} rows, ${name}, ${dtype}`;
  const found = compare(part, on.run, off.run);
  for (const each of [on, off, weights, policy]) each.dispose();
  return found;
}

/** A prompt's keys and values read from one place by its eight completions, and from a copy each. */
function sharedPrompt(tokens: number): PartRow {
  const policy = model('tiny', 'float32');
  const weights = rolloutWeights(policy, { rows: 64 });
  const prompts = Array.from({ length: 8 }, (_, row) => Array<number>(tokens).fill(row + 5));
  const copied = prompts.flatMap((prompt) => Array<readonly number[]>(8).fill(prompt));
  const [on, off] = [stepsOf(weights, policy, prompts, 8), stepsOf(weights, policy, copied, 1)];
  const part = `prompts of ${tokens} tokens shared by 8 rows each, ${STEPS} tokens of 64 rows, tiny`;
  const found = compare(part, on.run, off.run);
  for (const each of [on, off, weights, policy]) each.dispose();
  return found;
}

/** A token per row in one call, and operator by operator. */
function draw(rows: number, vocabulary: number): PartRow {
  const logits = random(rows, vocabulary);
  const points = tensor(Float64Array.from({ length: rows }, (_, row) => (row + 0.5) / rows));
  const found = compare(
    `a token drawn from each of ${rows} rows of ${vocabulary} logits`,
    () => noGrad(() => void drawRows(logits, points, 1).toTypedArray()),
    () => noGrad(() => void drawPlain(logits, points).toTypedArray()),
  );
  logits.dispose();
  points.dispose();
  return found;
}

function drawPlain(logits: Tensor, points: Tensor): Tensor {
  const logprobs = logits.div(1).logSoftmax(-1);
  const cumulative = logprobs.exp().cumsum(-1, { dtype: 'float64' });
  const ids = cumulative.searchsorted(points.view([-1, 1]), { right: true });
  return tidy(() => logprobs.gather(-1, ids.clamp(0, logits.size(-1) - 1)));
}

/** All of them. */
export function decodeParts(): PartRow[] {
  return [
    halves('tiny', 1, 'float32'),
    halves('tiny', 64, 'float32'),
    halves('smollm2-135m', 1, 'float32'),
    halves('smollm2-135m', 1, 'bfloat16'),
    sharedPrompt(64),
    sharedPrompt(512),
    draw(1, 49152),
    draw(64, 8192),
  ];
}
