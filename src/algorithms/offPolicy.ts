/** What to do with samples that another policy drew: a stale one, or the same one in another engine. */
import { ValueRangeError } from '../errors/index.js';
import { assertPositive, assertSameShape, type Tensor } from '../torch/index.js';
import { countedEntries, maskedLogRatio, rowMean } from './counted.js';
import { assertRows } from './rewards.js';

/** What `truncatedImportanceWeights` reads. */
export interface ImportanceWeightInputs {
  /** [B, T] nats. The sampled tokens under the policy at the start of the update phase. Constant. */
  readonly oldLogprobs: Tensor;
  /** [B, T] nats. The same tokens as the sampler reported them. Constant. */
  readonly rolloutLogprobs: Tensor;
  /** [B, T] above 0 where the token counts. */
  readonly mask: Tensor;
  /** Largest weight, above 0. */
  readonly cap: number;
  /** `token`: each its own weight. `sequence`: the geometric mean over the row, for all its tokens. */
  readonly level: 'token' | 'sequence';
  /** `truncate`: weights above the cap become the cap. `mask`: they become 0. */
  readonly mode: 'truncate' | 'mask';
}

/**
 * How much more likely the trainer's policy is than the sampler to draw each token, bounded.
 *
 *     token     u = exp(oldLogprobs − rolloutLogprobs)
 *     sequence  u = exp(mean over the row of the same), which does not grow with the length
 *
 * Source: Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training" (`truncate`);
 * IcePop in Ring-1T 2025, arXiv:2510.18855 (`mask`), which bounds the weight below too. The geometric mean over a row is
 * ours to choose: a sum drops more of the longer completions.
 *
 * @returns [B, T], 0 where nothing counts; a constant
 * @throws ShapeError unless all tensors are [B, T] alike
 * @throws ValueRangeError for a cap that is not positive, or an unknown level or mode
 */
export function truncatedImportanceWeights(inputs: ImportanceWeightInputs): Tensor {
  const { oldLogprobs, rolloutLogprobs, mask, cap, level, mode } = inputs;
  const where = 'truncatedImportanceWeights';
  assertSameShape(where, '[B, T]', { oldLogprobs, rolloutLogprobs, mask });
  assertPositive(where, 'cap', cap);
  assertOneOf(where, 'level', level, ['token', 'sequence']);
  assertOneOf(where, 'mode', mode, ['truncate', 'mask']);

  const counted = countedEntries(mask);
  const logRatio = maskedLogRatio(oldLogprobs.detach(), rolloutLogprobs, counted);
  const perToken = level === 'token' ? logRatio : rowMean(logRatio, counted).expand(logRatio.shape);
  const ratio = perToken.exp();
  const bounded = mode === 'truncate' ? ratio.clamp(null, cap) : ratio.where(ratio.le(cap), 0);
  return bounded.where(counted, 0);
}

function assertOneOf(where: string, name: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value)) {
    throw new ValueRangeError(
      `${where}: expected ${name} to be ${allowed.join(' or ')}, received ${JSON.stringify(value)}.`,
    );
  }
}

/** What `offPolicySequenceMask` reads. */
export interface OffPolicySequenceMaskInputs {
  /** [B] one advantage per row. Constant. */
  readonly advantages: Tensor;
  /** [B, T] nats. The sampled tokens under the policy that drew them: `rolloutLogprobs` where they exist. Constant. */
  readonly oldLogprobs: Tensor;
  /** [B, T] nats. The same tokens under the current policy. Constant. */
  readonly logprobs: Tensor;
  /** [B, T] above 0 where the token counts. */
  readonly mask: Tensor;
  /** δ in nats per token: how far the policy may have moved away from a bad sample. */
  readonly threshold: number;
}

/**
 * Which rows stay in the policy term: a bad sample that the policy has already moved away from is left out.
 *
 *     0 iff Â < 0 and mean over counted tokens of (oldLogprobs − logprobs) > δ, else 1
 *
 * Source: DeepSeek-V3.2 2025, arXiv:2512.02556, §3.1, Eq. 8–9. Multiplies the policy term only, never the KL.
 *
 * @returns [B] of 0 and 1 in the floating dtype of logprobs; a constant
 * @throws ShapeError unless the tensors are [B, T] alike and advantages [B]; ValueRangeError for a NaN threshold
 */
export function offPolicySequenceMask(inputs: OffPolicySequenceMaskInputs): Tensor {
  const { advantages, oldLogprobs, logprobs, mask, threshold } = inputs;
  const where = 'offPolicySequenceMask';
  assertSameShape(where, '[B, T]', { logprobs, oldLogprobs, mask });
  assertRows(where, { advantages }, mask);
  if (Number.isNaN(threshold)) {
    throw new ValueRangeError(`${where}: expected threshold to be a number, received NaN.`);
  }
  const counted = countedEntries(mask);
  const drift = rowMean(maskedLogRatio(oldLogprobs.detach(), logprobs, counted), counted);
  const isDropped = advantages.detach().lt(0).logicalAnd(drift.squeeze(1).gt(threshold));
  return isDropped.logicalNot().to(drift.dtype);
}
