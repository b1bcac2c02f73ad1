/** Estimates over problems with 95 % confidence intervals. Plain numbers. */
import { SeededRandom } from '../data/index.js';
import { ValueRangeError } from '../errors/index.js';

/** A mean over problems and where it plausibly lies. */
export interface Estimate {
  readonly value: number;
  /** Ends of the 95 % confidence interval. */
  readonly low: number;
  readonly high: number;
}

/** The 97.5 % quantile of the standard normal distribution. */
const Z = 1.959963984540054;
const RESAMPLES = 2000;

/**
 * A proportion of problems with Wilson's score interval, which stays inside [0, 1] and is right for few problems and for
 * proportions of 0 and 1 too.
 *
 *     (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)
 *
 * Source: Wilson 1927, JASA 22(158), 209–212.
 *
 * @throws ValueRangeError unless 0 ≤ successes ≤ trials and there is a trial
 */
export function wilsonInterval(successes: number, trials: number): Estimate {
  if (!(trials >= 1 && successes >= 0 && successes <= trials)) {
    throw new ValueRangeError(
      `wilsonInterval: expected 0 ≤ successes ≤ trials and a trial, received ${successes} of ${trials}.`,
    );
  }
  const value = successes / trials;
  const z2 = (Z * Z) / trials;
  const centre = value + z2 / 2;
  const half = Z * Math.sqrt((value * (1 - value)) / trials + z2 / (4 * trials));
  // At the ends one bound is exactly 0 or 1; subtraction of roundings would miss it.
  const low = successes === 0 ? 0 : (centre - half) / (1 + z2);
  const high = successes === trials ? 1 : (centre + half) / (1 + z2);
  return { value, low, high };
}

/**
 * The mean of one number per problem with a percentile bootstrap interval: problems are drawn again with replacement
 * 2,000 times from a seeded stream, and the interval holds the middle 95 % of the means.
 *
 * Source: Efron 1979, Annals of Statistics 7(1), 1–26; the percentile method.
 *
 * @throws ValueRangeError if there is no problem
 */
export function bootstrapInterval(values: readonly number[], seed: number): Estimate {
  if (values.length === 0) {
    throw new ValueRangeError('bootstrapInterval: expected at least one problem, received none.');
  }
  const random = new SeededRandom(seed);
  const means = Float64Array.from({ length: RESAMPLES }, () => {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[random.nextInt(values.length)] ?? 0;
    return sum / values.length;
  }).sort();
  const at = (quantile: number): number => means[Math.round(quantile * (RESAMPLES - 1))] ?? NaN;
  return { value: mean(values), low: at(0.025), high: at(0.975) };
}

/** The mean; NaN of nothing. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
