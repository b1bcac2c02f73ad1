import { cat, enableGrad, noGrad, stack, tidy, type Tensor } from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import {
  chunksOf,
  completionTokens,
  scoreChunk,
  scoreInChunks,
  spreadScores,
  type CompletionTokens,
  type Scored,
} from './completionTokens.js';
import type { TokenLogprobs, TokenLogprobsInput } from './tokenLogprobs.js';

/**
 * The gradient of a loss on the log-probabilities of completions, without ever holding a [tokens, V] matrix.
 *
 * `objective` is called once with what `tokenLogprobs` returns for `input`; `loss` of its result is taken back to the
 * parameters, whose `grad` then holds what `objective(tokenLogprobs(model, input)).loss.backward()` gives. The
 * log-probabilities are first computed in chunks without a record. When the loss has told its gradient with respect to
 * them, each chunk's logits are computed again, now with a record, and freed after their own backward pass. That costs
 * one more product with the output layer and saves memory in proportion to tokens × V. A batch that fits into one chunk
 * takes the direct way.
 *
 * Source: recomputation as in Chen et al. 2016, arXiv:1604.06174.
 *
 * @param objective its `loss` is a scalar that depends on the parameters through its argument only
 * @returns what `objective` returned, cut off from the graph; tensors of it outlive this call
 * @throws as `tokenLogprobs`, and NativeError when the loss does not depend on the log-probabilities
 */
export function backwardTokenLogprobs<Result extends { readonly loss: Tensor }>(
  model: CausalLm,
  input: TokenLogprobsInput,
  objective: (scored: TokenLogprobs) => Result,
): Result {
  const run = (): Result => {
    const tokens = completionTokens(model, input);
    const { scoring, states, count, chunkTokens } = tokens;
    if (count > chunkTokens) return inChunks(tokens, objective);
    const size = Math.max(1, count);
    const result = objective(spreadScores(tokens, scoreInChunks(scoring, states, size), states));
    result.loss.backward();
    return result;
  };
  return tidy(() => enableGrad(() => ({ result: run() }))).result;
}

function inChunks<Result extends { readonly loss: Tensor }>(
  tokens: CompletionTokens,
  objective: (scored: TokenLogprobs) => Result,
): Result {
  const { scoring, chunkTokens } = tokens;
  // Cut off here: the chunks' gradients are collected and sent through the rest of the model in one pass.
  const states = tokens.states.detach();
  const flat = noGrad(() => scoreInChunks(scoring, states, chunkTokens));
  for (const leaf of [flat.logprobs, flat.entropy]) if (leaf) leaf.requiresGrad = true;
  // Values need no chunks: they are recorded, and what their loss says of the states is added to the chunks' part.
  const valueStates = tokens.states.detach();
  valueStates.requiresGrad = tokens.valueHead !== undefined;
  const result = objective(spreadScores(tokens, flat, valueStates));
  result.loss.backward();
  const ofValues = valueStates.grad;
  const ofScores = scoreGradient(tokens, states, flat, ofValues !== null);
  const parts = [ofScores, ofValues].filter((part) => part !== null);
  // Where nothing below the output layer is trained there is nowhere to go on to.
  if (tokens.states.requiresGrad)
    tokens.states.backward(parts.reduce((sum, part) => sum.add(part)));
  return result;
}

/**
 * Gives the output layer its gradient, chunk by chunk.
 *
 * @param flat scores with the loss's gradient with respect to them
 * @param isOptional whether the loss may depend on something else than these scores
 * @returns [N, D] the gradient of the states; null where the loss does not depend on the scores
 */
function scoreGradient(
  { scoring, count, chunkTokens }: CompletionTokens,
  states: Tensor,
  flat: Scored,
  isOptional: boolean,
): Tensor | null {
  const ofLogprobs = flat.logprobs.grad;
  const ofEntropy = flat.entropy?.grad ?? null;
  if (isOptional && ofLogprobs === null && ofEntropy === null) return null;
  const gradients = chunksOf(count, chunkTokens).map(([start, length]) =>
    tidy(() => {
      const chunk = states.narrow(0, start, length).detach().requiresGrad_();
      // An entropy that is only measured was measured above.
      const needed = { ...scoring, withEntropy: ofEntropy !== null };
      const { logprobs, entropy } = scoreChunk(needed, chunk, start);
      const weighted = (scores: Tensor, gradient: Tensor): Tensor =>
        scores.mul(gradient.narrow(0, start, length)).sum();
      const parts = [
        ...(ofLogprobs ? [weighted(logprobs, ofLogprobs)] : []),
        ...(ofEntropy && entropy ? [weighted(entropy, ofEntropy)] : []),
      ];
      stack(parts).sum().backward();
      return chunk.grad;
    }),
  );
  return cat(gradients.filter((gradient) => gradient !== null));
}
