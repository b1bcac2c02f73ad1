import { cat, enableGrad, noGrad, stack, tidy, type Tensor } from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import {
  chunksOf,
  completionTokens,
  scoreChunk,
  scoreInChunks,
  spreadScores,
  type CompletionTokens,
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
    const result = objective(spreadScores(tokens, scoreInChunks(scoring, states, size)));
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
  const scored = spreadScores(
    tokens,
    noGrad(() => scoreInChunks(scoring, states, chunkTokens)),
  );
  for (const leaf of [scored.logprobs, scored.entropy]) if (leaf) leaf.requiresGrad = true;
  const result = objective(scored);
  result.loss.backward();
  const gradientOf = (leaf: Tensor | undefined): Tensor | null => {
    const gradient = leaf?.grad;
    return gradient ? tokens.gather(gradient) : null;
  };
  const ofLogprobs = gradientOf(scored.logprobs);
  const ofEntropy = gradientOf(scored.entropy);
  const gradients = chunksOf(tokens.count, chunkTokens).map(([start, length]) =>
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
  // Where nothing below the output layer is trained there is nowhere to go on to.
  if (tokens.states.requiresGrad) {
    const known = gradients.filter((gradient) => gradient !== null);
    tokens.states.backward(cat(known));
  }
  return result;
}
