/** From a rollout to what PPO's updates are computed from: scores, token rewards, advantages, returns. */
import {
  gae,
  monteCarloAdvantages,
  shapeRewards,
  whiten,
  type AdvantagesAndReturns,
} from '../algorithms/index.js';
import type { PpoConfig } from '../config/index.js';
import { tensor, tidy, zeros } from '../torch/index.js';
import type { RolloutRow } from './rollout.js';
import { mean } from './rolloutRecord.js';
import type { RunningMoments } from './runningMoments.js';
import { completionMask, perToken, rowsOf } from './tokenRows.js';

/** A rollout row with what the models said of it before the updates. */
export interface EvaluatedRow extends RolloutRow {
  /** nats, of the policy. */
  readonly oldLogprobs: readonly number[];
  /** nats, of the reference, where there is one. */
  readonly refLogprobs: readonly number[] | undefined;
  /** V of the state before each token. */
  readonly values: readonly number[];
  /** V after the last token. Read only where the row is truncated and bootstrapped. */
  readonly finalValue: number;
}

/** A row as PPO trains on it. */
export interface ExperienceRow extends EvaluatedRow {
  /** The reward as it is used: normalised, clipped, with penalties. NaN where unscored. */
  readonly score: number;
  /** One per token, KL included where it is in the reward. */
  readonly tokenRewards: readonly number[];
  readonly advantages: readonly number[];
  readonly returns: readonly number[];
}

/** The settings that experience depends on. */
export type ExperienceSettings = Pick<
  PpoConfig,
  | 'rewardNormalization'
  | 'rewardClip'
  | 'missingEosPenalty'
  | 'klPlacement'
  | 'advantageEstimator'
  | 'discount'
  | 'gaeLambda'
  | 'bootstrapTruncated'
  | 'whitenAdvantages'
>;

/**
 * The scores as they are used: normalised by the moments of everything scored so far (this rollout included), clipped,
 * and less the penalty of a completion that was cut off. What a process reward earned at single tokens is not in them.
 *
 * @param moments are updated
 */
export function usedScores(
  rows: readonly RolloutRow[],
  config: ExperienceSettings,
  moments: RunningMoments,
): number[] {
  const { rewardNormalization, rewardClip, missingEosPenalty } = config;
  const isNormalized = rewardNormalization === 'running';
  if (isNormalized) moments.add(rows.map(({ reward }) => reward));
  return rows.map(({ reward: whole, tokenParts = [], finishReason }) => {
    // What was earned at a token before the end is paid there.
    const reward = tokenParts.reduce((rest, part) => rest - part, whole);
    const scaled = isNormalized ? (reward - moments.mean) / moments.std : reward;
    const limit = rewardClip ?? Infinity;
    const clipped = Number.isNaN(scaled) ? scaled : Math.min(Math.max(scaled, -limit), limit);
    return clipped - (finishReason === 'length' ? (missingEosPenalty ?? 0) : 0);
  });
}

/**
 * Token rewards, advantages and returns. The score lands on the last token that the model drew, but for what a
 * process reward earned at a step's end; tokens of an environment
 * are skipped, and the recursion goes on through them. Unscored rows count nowhere.
 *
 * @param klCoef of this step
 */
