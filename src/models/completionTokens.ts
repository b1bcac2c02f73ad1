/**
 * The parts that `tokenLogprobs` and `backwardTokenLogprobs` share: which hidden state scores which token, and the scores
 * of a chunk of tokens. Internal to this folder.
 */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import {
  assertIntegerAtLeast,
  assertPositive,
  assertRank,
  cat,
  ones,
  tensor,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import type { TokenLogprobs, TokenLogprobsInput } from './tokenLogprobs.js';
import { flattenSupports, outsideSupports, type TokenSupport } from './tokenSupports.js';

/** Elements of one chunk's logits: 16 MB in float32. The allocator keeps blocks up to 32 MB; larger ones cost page faults. */
const CHUNK_ELEMENTS = 2 ** 22;
/** Fewer tokens a chunk than this would spend more on adding up the output layer's gradients than on computing them. */
const MIN_CHUNK_TOKENS = 256;

/** The completion tokens of a batch, one after the other, N in all, with what is needed to score them. */
export interface CompletionTokens {
  readonly count: number;
  /** [N, D] The hidden state that predicts each token. Gradients flow into the model. */
  readonly states: Tensor;
  readonly scoring: Scoring;
  /** Tokens whose logits may stand in memory at a time. */
  readonly chunkTokens: number;
  /** [N] → [B, T], exactly 0 where there is no token. */
  spread(flat: Tensor): Tensor;
  /** [B, T] → [N]. */
  gather(spreadOut: Tensor): Tensor;
  /** [B, T] */
  readonly mask: Tensor;
}

/** How states are scored. */
export interface Scoring {
  readonly model: CausalLm;
  /** [N] int64 */
  readonly targets: Tensor;
  readonly temperature: number;
  readonly withEntropy: boolean;
  /** Of the softmax. */
  readonly dtype: Dtype;
  /** N of them: outside of each the logits count as −∞. */
  readonly supports?: readonly TokenSupport[] | undefined;
}

/** Both [N]. */
export interface Scored {
  readonly logprobs: Tensor;
  readonly entropy?: Tensor;
}

/** Runs the model up to the hidden states of every completion token. Called in a `tidy`. @throws as `tokenLogprobs` */
export function completionTokens(model: CausalLm, input: TokenLogprobsInput): CompletionTokens {
  const { inputIds, temperature = 1, withEntropy = false } = input;
  const chunkTokens =
    input.chunkTokens ??
    Math.max(MIN_CHUNK_TOKENS, Math.floor(CHUNK_ELEMENTS / model.config.vocabSize));
  assertPositive('tokenLogprobs', 'temperature', temperature);
  assertIntegerAtLeast('tokenLogprobs', 'chunkTokens', chunkTokens, 1);
  const { rows, width, longest, places, targets, predictors } = layoutOf(input);
  const { device } = model;
  const dtype: Dtype = model.dtype === 'float64' ? 'float64' : 'float32';
  const supports = flattenSupports(input, model.config.vocabSize);
  const index = (values: readonly number[]): Tensor =>
    tensor(Float64Array.from(values), { dtype: 'int64', device });
  const place = index(places);
  const spread = (flat: Tensor): Tensor =>
    tidy(() =>
      zeros([rows * width], { dtype, device })
        .scatter(0, place, flat)
        .view([rows, width]),
    );
  // The last token of the longest row predicts nothing that is asked for.
  const used = inputIds.narrow(1, 0, Math.max(1, longest - 1));
  return {
    count: places.length,
    states: model.hiddenStates({ inputIds: used }).flatten(0, 1).indexSelect(0, index(predictors)),
    scoring: {
      model,
      targets: inputIds.to({ device }).flatten().indexSelect(0, index(targets)),
      temperature,
      withEntropy,
      dtype,
      supports,
    },
    chunkTokens,
    spread,
    gather: (spreadOut) => spreadOut.flatten().gather(0, place),
    mask: spread(ones([places.length], { dtype, device })),
  };
}

interface Layout {
  readonly rows: number;
  /** T */
  readonly width: number;
  /** Tokens of the longest row. */
  readonly longest: number;
  /** Of every completion token: where it goes in the flattened [B, T] … */
  readonly places: readonly number[];
  /** … where it stands in the flattened [B, L] … */
  readonly targets: readonly number[];
  /** … and where the hidden state that predicts it stands in the flattened [B, longest − 1]. */
  readonly predictors: readonly number[];
}

function layoutOf({ inputIds, promptLengths, lengths }: TokenLogprobsInput): Layout {
  assertRank('tokenLogprobs', '[B, L]', { inputIds });
  const [rows, columns] = [inputIds.size(0), inputIds.size(1)];
  if (promptLengths.length !== rows || lengths.length !== rows)
    throw new ShapeError(
      `tokenLogprobs: expected ${rows} promptLengths and lengths, one per row of inputIds, received ${promptLengths.length} and ${lengths.length}.`,
    );
  lengths.forEach((length, row) => {
    const prompt = promptLengths[row] ?? 0;
    const fits = Number.isInteger(prompt) && Number.isInteger(length);
    if (!fits || prompt < 1 || length < prompt || length > columns)
      throw new ValueRangeError(
        `tokenLogprobs: expected 1 ≤ promptLengths[${row}] ≤ lengths[${row}] ≤ ${columns}, received ${prompt} and ${length}.`,
      );
  });
  const longest = Math.max(...lengths);
  const width = Math.max(...lengths.map((length, row) => length - (promptLengths[row] ?? 0)));
  const places: number[] = [];
  const targets: number[] = [];
  const predictors: number[] = [];
  lengths.forEach((length, row) => {
    const prompt = promptLengths[row] ?? 0;
    for (let position = prompt; position < length; position++) {
      places.push(row * width + position - prompt);
      targets.push(row * columns + position);
      predictors.push(row * (longest - 1) + position - 1);
    }
  });
  return { rows, width, longest, places, targets, predictors };
}

/** The scores of N states, at most `chunkTokens` of them at a time. */
export function scoreInChunks(scoring: Scoring, states: Tensor, chunkTokens: number): Scored {
  const parts = chunksOf(states.size(0), chunkTokens).map(([start, length]) =>
    tidy(() => scoreChunk(scoring, states.narrow(0, start, length), start)),
  );
  const [first] = parts;
  if (parts.length === 1 && first !== undefined) return first;
  return {
    logprobs: cat(parts.map(({ logprobs }) => logprobs)),
    ...(scoring.withEntropy && {
      entropy: cat(parts.flatMap(({ entropy }) => (entropy === undefined ? [] : [entropy]))),
    }),
  };
}

/** Scores in their places. */
export function spreadScores(tokens: CompletionTokens, scored: Scored): TokenLogprobs {
  return {
    logprobs: tokens.spread(scored.logprobs),
    mask: tokens.mask,
    ...(scored.entropy && { entropy: tokens.spread(scored.entropy) }),
  };
}

/** Start and length of each piece of `total` things: one empty piece of none. */
export function chunksOf(total: number, size: number): [start: number, length: number][] {
  return Array.from({ length: Math.max(1, Math.ceil(total / size)) }, (_, index) => [
    index * size,
    Math.min(size, total - index * size),
  ]);
}

/** The scores of consecutive states, the first of which predicts target number `start`. Called in a `tidy`. */
export function scoreChunk(scoring: Scoring, states: Tensor, start: number): Scored {
  const { model, temperature, withEntropy, dtype } = scoring;
  const count = states.size(0);
  const targets = scoring.targets.narrow(0, start, count);
  // The logits are freed right here; only their log-softmax is needed, for the gradient too.
  const { all, outside } = tidy(() => {
    const logits = model.lmHead(states).to(dtype);
    const scaled = temperature === 1 ? logits : logits.div(temperature);
    const outside =
      scoring.supports && outsideSupports(scaled, scoring.supports.slice(start, start + count));
    const kept = outside ? scaled.maskedFill(outside, -Infinity) : scaled;
    return { all: kept.logSoftmax(-1), outside };
  });
  const logprobs = all.gather(1, targets.unsqueeze(1)).squeeze(1);
  if (!withEntropy) return { logprobs };
  // 0·log 0 counts as 0 outside the support: 1·log 1 in its place, which passes no gradient on.
  const finite = outside ? all.maskedFill(outside, 0) : all;
  const probabilities = finite.exp();
  // exp keeps its result for its gradient, so that only without one it may be overwritten.
  const products = all.requiresGrad ? probabilities.mul(finite) : probabilities.mul_(finite);
  return { logprobs, entropy: products.sum(-1).neg() };
}
