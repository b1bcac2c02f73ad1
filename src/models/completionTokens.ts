/**
 * The parts that `tokenLogprobs` and `backwardTokenLogprobs` share: which hidden state scores which token, and the scores
 * of a chunk of tokens. Internal to this folder.
 */
import type { Linear } from '../nn/index.js';
import {
  assertIntegerAtLeast,
  assertPositive,
  cat,
  tidy,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import { completionStates, type CompletionStates } from './completionStates.js';
import { readScalars } from './scalarHead.js';
import type { TokenLogprobs, TokenLogprobsInput } from './tokenLogprobs.js';
import { topTokens, type TopTokensRequest } from './topTokens.js';
import { flattenSupports, outsideSupports, type TokenSupport } from './tokenSupports.js';

/** Elements of one chunk's logits: 16 MB in float32. The allocator keeps blocks up to 32 MB; larger ones cost page faults. */
const CHUNK_ELEMENTS = 2 ** 22;
/** Fewer tokens a chunk than this would spend more on adding up the output layer's gradients than on computing them. */
const MIN_CHUNK_TOKENS = 256;

/** The completion tokens of a batch with what is needed to score them. */
export interface CompletionTokens extends CompletionStates {
  readonly scoring: Scoring;
  /** Tokens whose logits may stand in memory at a time. */
  readonly chunkTokens: number;
  /** Reads a value from each state. */
  readonly valueHead: Linear | undefined;
  /** Of which rows the most likely tokens are asked for, with the rows' lengths. */
  readonly top:
    (TopTokensRequest & Pick<TokenLogprobsInput, 'promptLengths' | 'lengths'>) | undefined;
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
  const rows = completionStates('tokenLogprobs', model, input);
  return {
    ...rows,
    scoring: {
      model,
      targets: inputIds.to({ device: model.device }).flatten().indexSelect(0, rows.targets),
      temperature,
      withEntropy,
      dtype: rows.dtype,
      supports: flattenSupports(input, model.config.vocabSize),
    },
    chunkTokens,
    valueHead: input.valueHead,
    top: input.topTokens && {
      ...input.topTokens,
      promptLengths: input.promptLengths,
      lengths: input.lengths,
    },
  };
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

/** Scores in their places, and beside them what else is read from `states`: values, the most likely tokens. */
export function spreadScores(
  { spread, mask, valueHead, dtype, top, scoring, chunkTokens }: CompletionTokens,
  scored: Scored,
  states: Tensor,
): TokenLogprobs {
  return {
    ...(top && topTokens(scoring, states, { ...top, chunkTokens })),
    logprobs: spread(scored.logprobs),
    mask,
    ...(scored.entropy && { entropy: spread(scored.entropy) }),
    ...(valueHead && {
      values: spread(readScalars('tokenLogprobs', { head: valueHead }, states, dtype)),
    }),
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
