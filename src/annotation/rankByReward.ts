/** An annotator who judges by a reward and errs as Plackett and Luce say. Plain values; knows no model and no texts. */
import { SeededRandom } from '../data/random.js';
import { ValueRangeError } from '../errors/index.js';

/** What `rankByReward` reads. */
export interface RankByRewardOptions {
  /** The true reward of each completion. */
  readonly scores: readonly number[];
  /** The same one errs in the same way. Not read without noise. */
  readonly seed: number;
  /**
   * τ ≥ 0, by which scores are divided before they are compared: 1 is Plackett–Luce with the scores themselves, a larger
   * one errs more, 0 never errs. 1 unless set.
   */
  readonly noise?: number | undefined;
}

/**
 * Ranks completions: the one that is chosen first, then the one that is chosen first among the rest, and so on.
 *
 *     P(i is next) = exp(sᵢ/τ) / Σ_{j not ranked yet} exp(sⱼ/τ)
 *
 * Any two of them are in the order of Bradley and Terry, P(i before j) = σ((sᵢ − sⱼ)/τ), whatever else is ranked. The
 * order is that of sᵢ + τ·gᵢ with independent standard Gumbel gᵢ, each drawn for its place in the list.
 *
 * Source: Plackett 1975, "The Analysis of Permutations"; Luce 1959; Rafailov et al. 2023, arXiv:2305.18290, Appendix A.3,
 * Eq. 18. The Gumbel form: Yellott 1977, "The relationship between Luce's choice axiom, Thurstone's theory of comparative
 * judgment, and the double exponential distribution".
 *
 * @returns the rank of each completion, 1 the best. Equal scores without noise share a rank, and the next one has as
 *   many before it as there are better ones: 1, 2, 2, 4
 * @throws ValueRangeError if a score is not finite, or noise is negative or not finite
 */
export function rankByReward(options: RankByRewardOptions): number[] {
  const { scores, seed, noise = 1 } = options;
  const unscored = scores.findIndex((score) => !Number.isFinite(score));
  if (unscored !== -1) {
    throw new ValueRangeError(
      `rankByReward: expected every score to be finite, received ${scores[unscored]} for completion ${unscored}.`,
      { hint: 'Leave completions out that could not be scored.' },
    );
  }
  if (!(noise >= 0 && noise < Infinity)) {
    throw new ValueRangeError(
      `rankByReward: expected noise to be finite and at least 0, received ${noise}.`,
    );
  }
  const random = new SeededRandom(seed);
  const seen = scores.map((score) => (noise === 0 ? score : score + noise * gumbel(random)));
  return seen.map((score) => 1 + seen.filter((other) => other > score).length);
}

/** A draw from the standard Gumbel distribution, −log(−log u). */
function gumbel(random: SeededRandom): number {
  let uniform = random.nextFloat();
  while (uniform === 0) uniform = random.nextFloat(); // log 0
  return -Math.log(-Math.log(uniform));
}
