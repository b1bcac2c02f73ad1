/** Preference rows of a ranking. Plain values; does not know who ranked. */
import { ValueRangeError } from '../errors/index.js';

/** Completions of one prompt and how they were ranked. */
export interface RankedCompletions<Text> {
  readonly prompt: Text;
  readonly completions: readonly Text[];
  /** One per completion; a smaller one is better, equal ones are tied. */
  readonly ranks: readonly number[];
  /** Names the ranking. Different rankings have different names, those of one prompt too. */
  readonly comparison: string;
}

/** A row of preference data, which `validateRows` accepts. (A type and not an interface, so that it is a data row.) */
export type PreferencePair<Text> = {
  readonly prompt: Text;
  readonly chosen: Text;
  readonly rejected: Text;
  /** The same for all pairs of one ranking, so that they can weigh as one comparison. */
  readonly comparison: string;
};

/**
 * Every pair of completions of unequal rank, the better one chosen: at most K·(K − 1)/2 rows. Ties give no pair, and
 * neither do two completions that are the same.
 *
 * Source: Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, section 3.5: all comparisons of K ranked completions count
 * as one batch element, which is what `comparison` is for.
 *
 * @returns by chosen, then by rejected, each from the best to the worst
 * @throws ValueRangeError unless there is one rank per completion and every rank is a number
 */
export function preferencePairs<Text>(ranking: RankedCompletions<Text>): PreferencePair<Text>[] {
  const { prompt, completions, ranks, comparison } = ranking;
  if (ranks.length !== completions.length) {
    throw new ValueRangeError(
      `preferencePairs: expected one rank per completion, received ${ranks.length} ranks of ${completions.length} completions.`,
    );
  }
  const unranked = ranks.findIndex((rank) => Number.isNaN(rank));
  if (unranked !== -1) {
    throw new ValueRangeError(
      `preferencePairs: expected every rank to be a number, received NaN for completion ${unranked}.`,
    );
  }
  const ranked = completions
    .map((text, index) => ({ text, rank: ranks[index] ?? NaN, key: JSON.stringify(text) }))
    .sort((a, b) => a.rank - b.rank);
  return ranked.flatMap((better) =>
    ranked
      .filter(({ rank, key }) => better.rank < rank && better.key !== key)
      .map((worse) => ({ prompt, chosen: better.text, rejected: worse.text, comparison })),
  );
}
