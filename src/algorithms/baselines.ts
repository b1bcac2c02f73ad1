/** Advantages from other baselines than the mean of the group: the others, the greedy completion, the second best. */
import { ShapeError } from '../errors/index.js';
import { assertRank, type Tensor } from '../torch/index.js';
import { fromHost, hasNoVariance, isScored, rewardGroups, toHost } from './hostValues.js';

/** What `leaveOneOutAdvantages` and `bestMinusSecondAdvantages` read. */
export interface GroupRewards {
  /** [B] scores, the rows of one prompt contiguous; NaN where a row is unscored. Constant. */
  readonly rewards: Tensor;
  /** G ≥ 2: completions per prompt. */
  readonly groupSize: number;
}

/**
 * The reward minus the mean reward of the other completions of the prompt.
 *
 *     Aᵢ = rᵢ − (Σ_{j≠i} rⱼ)/(n − 1)
 *
 * An unscored row is left out and gets 0; so does the only scored row of a group.
 *
 * Source: Ahmadian et al. 2024 (RLOO), arXiv:2402.14740, §3.2; Kool et al. 2019.
 *
 * @returns [B], the rewards' floating dtype (else float32); a constant
 * @throws ShapeError unless rewards is [B] with B a multiple of groupSize
 * @throws ValueRangeError for groupSize < 2 or an infinite reward
 */
export function leaveOneOutAdvantages({ rewards, groupSize }: GroupRewards): Tensor {
  const groups = rewardGroups('leaveOneOutAdvantages', rewards, groupSize, 2);
  const advantages = groups.flatMap((group) => {
    const scored = group.filter(isScored);
    if (hasNoVariance(scored)) return group.map(() => 0);
    const total = scored.reduce((sum, reward) => sum + reward, 0);
    const others = scored.length - 1;
    return group.map((reward) => (isScored(reward) ? reward - (total - reward) / others : 0));
  });
  return fromHost(advantages, rewards.shape, rewards);
}

/**
 * For the best completion of each prompt, its lead over the second best; 0 for every other. What improves pass@k is
 * only whether the best of k improves.
 *
 *     A_best = r_max − r_second
 *
 * Two best completions lead by 0. An unscored row is left out and gets 0; so does the only scored row of a group.
 *
 * Source: Tang et al. 2025, arXiv:2503.19595: the best of the group with the leave-one-out baseline.
 *
 * @returns [B], the rewards' floating dtype (else float32); a constant
 * @throws ShapeError unless rewards is [B] with B a multiple of groupSize
 * @throws ValueRangeError for groupSize < 2 or an infinite reward
 */
export function bestMinusSecondAdvantages({ rewards, groupSize }: GroupRewards): Tensor {
  const groups = rewardGroups('bestMinusSecondAdvantages', rewards, groupSize, 2);
  const advantages = groups.flatMap((group) => {
    const [best, second] = group.filter(isScored).toSorted((a, b) => b - a);
    if (best === undefined || second === undefined) return group.map(() => 0);
    return group.map((reward) => (reward === best ? best - second : 0));
  });
  return fromHost(advantages, rewards.shape, rewards);
}

/** What `greedyBaselineAdvantages` reads. */
export interface GreedyBaselineInputs {
  /** [B] scores of sampled completions, the rows of one prompt contiguous; NaN where a row is unscored. Constant. */
  readonly rewards: Tensor;
  /** [P] score of the greedy completion of each prompt, under the policy that sampled. Constant. */
  readonly greedyRewards: Tensor;
  /** G ≥ 1: completions per prompt. */
  readonly groupSize: number;
}

/**
 * The reward minus that of the greedy completion of the same prompt.
 *
 *     A = r − r(greedy)
 *
 * A row gets 0 where it, or the greedy completion of its prompt, is unscored.
 *
 * Source: Rennie et al. 2017 (SCST), arXiv:1612.00563, Eq. 8; Li et al. 2023 (ReMax), arXiv:2310.10505, Eq. 4.
 *
 * @returns [B], the floating dtype of the rewards (else float32); a constant
 * @throws ShapeError unless rewards is [B] and greedyRewards [P] with B = P·groupSize
 * @throws ValueRangeError for groupSize < 1 or an infinite reward
 */
export function greedyBaselineAdvantages(inputs: GreedyBaselineInputs): Tensor {
  const { rewards, greedyRewards, groupSize } = inputs;
  const where = 'greedyBaselineAdvantages';
  const groups = rewardGroups(where, rewards, groupSize, 1);
  assertRank(where, '[P]', { greedyRewards });
  if (greedyRewards.size(0) !== groups.length) {
    throw new ShapeError(
      `${where}: expected greedyRewards to have shape [P] = [${groups.length}], one per group of rewards, received [${greedyRewards.size(0)}].`,
    );
  }
  const baselines = toHost(greedyRewards);
  const advantages = groups.flatMap((group, prompt) => {
    const baseline = baselines[prompt] as number; // the lengths were compared above
    return group.map((reward) => (isScored(reward - baseline) ? reward - baseline : 0));
  });
  return fromHost(advantages, rewards.shape, rewards, greedyRewards);
}
