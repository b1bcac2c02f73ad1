import {
  cat,
  enableGrad,
  noGrad,
  scoreGradient_,
  tidy,
  type Tensor,
  type TokenScores,
} from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import {
  bareLogits,
  chunkLogits,
  chunksOf,
  completionTokens,
  scoreLogits,
  spreadScores,
  type ChunkLogits,
  type CompletionTokens,
  type Scored,
} from './completionTokens.js';
import type { TokenLogprobs, TokenLogprobsInput } from './tokenLogprobs.js';

/**
 * The gradient of a loss on the log-probabilities of completions. Of the [tokens, V] matrix one copy stands where all tokens
 * fit into a chunk, and two chunks of it otherwise.
 *
 * `objective` is called once with what `tokenLogprobs` returns for `input`; `loss` of its result is taken back to the
 * parameters, whose `grad` then holds what `objective(tokenLogprobs(model, input)).loss.backward()` gives. The
 * log-probabilities are computed in chunks, of which only the last keeps its logits. When the loss has told its gradient
 * with respect to them, the gradient of each chunk's logits takes the place of the logits, which are computed again where
 * they were not kept: one more product with the output layer.
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
  return tidy(() =>
    enableGrad(() => ({ result: inChunks(completionTokens(model, input, true), objective) })),
  ).result;
}

/** A chunk whose logits can be taken back to the parameters. */
interface RecordedChunk extends ChunkLogits {
  /** [n, D] the states, a leaf of the graph. */
  readonly leaf: Tensor;
}

/** A chunk with its scores. */
interface Chunk {
  readonly start: number;
  readonly length: number;
  readonly scores: TokenScores;
  /** Null where the logits were freed. */
  readonly recorded: RecordedChunk | null;
}

function inChunks<Result extends { readonly loss: Tensor }>(
  tokens: CompletionTokens,
  objective: (scored: TokenLogprobs) => Result,
): Result {
  // Cut off here: the chunks' gradients are collected and sent through the rest of the model in one pass.
  const states = tokens.states.detach();
  const chunks = scoredChunks(tokens, states);
  const flat = leavesOf(tokens, chunks);
  // Values need no chunks: they are recorded, and what their loss says of the states is added to the chunks' part.
  const valueStates = tokens.states.detach();
  valueStates.requiresGrad = tokens.valueHead !== undefined;
  const result = objective(spreadScores(tokens, flat, valueStates));
  result.loss.backward();
  const parts = [scoreGradient(tokens, states, { flat, chunks }), valueStates.grad].filter(
    (part) => part !== null,
  );
  // Where nothing below the output layer is trained there is nowhere to go on to.
  if (tokens.states.requiresGrad && parts.length > 0)
    tokens.states.backward(parts.reduce((sum, part) => sum.add(part)));
  return result;
}

function recordChunk(
  { scoring }: CompletionTokens,
  states: Tensor,
  { start, length }: Pick<Chunk, 'start' | 'length'>,
): RecordedChunk {
  const leaf = states.narrow(0, start, length).detach().requiresGrad_();
  return { leaf, ...chunkLogits(scoring, leaf, start) };
}

/** The scores of all chunks, the last with its logits. */
function scoredChunks(tokens: CompletionTokens, states: Tensor): Chunk[] {
  const { scoring, count, chunkTokens } = tokens;
  const pieces = chunksOf(count, chunkTokens);
  return pieces.map(([start, length], index) => {
    const place = { start, length };
    if (index < pieces.length - 1) {
      const scores = noGrad(() =>
        tidy(() =>
          scoreLogits(scoring, chunkLogits(scoring, states.narrow(0, start, length), start)),
        ),
      );
      return { ...place, scores, recorded: null };
    }
    const recorded = recordChunk(tokens, states, place);
    return { ...place, scores: scoreLogits(scoring, recorded), recorded };
  });
}

/** The scores of all chunks together, as leaves that collect the gradient of the loss. */
function leavesOf({ scoring }: CompletionTokens, chunks: readonly Chunk[]): Scored {
  const leaf = (parts: readonly Tensor[]): Tensor => noGrad(() => cat(parts)).requiresGrad_();
  const entropies = chunks.flatMap(({ scores }) => scores.entropies ?? []);
  return {
    logprobs: leaf(chunks.map(({ scores }) => scores.logprobs)),
    ...(scoring.withEntropy && { entropy: leaf(entropies) }),
  };
}

/**
 * Gives the output layer its gradient, chunk by chunk.
 *
 * @param scored.flat scores with the loss's gradient with respect to them
 * @returns [N, D] the gradient of the states; null where the loss does not depend on the scores
 */
function scoreGradient(
  tokens: CompletionTokens,
  states: Tensor,
  { flat, chunks }: { flat: Scored; chunks: readonly Chunk[] },
): Tensor | null {
  const [ofLogprobs, ofEntropies] = [flat.logprobs.grad, flat.entropy?.grad ?? null];
  if (ofLogprobs === null && ofEntropies === null) return null;
  const { temperature } = tokens.scoring;
  // The last one first: its logits are in memory.
  const gradients = chunks.toReversed().map((chunk) =>
    tidy(() => {
      const recorded = chunk.recorded ?? recordChunk(tokens, states, chunk);
      const { leaf, logits, targets } = recorded;
      const bare = bareLogits(recorded);
      const part = (gradient: Tensor | null): Tensor | null =>
        gradient && gradient.narrow(0, chunk.start, chunk.length);
      scoreGradient_(bare, {
        ...{ targets, temperature, scores: chunk.scores },
        ...{ ofLogprobs: part(ofLogprobs), ofEntropies: part(ofEntropies) },
      });
      logits.backward(bare);
      // Those that were kept live until the end of the call otherwise.
      for (const tensor of [logits, recorded.outside]) tensor?.dispose();
      return leaf.grad;
    }),
  );
  return cat(gradients.filter((gradient) => gradient !== null).toReversed());
}
