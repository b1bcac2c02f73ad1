/** Best-of-n from N samples that were drawn once: its expectation over all subsets of n, not a draw of one. Plain numbers. */
import { ShapeError, ValueRangeError } from '../errors/index.js';

/** N samples of one prompt. */
export interface ScoredSamples {
  /** [N] by which the best is chosen. */
  readonly scores: readonly number[];
  /** [N] what is measured of the best, such as 1 where its answer is right. */
  readonly outcomes: readonly number[];
}

/**
 * The expected outcome of the best of n samples, where the n are drawn from the N without replacement.
 *
 *     E = Σₛ (C(Nₛ, n) − C(N₋ₛ, n))/C(N, n) · (mean outcome at score s),  Nₛ samples score s at most, N₋ₛ below s
 *
 * Of samples with one score each is as likely to be the best. With the outcomes as scores this is pass@n of Chen et al.
 * 2021, arXiv:2107.03374, Eq. 1.
 *
 * Source: Lightman et al. 2023, arXiv:2305.20050, Figure 3, who average over random subsets of the solutions; here over all
 * of them.
 *
 * @param n from 1 to N
 * @throws ShapeError without a sample, or unless there is one outcome per score; ValueRangeError for another n, or a score
 *   that is NaN
 */
export function bestOfSamples({ scores, outcomes }: ScoredSamples, n: number): number {
  const count = scores.length;
  if (count === 0 || outcomes.length !== count) {
    throw new ShapeError(
      `bestOfSamples: expected one outcome per score and at least one, received ${outcomes.length} outcomes of ${count} scores.`,
    );
  }
  if (!Number.isInteger(n) || n < 1 || n > count) {
    throw new ValueRangeError(
      `bestOfSamples: expected n to be an integer from 1 to ${count}, received ${n}.`,
    );
  }
  if (scores.some(Number.isNaN)) {
    throw new ValueRangeError('bestOfSamples: expected scores to be numbers, received NaN.');
  }
  const order = [...scores.keys()].sort((a, b) => (scores[a] ?? 0) - (scores[b] ?? 0));
  let [expected, below] = [0, 0];
  while (below < count) {
    const score = scores[order[below] ?? 0];
    let [end, sum] = [below, 0];
    for (; end < count && scores[order[end] ?? 0] === score; end++)
      sum += outcomes[order[end] ?? 0] ?? NaN;
    const chance = subsetsWithin(end, count, n) - subsetsWithin(below, count, n);
    expected += (chance * sum) / (end - below);
    below = end;
  }
  return expected;
}

/**
 * C(part, n)/C(all, n): the share of subsets of n that lie within a part. As factors, which never overflow; exactly 0 where
 * n is larger than the part, since the factor of i = part is.
 */
function subsetsWithin(part: number, all: number, n: number): number {
  let share = 1;
  for (let i = 0; i < n; i++) share *= (part - i) / (all - i);
  return share;
}
