/** How often anybody can agree with an annotator who errs. Plain numbers; does not know who is measured. */
import { ValueRangeError } from '../errors/index.js';

/**
 * The share of an annotator's judgements that a perfect judge would agree with. An annotator who ranks as `rankByReward`
 * does prefers i to j with probability p = σ((sᵢ − sⱼ)/τ). Whoever knows the rewards exactly, and says what is likelier,
 * is right with probability max(p, 1 − p), and nobody can be right more often:
 *
 *     ceiling = mean over rankings of the mean over their pairs of max(p, 1 − p) = σ(|sᵢ − sⱼ|/τ)
 *
 * Every ranking counts the same, as in the accuracy of reward models. Without noise it is 1; equal rewards are then tied
 * and give no pair. With noise they are judged by chance, 1/2.
 *
 * Source: ours, from Bradley & Terry 1952. It is the accuracy of the Bayes classifier of the pairs.
 *
 * @param rankings the true rewards of what was ranked together; a ranking without a pair does not count
 * @param noise τ ≥ 0, see `rankByReward`
 * @returns from 1/2 to 1; NaN where there is no pair
 * @throws ValueRangeError if a reward is not finite, or noise is negative or not finite
 */
export function agreementCeiling(rankings: readonly (readonly number[])[], noise: number): number {
  if (!(noise >= 0 && noise < Infinity)) {
    throw new ValueRangeError(
      `agreementCeiling: expected noise to be finite and at least 0, received ${noise}.`,
    );
  }
  const broken = rankings.flat().find((score) => !Number.isFinite(score));
  if (broken !== undefined) {
    throw new ValueRangeError(
      `agreementCeiling: expected every reward to be finite, received ${broken}.`,
    );
  }
  const shares = rankings.flatMap((scores) => {
    const leads = scores.flatMap((score, index) =>
      scores.slice(index + 1).map((other) => Math.abs(score - other)),
    );
    const judged = noise === 0 ? leads.filter((lead) => lead > 0) : leads;
    return judged.length === 0
      ? []
      : [meanOf(judged.map((lead) => (noise === 0 ? 1 : 1 / (1 + Math.exp(-lead / noise)))))];
  });
  return meanOf(shares);
}

/** NaN of nothing. */
function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
