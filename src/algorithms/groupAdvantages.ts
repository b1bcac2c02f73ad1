/** Advantages of completions relative to the other completions of the same prompt. */
import { ValueRangeError } from '../errors/index.js';
import type { Tensor } from '../torch/index.js';
import {
  fromHost,
  hasNoVariance,
  isScored,
  mean,
  rewardGroups,
  unbiasedStd,
} from './hostValues.js';

/** What the centred rewards are divided by. */
export type AdvantageScale =
  /** The unbiased std of the group. GRPO, arXiv:2402.03300, §4.1.2. */
  | 'group'
  /** The unbiased std of all scored rewards of the batch. Liu et al. 2025, arXiv:2508.08221. */
  | 'batch'
  /** The unbiased std of all centred rewards r − mean(group) of the batch. ScaleRL, arXiv:2510.13786, §4. */
  | 'centered'
  /** Nothing. Dr. GRPO, arXiv:2503.20783, and DeepSeek-V3.2. */
  | 'none';

/** What `groupAdvantages` reads. */
export interface GroupAdvantagesInputs {
  /** [B] scores, the rows of one prompt contiguous; NaN where a row is unscored. Constant. */
  readonly rewards: Tensor;
  /** G ≥ 2: completions per prompt. */
  readonly groupSize: number;
  /** What the centred rewards are divided by. `group` when omitted. */
  readonly scale?: AdvantageScale | undefined;
  /** ε ≥ 0, added to the std. 1e-4 when omitted: TRL's value; the papers name none. */
  readonly epsilon?: number | undefined;
}

/**
 * Advantages relative to the group.
 *
 *     A = (r − mean(group)) / (std + ε)
 *
 * An unscored row is left out of mean and std and gets 0; so does every row of a group with fewer than two scored rows,
 * or whose scored rewards are all equal (exactly 0, whatever the rounding of their mean).
 *
 * Source: Shao et al. 2024, arXiv:2402.03300, §4.1.2. The std is unbiased as in TRL and verl; the paper does not say.
 *
 * @returns [B], the rewards' floating dtype (else float32); a constant
 * @throws ShapeError unless rewards is [B] with B a multiple of groupSize
 * @throws ValueRangeError for groupSize < 2, ε < 0, an unknown scale, or an infinite reward
 */
export function groupAdvantages(inputs: GroupAdvantagesInputs): Tensor {
  const { rewards, groupSize, scale = 'group', epsilon = 1e-4 } = inputs;
  if (!(epsilon >= 0)) {
    throw new ValueRangeError(
      `groupAdvantages: expected epsilon to be at least 0, received ${epsilon}.`,
    );
  }
  const groups = rewardGroups('groupAdvantages', rewards, groupSize, 2);
  const divisorOf = advantageDivisor(groups, scale, epsilon);
  const advantages = groups.flatMap((group) => {
    const scored = group.filter(isScored);
    if (hasNoVariance(scored)) return group.map(() => 0);
    const baseline = mean(scored);
    const divisor = divisorOf(scored);
    return group.map((reward) => (isScored(reward) ? (reward - baseline) / divisor : 0));
  });
  return fromHost(advantages, rewards.shape, rewards);
}

function advantageDivisor(
  groups: readonly number[][],
  scale: AdvantageScale,
  epsilon: number,
): (scored: readonly number[]) => number {
  switch (scale) {
    case 'group':
      return (scored) => unbiasedStd(scored) + epsilon;
    case 'batch': {
      const divisor = unbiasedStd(groups.flat().filter(isScored)) + epsilon;
      return () => divisor;
    }
    case 'centered': {
      const centered = groups
        .map((group) => group.filter(isScored))
        .flatMap((scored) => scored.map((reward) => reward - mean(scored)));
      const divisor = unbiasedStd(centered) + epsilon;
      return () => divisor;
    }
    case 'none':
      return () => 1;
    default:
      throw unknownScale(scale);
  }
}

function unknownScale(scale: never): ValueRangeError {
  return new ValueRangeError(
    `groupAdvantages: expected scale to be group, batch, centered or none, received ${JSON.stringify(scale)}.`,
  );
}
