/** Log-probabilities that a model gives to completions that are already written. */
import type { Linear } from '../nn/index.js';
import { isGradEnabled, tidy, type Tensor } from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import type { CompletionRows } from './completionStates.js';
import { completionTokens, scoreInChunks, spreadScores } from './completionTokens.js';
import type { TopTokensRequest } from './topTokens.js';
import type { TokenSupport } from './tokenSupports.js';

/** What `tokenLogprobs` reads. */
export interface TokenLogprobsInput extends CompletionRows {
  /** τ, by which logits are divided: 1 unless said. The sampler's, or its log-probabilities are others. */
  readonly temperature?: number | undefined;
  /** Tokens whose logits stand in memory at a time, see below; chosen by the vocabulary's size. */
  readonly chunkTokens?: number | undefined;
  /** Also compute the entropy of each distribution. */
  readonly withEntropy?: boolean | undefined;
  /**
   * Per row, per completion token: the ids that the token was drawn among, as `sample` returns them. The distribution is
   * renormalised on them, for the entropy too. null, or undefined for a row: the whole vocabulary. What a sampler
   * truncated and its trainer did not would have a mean ratio below 1: the mass that was kept.
   */
  readonly supports?: readonly (readonly TokenSupport[] | undefined)[] | undefined;
  /** [1, D] Also read a value from the states that score the tokens: a value function on the policy's own trunk. */
  readonly valueHead?: Linear | undefined;
  /** Also name the most likely tokens at each place of some rows. */
  readonly topTokens?: TopTokensRequest | undefined;
}

/** What `tokenLogprobs` returns. T is the longest completion; position t of row i is its token promptLengths[i] + t. */
export interface TokenLogprobs {
  /** [B, T] nats, exactly 0 beyond a row's completion. float32, float64 for a float64 model. */
  readonly logprobs: Tensor;
  /** [B, T] nats, exactly 0 beyond a row's completion; present if asked for. */
  readonly entropy?: Tensor;
  /** [B, T] V of the state before token t, exactly 0 beyond a row's completion; present if there was a value head. */
  readonly values?: Tensor;
  /** [n, k] int64, most likely first: of the n tokens of the rows of `topTokens`, row after row; present if asked for. */
  readonly topIds?: Tensor;
  /** [n, k] nats, −∞ outside of the token's support; carries no gradient. */
  readonly topLogprobs?: Tensor;
  /** [B, T] 1 at tokens of the completion, 0 beyond; the dtype of `logprobs`. */
  readonly mask: Tensor;
}

/**
 * The log-probability of every completion token given all tokens before it.
 *
 *     logprobs[i][t] = log softmax(logits[i][p − 1] / τ)[inputIds[i][p]],  p = promptLengths[i] + t
 *
 * The logits at position p − 1 score the token at p. They are computed at the completion's positions only; the softmax is
 * taken in float32 (float64 for a float64 model) whatever the model's dtype. Where no gradient is recorded, the
 * [tokens, V] matrix exists in chunks only. With gradients it stands as a whole until `backward`; see
 * `backwardTokenLogprobs` for one that never does.
 *
 * With `supports` the softmax runs over the support S of each token only: logits outside of S count as −∞ and get no
 * gradient. Source: DeepSeek-AI 2025, arXiv:2512.02556, section 3.1, "Keep Sampling Mask".
 *
 * @returns gradients flow to the parameters, through `entropy` and `values` too
 * @throws ShapeError unless the inputs fit together; ValueRangeError for a length or an id of a support out of range, a
 *   support without the token itself, or τ ≤ 0
 */
export function tokenLogprobs(model: CausalLm, input: TokenLogprobsInput): TokenLogprobs {
  return tidy(() => {
    const tokens = completionTokens(model, input);
    const { states, scoring, count, chunkTokens } = tokens;
    const size = isGradEnabled() ? Math.max(1, count) : chunkTokens;
    return spreadScores(tokens, scoreInChunks(scoring, states, size), states);
  });
}
