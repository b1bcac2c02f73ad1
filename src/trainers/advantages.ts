/** From scored rows to the advantage of every token, as a method's settings ask. Rows in, numbers out. */
import {
  batchWhitenedAdvantages,
  bestMinusSecondAdvantages,
  greedyBaselineAdvantages,
  groupAdvantages,
  leaveOneOutAdvantages,
  penalizedScores,
  shapeRewards,
  whiten,
} from '../algorithms/index.js';
import type { GrpoConfig } from '../config/index.js';
import { tensor, tidy, zeros, type Tensor } from '../torch/index.js';
import type { RolloutRow } from './rollout.js';
import { groupsOf } from './rolloutRecord.js';
import { completionMask, perToken, rowsOf } from './tokenRows.js';

/** A rollout row with the log-probabilities that a KL in the reward is computed from. */
export interface ScoredRow extends RolloutRow {
  /** nats, of the policy before the updates; needed where the KL is in the reward. */
  readonly oldLogprobs: readonly number[];
  readonly refLogprobs: readonly number[] | undefined;
}

/** A reward by name, whether a function or a model. */
export interface WeightedReward {
  readonly name: string;
  readonly weight: number;
}

/** The settings that advantages depend on. */
export type AdvantageSettings = Pick<
  GrpoConfig,
  | 'groupSize'
  | 'baseline'
  | 'advantageScale'
  | 'whitenAdvantages'
  | 'klPlacement'
  | 'klCoef'
  | 'normalizeRewards'
>;

/**
 * The advantage of every token, one array per row; 0 at tokens that the model did not draw, and in unscored rows.
 *
 * @param rows of the whole rollout, those of a prompt contiguous
 */
export function rowAdvantages(
  rows: readonly ScoredRow[],
  config: AdvantageSettings,
  rewards: readonly WeightedReward[],
): number[][] {
  return tidy(() => {
    const width = Math.max(...rows.map(({ completionIds }) => completionIds.length));
    const mask = completionMask(rows, width, ({ reward }) => !Number.isNaN(reward));
    const perRow = (values: readonly number[]): Tensor => tensor(Float64Array.from(values));
    const used = config.normalizeRewards ? normalizedRewards(rows, config.groupSize, rewards) : [];
    const scores = perRow(used.length > 0 ? used : rows.map(({ reward }) => reward));
    return rowsOf(tokenAdvantages(rows, scores, mask, config), rows);
  });
}

function tokenAdvantages(
  rows: readonly ScoredRow[],
  scores: Tensor,
  mask: Tensor,
  config: AdvantageSettings,
): Tensor {
  const { klCoef, klPlacement, baseline, whitenAdvantages } = config;
  const like = zeros(mask.shape, { dtype: 'float64' });
  const kl = {
    logprobs: perToken(rows, like, ({ oldLogprobs }) => oldLogprobs),
    refLogprobs: perToken(rows, like, ({ refLogprobs = [] }) => refLogprobs),
    mask,
    klCoef,
  };
  const isInReward = klCoef > 0 && klPlacement === 'reward';
  if (baseline === 'none') {
    // REINFORCE++: the reward of each token, KL included, summed from there on.
    const shapedRewards = shapeRewards(
      isInReward ? { scores, ...kl } : { scores, ...kl, refLogprobs: kl.logprobs, klCoef: 0 },
    );
    return batchWhitenedAdvantages({ shapedRewards, mask, discount: 1 });
  }
  const penalized = isInReward ? penalizedScores({ scores, ...kl }) : scores;
  const advantages = baselined(rows, penalized, config).unsqueeze(1).mul(mask);
  return whitenAdvantages ? whiten({ values: advantages, mask }) : advantages;
}

/** [B] */
function baselined(
  rows: readonly ScoredRow[],
  rewards: Tensor,
  { baseline, groupSize, advantageScale: scale }: AdvantageSettings,
): Tensor {
  switch (baseline) {
    case 'leaveOneOut':
      return leaveOneOutAdvantages({ rewards, groupSize });
    case 'secondBest':
      return bestMinusSecondAdvantages({ rewards, groupSize });
    case 'greedy': {
      const ofPrompts = groupsOf(rows, groupSize).map((group) => group[0]?.greedyReward ?? NaN);
      const greedyRewards = tensor(Float64Array.from(ofPrompts));
      return greedyBaselineAdvantages({ rewards, greedyRewards, groupSize });
    }
    case 'groupMean':
      return groupAdvantages({ rewards, groupSize, scale });
    case 'none':
      return rewards;
  }
}

/**
 * Σ weight·(r − mean)/(std + ε) over the rewards, each in its group, with the penalty of the row on top.
 *
 * Source: the per-reward normalisation of GDPO, arXiv:2601.05242.
 */
function normalizedRewards(
  rows: readonly RolloutRow[],
  groupSize: number,
  rewards: readonly WeightedReward[],
): number[] {
  const sums = rows.map(({ reward, outcome }) => reward - outcome);
  for (const { name, weight } of rewards) {
    // A row that another reward left unscored is unscored as a whole.
    const values = rows.map((row) => (Number.isNaN(row.reward) ? NaN : (row.rewards[name] ?? NaN)));
    const normalized = groupAdvantages({
      rewards: tensor(Float64Array.from(values)),
      groupSize,
    }).toTypedArray();
    normalized.forEach((value, index) => {
      sums[index] = (sums[index] ?? NaN) + weight * Number(value);
    });
  }
  return sums;
}
