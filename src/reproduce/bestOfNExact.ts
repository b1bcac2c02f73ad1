/** Best-of-n sampling where every completion is known: its distribution, not an estimate of it. Plain numbers. */
import { ShapeError, ValueRangeError } from '../errors/index.js';

/** All completions of one prompt. */
export interface ScoredCompletions {
  /** [N] nats, of the policy that is sampled. What is missing from a mass of 1 is shared out in proportion. */
  readonly logprobs: ArrayLike<number>;
  /** [N] by which the best is chosen. */
  readonly scores: ArrayLike<number>;
  /** [N] what is measured of the best: the scores themselves, or a true reward behind them. */
  readonly rewards: ArrayLike<number>;
}

/**
 * The policy that draws n completions and keeps the one with the highest score, the first of several.
 *
 *     P(score of the best = s) = F(s)ⁿ − F(s⁻)ⁿ,  F the distribution of the scores of single samples
 *
 * Completions of one score keep their shares of it, so that KL = Σₛ P(s)·log(P(s)/p(s)).
 *
 * Source: Stiennon et al. 2020, arXiv:2009.01325, Appendix G.3, with ties, for which their log n − (n − 1)/n is a bound.
 *
 * @param n samples, at least 1
 * @returns KL to the sampled policy in nats, and the expected reward of the best
 * @throws ShapeError without a completion, or where lengths differ; ValueRangeError unless n is a positive integer
 */
export function bestOfNExact(
  { logprobs, scores, rewards }: ScoredCompletions,
  n: number,
): { kl: number; reward: number } {
  if (!Number.isInteger(n) || n < 1) {
    throw new ValueRangeError(`bestOfNExact: expected n to be a positive integer, received ${n}.`);
  }
  const count = logprobs.length;
  if (count === 0 || scores.length !== count || rewards.length !== count) {
    throw new ShapeError(
      `bestOfNExact: expected one score and one reward per completion and at least one, received ${scores.length} scores and ${rewards.length} rewards of ${count} completions.`,
    );
  }
  const masses = Float64Array.from(logprobs, (logprob) => Math.exp(logprob));
  const total = masses.reduce((sum, mass) => sum + mass, 0);
  const order = Array.from(masses.keys()).sort((a, b) => (scores[a] ?? NaN) - (scores[b] ?? NaN));
  let [kl, reward, below] = [0, 0, 0];
  for (let first = 0; first < count;) {
    let end = first;
    let [mass, weighted] = [0, 0];
    while (end < count && scores[order[end] ?? 0] === scores[order[first] ?? 0]) {
      const index = order[end++] ?? 0;
      const share = (masses[index] ?? 0) / total;
      mass += share;
      weighted += share * (rewards[index] ?? NaN);
    }
    const upTo = end === count ? 1 : Math.min(1, below + mass);
    const best = upTo ** n - below ** n;
    if (best > 0 && mass > 0) {
      kl += best * Math.log(best / mass);
      reward += (best / mass) * weighted;
    }
    below = upTo;
    first = end;
  }
  return { kl: Math.max(0, kl), reward };
}
