/**
 * The parts that `tokenLogprobs` and `backwardTokenLogprobs` share: which hidden state scores which token, and the scores
 * of a chunk of tokens. Internal to this folder.
 */
import type { Linear } from '../nn/index.js';
import {
  assertIntegerAtLeast,
  assertPositive,
  cat,
  isGradEnabled,
  noGrad,
  scoreTokens,
  tidy,
  type Dtype,
  type Tensor,
  type TokenScores,
} from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import { completionStates, type CompletionStates } from './completionStates.js';
import { readScalars } from './scalarHead.js';
import type { TokenLogprobs, TokenLogprobsInput } from './tokenLogprobs.js';
import { topTokens, type TopTokensRequest } from './topTokens.js';
import { flattenSupports, outsideSupports, type TokenSupport } from './tokenSupports.js';

/** Elements of one chunk's logits where no gradient is asked for: 16 MB in float32. */
const CHUNK_ELEMENTS = 2 ** 22;
const MIN_CHUNK_TOKENS = 256;
/**
 * Logits that may stand at a time in a pass with gradients: 128 MB in float32, or those of so many tokens: fewer in a
 * chunk would spend more on adding up the output layer's gradients than on computing them.
 */
const RECORDED_ELEMENTS = 2 ** 25;
const MIN_RECORDED_TOKENS = 1024;

/** The completion tokens of a batch with what is needed to score them. */
export interface CompletionTokens extends CompletionStates {
  readonly scoring: Scoring;
  /** Tokens of a chunk. Of a pass with gradients two chunks' logits may stand in memory, of others one. */
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

/**
 * Runs the model up to the hidden states of every completion token. Called in a `tidy`.
 *
 * @param isRecorded whether chunks are as in a pass with gradients
 * @throws as `tokenLogprobs`
 */
export function completionTokens(
  model: CausalLm,
  input: TokenLogprobsInput,
  isRecorded = false,
): CompletionTokens {
  const { inputIds, temperature = 1, withEntropy = false } = input;
  assertPositive('tokenLogprobs', 'temperature', temperature);
  if (input.chunkTokens !== undefined)
    assertIntegerAtLeast('tokenLogprobs', 'chunkTokens', input.chunkTokens, 1);
  const rows = completionStates('tokenLogprobs', model, input);
  const sizeOf = isRecorded ? recordedChunk : plainChunk;
  const chunkTokens = input.chunkTokens ?? sizeOf(model.config.vocabSize, rows.count);
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

function plainChunk(vocabSize: number): number {
  return Math.max(MIN_CHUNK_TOKENS, Math.floor(CHUNK_ELEMENTS / vocabSize));
}

/** All tokens in one chunk where they fit; otherwise two chunks fit. */
function recordedChunk(vocabSize: number, count: number): number {
  const most = Math.max(MIN_RECORDED_TOKENS, Math.floor(RECORDED_ELEMENTS / vocabSize));
  return count <= most ? Math.max(1, count) : Math.floor(most / 2);
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

/** Consecutive states and what the output layer makes of them. */
export interface ChunkLogits {
  /** [n, V] as the output layer gives them, recorded where gradients are. */
  readonly logits: Tensor;
  /** [n] int64 */
  readonly targets: Tensor;
  /** [n, V] bool, true outside of a token's support; null where there are none. */
  readonly outside: Tensor | null;
}

/** The logits of consecutive states, the first of which predicts target number `start`. Called in a `tidy`. */
export function chunkLogits(scoring: Scoring, states: Tensor, start: number): ChunkLogits {
  const { model, supports } = scoring;
  const count = states.size(0);
  const logits = model.lmHead(states);
  return {
    logits,
    targets: scoring.targets.narrow(0, start, count),
    outside: outsideSupports(logits, supports?.slice(start, start + count) ?? []) ?? null,
  };
}

/** A chunk's logits cut off from the graph, −∞ outside of supports. They share the memory of the chunk's. */
export function bareLogits({ logits, outside }: ChunkLogits): Tensor {
  return noGrad(() => {
    const bare = logits.detach();
    if (outside) bare.maskedFill_(outside, -Infinity);
    return bare;
  });
}

/** The scores of a chunk, unrecorded, in one pass over its logits. */
export function scoreLogits(
  { temperature, withEntropy }: Scoring,
  chunk: ChunkLogits,
): TokenScores {
  return scoreTokens(bareLogits(chunk), chunk.targets, { temperature, withEntropy });
}

/** The scores of consecutive states, the first of which predicts target number `start`. Called in a `tidy`. */
function scoreChunk(scoring: Scoring, states: Tensor, start: number): Scored {
  if (!isGradEnabled()) {
    const { logprobs, entropies } = tidy(() =>
      scoreLogits(scoring, chunkLogits(scoring, states, start)),
    );
    return { logprobs, ...(entropies && { entropy: entropies }) };
  }
  const { temperature, withEntropy, dtype } = scoring;
  // The logits are freed right here; only their log-softmax is needed, for the gradient too.
  const { all, targets, outside } = tidy(() => {
    const { logits, targets, outside } = chunkLogits(scoring, states, start);
    const wide = logits.to(dtype);
    const scaled = temperature === 1 ? wide : wide.div(temperature);
    const kept = outside ? scaled.maskedFill(outside, -Infinity) : scaled;
    return { all: kept.logSoftmax(-1), targets, outside };
  });
  const logprobs = all.gather(1, targets.unsqueeze(1)).squeeze(1);
  if (!withEntropy) return { logprobs };
  // 0·log 0 counts as 0 outside the support: 1·log 1 in its place, which passes no gradient on.
  const finite = outside ? all.maskedFill(outside, 0) : all;
  return { logprobs, entropy: finite.exp().mul(finite).sum(-1).neg() };
}