export function ppoExperience(
  rows: readonly EvaluatedRow[],
  scores: readonly number[],
  klCoef: number,
  config: ExperienceSettings,
): ExperienceRow[] {
  return tidy(() => {
    const width = Math.max(...rows.map(({ completionIds }) => completionIds.length));
    const mask = completionMask(rows, width, ({ reward }) => !Number.isNaN(reward));
    const like = zeros(mask.shape, { dtype: 'float64' });
    const logprobs = perToken(rows, like, ({ oldLogprobs }) => oldLogprobs);
    const isInReward = config.klPlacement === 'reward' && klCoef > 0;
    const shaped = shapeRewards({
      scores: tensor(Float64Array.from(scores)),
      logprobs,
      refLogprobs: isInReward
        ? perToken(rows, like, ({ refLogprobs = [] }) => refLogprobs)
        : logprobs,
      mask,
      klCoef: isInReward ? klCoef : 0,
    });
    const rewards = shaped.add(perToken(rows, like, ({ tokenParts = 0 }) => tokenParts));
    const values = perToken(rows, like, (row) => row.values);
    const { advantages, returns } = estimate({ rows, scores, rewards, values, mask }, config);
    const used = config.whitenAdvantages ? whiten({ values: advantages, mask }) : advantages;
    const [ofTokens, ofAdvantages, ofReturns] = [rewards, used, returns].map((each) =>
      rowsOf(each, rows),
    );
    return rows.map((row, index) => ({
      ...row,
      score: scores[index] ?? NaN,
      tokenRewards: ofTokens?.[index] ?? [],
      advantages: ofAdvantages?.[index] ?? [],
      returns: ofReturns?.[index] ?? [],
    }));
  });
}

function estimate(
  inputs: {
    rows: readonly EvaluatedRow[];
    scores: readonly number[];
    rewards: ReturnType<typeof shapeRewards>;
    values: ReturnType<typeof shapeRewards>;
    mask: ReturnType<typeof shapeRewards>;
  },
  config: ExperienceSettings,
): AdvantagesAndReturns {
  const { rows, rewards, values, mask } = inputs;
  const { discount, gaeLambda, bootstrapTruncated } = config;
  if (config.advantageEstimator === 'monteCarlo') {
    const scores = tensor(Float64Array.from(inputs.scores));
    return monteCarloAdvantages({ scores, values, mask, discount });
  }
  const after = rows.map(({ finishReason, finalValue }) =>
    finishReason === 'length' ? finalValue : 0,
  );
  return gae({
    rewards,
    values,
    mask,
    discount,
    gaeLambda,
    ...(bootstrapTruncated && { bootstrapValues: tensor(Float64Array.from(after)) }),
  });
}

/** Numbers about a rollout's experience, over scored rows and the tokens that the model drew. */
export function experienceMetrics(rows: readonly ExperienceRow[]): Record<string, number> {
  const scored = rows.filter(({ reward }) => !Number.isNaN(reward));
  const drawn = (of: (row: ExperienceRow) => readonly number[]): number[] =>
    scored.flatMap((row) => of(row).filter((_, at) => row.completionMask?.[at] !== 0));
  const total = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0);
  const variance = (values: readonly number[]): number => {
    const center = mean(values);
    return mean(values.map((value) => (value - center) ** 2));
  };
  const returns = drawn((row) => row.returns);
  const values = drawn((row) => row.values);
  const advantages = drawn((row) => row.advantages);
  const errors = returns.map((value, at) => value - (values[at] ?? NaN));
  const spread = variance(returns);
  const hasReference = rows.some(({ refLogprobs }) => refLogprobs);
  return {
    score: mean(scored.map(({ score }) => score)),
    rewardShaped: mean(scored.map(({ tokenRewards }) => total(tokenRewards))),
    ...(hasReference && { klSequence: sequenceKl(rows) }),
    advantageMean: mean(advantages),
    advantageStd: Math.sqrt(variance(advantages)),
    returnMean: mean(returns),
    valueMean: mean(values),
    // Where all returns are equal there is nothing to explain.
    ...(spread > 0 && { explainedVariance: 1 - variance(errors) / spread }),
  };
}

/** Σ (old − ref) over the tokens that the model drew, nats per completion, over scored rows. */
export function sequenceKl(rows: readonly EvaluatedRow[]): number {
  const scored = rows.filter(({ reward }) => !Number.isNaN(reward));
  return mean(
    scored.map(({ oldLogprobs, refLogprobs = [], completionMask: mask }) =>
      oldLogprobs.reduce(
        (sum, value, at) => (mask?.[at] === 0 ? sum : sum + value - (refLogprobs[at] ?? NaN)),
        0,
      ),
    ),
  );
}
