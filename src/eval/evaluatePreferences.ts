/** Measures how well a reward model agrees with preferences. */
import { bradleyTerryLoss } from '../algorithms/bradleyTerry.js';
import { groupComparisons, type PreferenceExample } from '../data/index.js';
import { NumericsError, ValueRangeError } from '../errors/index.js';
import type { ScalarParts } from '../models/index.js';
import { deriveSeed, tensor, tidy, type Tensor } from '../torch/index.js';
import { calibrationError } from './calibration.js';
import { bootstrapInterval, mean, wilsonInterval, type Estimate } from './intervals.js';
import { scoreSequences } from './scoreSequences.js';

/** What to measure and how. */
export interface EvaluatePreferencesOptions {
  readonly model: ScalarParts;
  readonly pairs: readonly PreferenceExample[];
  /** The weight of the term that centres scores, for `loss`. 0 unless set. */
  readonly centerCoef?: number | undefined;
  /** Whether `loss` asks for the margins of the rows. Off unless set. */
  readonly useMargins?: boolean | undefined;
  /** Most tokens, padding included, of one forward pass. 4096 unless set. */
  readonly microBatchTokens?: number | undefined;
  /** Seed of the interval. 0 unless set. */
  readonly seed?: number | undefined;
}

/** What was measured. Every comparison counts the same, its pairs share what it counts. */
export interface PreferenceEvaluation {
  readonly pairs: number;
  readonly comparisons: number;
  /** Mean of −log σ(r_c − r_r − m) + c·(r_c + r_r)². */
  readonly loss: number;
  /**
   * Share of pairs whose preferred completion has the higher score; a tie counts half. The interval is Wilson's, and
   * bootstrapped over comparisons where one has several pairs, which depend on each other.
   */
  readonly accuracy: Estimate;
  /** Mean of r_c − r_r. */
  readonly margin: number;
  readonly chosenReward: number;
  readonly rejectedReward: number;
  /** Population standard deviation of the scores of all completions. */
  readonly rewardStd: number;
  /** Mean of σ(r_c − r_r), the probability that the model gives to what was preferred. */
  readonly probability: number;
  /** See `calibrationError`: the confidence of a pair is σ(|r_c − r_r|). */
  readonly calibrationError: number;
}

/**
 * Scores held-out pairs by a reward model.
 *
 * @throws ValueRangeError if there is no pair; NumericsError where a score is not finite
 */
export function evaluatePreferences(options: EvaluatePreferencesOptions): PreferenceEvaluation {
  const { model, centerCoef = 0, useMargins = false, seed = 0 } = options;
  if (options.pairs.length === 0) {
    throw new ValueRangeError('evaluatePreferences: expected at least one pair, received none.');
  }
  const comparisons = groupComparisons(options.pairs);
  const sequences = comparisons.flatMap(({ completions }) =>
    completions.map(({ promptIds, completionIds }) => [...promptIds, ...completionIds]),
  );
  const scores = scoreSequences(model, sequences, options.microBatchTokens);
  const broken = scores.find((score) => !Number.isFinite(score));
  if (broken !== undefined) {
    throw new NumericsError(
      `evaluatePreferences: expected finite scores, but the model gave ${broken}.`,
      { hint: 'Load it with dtype float32, or look at its training.' },
    );
  }
  let next = 0;
  const pairs = comparisons.flatMap(({ completions, pairs: judged }, comparison) => {
    const own = scores.slice(next, (next += completions.length));
    return judged.map(({ chosen, rejected, margin }) => ({
      comparison,
      chosen: own[chosen] ?? Number.NaN,
      rejected: own[rejected] ?? Number.NaN,
      margin,
      weight: 1 / (judged.length * comparisons.length),
    }));
  });
  const weights = pairs.map(({ weight }) => weight);
  const wins = pairs.map(({ chosen, rejected }) => winOf(chosen, rejected));
  const leads = pairs.map(({ chosen, rejected }) => chosen - rejected);
  const sums = tidy(() => {
    const of = (values: number[]): Tensor => tensor(values, { dtype: 'float64' });
    const { loss, stats } = bradleyTerryLoss({
      chosenRewards: of(pairs.map(({ chosen }) => chosen)),
      rejectedRewards: of(pairs.map(({ rejected }) => rejected)),
      ...(useMargins && { margins: of(pairs.map(({ margin }) => margin)) }),
      centerCoef,
      weights: of(weights),
    });
    return {
      loss: loss.item(),
      margin: stats.margin.item(),
      chosenReward: stats.chosenReward.item(),
      rejectedReward: stats.rejectedReward.item(),
    };
  });
  const center = mean(scores);
  return {
    pairs: pairs.length,
    comparisons: comparisons.length,
    ...sums,
    accuracy: accuracyOf(
      comparisons.map(({ pairs: judged }) => judged.length),
      wins,
      deriveSeed(seed, 'preference accuracy'),
    ),
    rewardStd: Math.sqrt(mean(scores.map((score) => (score - center) ** 2))),
    probability: leads.reduce((sum, lead, index) => sum + (weights[index] ?? 0) * sigmoid(lead), 0),
    calibrationError: calibrationError({
      confidences: leads.map((lead) => sigmoid(Math.abs(lead))),
      correct: wins,
      weights,
    }),
  };
}

/** Numbers that a run logs: the interval as two of them. */
export function preferenceMetrics(evaluation: PreferenceEvaluation): Record<string, number> {
  const { accuracy, pairs: _, comparisons: __, ...numbers } = evaluation;
  return {
    ...numbers,
    accuracy: accuracy.value,
    accuracyLow: accuracy.low,
    accuracyHigh: accuracy.high,
  };
}

function winOf(chosen: number, rejected: number): number {
  if (chosen === rejected) return 0.5;
  return chosen > rejected ? 1 : 0;
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** @param sizes pairs of each comparison, whose wins follow each other */
function accuracyOf(sizes: readonly number[], wins: readonly number[], seed: number): Estimate {
  if (sizes.every((size) => size === 1)) {
    const won = wins.reduce((sum, win) => sum + win, 0);
    return wilsonInterval(won, wins.length);
  }
  let next = 0;
  const shares = sizes.map((size) => mean(wins.slice(next, (next += size))));
  return bootstrapInterval(shares, seed);
}
