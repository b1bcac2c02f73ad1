/** Which completions of one prompt are kept, by their scores. Plain values: knows no models, rewards or files. */
import { ValueRangeError } from '../errors/index.js';

/** Which of the ranked completions of a prompt are kept. */
export type KeepRule =
  /** The one with the highest score. */
  | { readonly kind: 'best' }
  /** The k with the highest scores, or all where there are fewer. */
  | { readonly kind: 'topK'; readonly k: number }
  /** Those that score at least this much, the best `atMost` of them where it is set. */
  | {
      readonly kind: 'threshold';
      readonly atLeast: number;
      readonly atMost?: number | null | undefined;
    };

/** One completion of a prompt that may be kept. */
export interface Candidate {
  readonly text: string;
  /** Higher is better. What is not a finite number is no score. */
  readonly score: number;
}

/** Settings of `selectCompletions`. */
export interface SelectOptions {
  /** Of candidates with the same text only the one that ranks highest may be kept. Off unless set. */
  readonly distinct?: boolean | undefined;
}

/** Sums of weights such as 0.7 + 0.2 + 0.1 may fall short of 1 by a rounding. */
const ROUNDING = 1e-9;

/**
 * Places of scores from the highest to the lowest. Equal scores keep their order: the first one wins. What is not a
 * finite number has no rank.
 *
 * @returns indices into `scores`, at most as many as there are
 */
export function rankByScore(scores: readonly number[]): number[] {
  return [...scores.keys()]
    .filter((index) => Number.isFinite(scores[index]))
    .sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
}

/**
 * The completions of one prompt that are kept, best first. A completion without a score is never kept; where none passes,
 * nothing is.
 *
 * Source: Touvron et al. 2023 (Llama 2), arXiv:2307.09288, §3.2.3 (best); Dong et al. 2023 (RAFT), arXiv:2304.06767,
 * Algorithm 1 (best, ranked per prompt); Singh et al. 2023 (ReST-EM), arXiv:2312.06585, §3 (threshold, and a cut-off per
 * prompt as `atMost`).
 *
 * @returns indices into `candidates`
 * @throws ValueRangeError if `k` or `atMost` is not a positive integer, or `atLeast` is not finite
 */
export function selectCompletions(
  candidates: readonly Candidate[],
  keep: KeepRule,
  options: SelectOptions = {},
): number[] {
  const { least, most } = boundsOf(keep);
  const seen = new Set<string>();
  const passing = rankByScore(candidates.map(({ score }) => score)).filter((index) => {
    const { text, score } = candidates[index] as Candidate; // ranks are of candidates
    if (score < least - ROUNDING) return false;
    if (options.distinct !== true) return true;
    const isNew = !seen.has(text);
    seen.add(text);
    return isNew;
  });
  return passing.slice(0, most);
}

function boundsOf(keep: KeepRule): { least: number; most: number } {
  switch (keep.kind) {
    case 'best':
      return { least: -Infinity, most: 1 };
    case 'topK':
      requireCount('k', keep.k);
      return { least: -Infinity, most: keep.k };
    case 'threshold': {
      const { atLeast, atMost } = keep;
      if (!Number.isFinite(atLeast)) {
        throw new ValueRangeError(
          `selectCompletions: expected atLeast to be a finite number, received ${atLeast}.`,
        );
      }
      if (atMost === undefined || atMost === null) return { least: atLeast, most: Infinity };
      requireCount('atMost', atMost);
      return { least: atLeast, most: atMost };
    }
  }
}

function requireCount(name: string, value: number): void {
  if (Number.isInteger(value) && value >= 1) return;
  throw new ValueRangeError(
    `selectCompletions: expected ${name} to be a positive integer, received ${value}.`,
  );
}

/**
 * How far best-of-n sampling is from the policy that it samples, at most: a bound on the KL of the distribution of the
 * best of n samples.
 *
 *     KL(π_best-of-n ‖ π) ≤ log n − (n − 1)/n
 *
 * Equality holds where no two completions tie and none has a probability worth mentioning. It says nothing of a model
 * that is trained on such samples, nor of other ways to select.
 *
 * Source: Stiennon et al. 2020, arXiv:2009.01325, Appendix G.3, where it stands as an equality; Beirami et al. 2024,
 * arXiv:2401.01879, Theorem 1, show that it is a bound.
 *
 * @returns [] nats
 * @throws ValueRangeError if `n` is not a positive integer
 */
export function bestOfNKlBound(n: number): number {
  if (!Number.isInteger(n) || n < 1) {
    throw new ValueRangeError(`bestOfNKlBound: expected a positive integer, received ${n}.`);
  }
  return Math.log(n) - (n - 1) / n;
}
