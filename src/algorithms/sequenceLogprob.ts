/** Log-probabilities of whole completions. */
import { assertSameShape, type Tensor } from '../torch/index.js';
import { countedEntries, rowMean } from './counted.js';

/** What `sequenceLogprob` reads. */
export interface SequenceLogprobInputs {
  /** [B, T] nats. log π of the tokens. A gradient flows through where it requires one. */
  readonly logprobs: Tensor;
  /** [B, T] above 0 where the token belongs to the completion. */
  readonly mask: Tensor;
  /** Divide by the number of counted tokens. false when omitted. */
  readonly average?: boolean | undefined;
}

/**
 * log π of each completion: the sum over its counted tokens, or their mean.
 *
 * Source: the chain rule; the mean is the length normalisation of SimPO, arXiv:2405.14734, Eq. 3.
 *
 * @returns [B] nats, 0 for a row without a counted token
 * @throws ShapeError unless logprobs and mask are [B, T] alike
 */
export function sequenceLogprob(inputs: SequenceLogprobInputs): Tensor {
  const { logprobs, mask, average = false } = inputs;
  assertSameShape('sequenceLogprob', '[B, T]', { logprobs, mask });
  const counted = countedEntries(mask);
  if (average) return rowMean(logprobs, counted).squeeze(1);
  return logprobs.where(counted, 0).sum(1);
}
