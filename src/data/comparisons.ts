/** Pairs of completions that were ranked together, with every completion once. */
import type { Row } from './row.js';
import type { PreferenceExample } from './tokenizePreferences.js';

/** One completion with its prompt, as a model reads it. */
export interface ComparedCompletion {
  readonly promptIds: readonly number[];
  readonly completionIds: readonly number[];
}

/** One judgement among the completions of a comparison. */
export interface ComparedPair {
  /** Index of the preferred completion. */
  readonly chosen: number;
  /** Index of the other one. */
  readonly rejected: number;
  /** 0 where the row names none. */
  readonly margin: number;
}

/** A ranking of K completions of one prompt as its pairs: two completions and one pair in the common case. */
export interface Comparison {
  readonly completions: readonly ComparedCompletion[];
  readonly pairs: readonly ComparedPair[];
  /** The row of the first pair. */
  readonly row: Row;
}

/**
 * Gathers the pairs that name the same comparison, in the order in which comparisons first occur. A completion of
 * several pairs stands there once, so that a model reads it once: "this is much more computationally efficient because it
 * only requires a single forward pass of the RM for each completion" (InstructGPT). A pair that names none is a
 * comparison of its own.
 *
 * Source: Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, §3.5.
 */
export function groupComparisons(pairs: readonly PreferenceExample[]): Comparison[] {
  const groups: PreferenceExample[][] = [];
  const places = new Map<string, number>();
  for (const pair of pairs) {
    const place = pair.comparison === undefined ? undefined : places.get(pair.comparison);
    if (place !== undefined) groups[place]?.push(pair);
    else {
      if (pair.comparison !== undefined) places.set(pair.comparison, groups.length);
      groups.push([pair]);
    }
  }
  return groups.map(comparisonOf);
}

function comparisonOf(group: readonly PreferenceExample[]): Comparison {
  const completions: ComparedCompletion[] = [];
  const places = new Map<string, number>();
  const placeOf = (promptIds: readonly number[], completionIds: readonly number[]): number => {
    // What is read is prompt and completion in one; where one ends is nothing to a score at the last token.
    const key = [...promptIds, ...completionIds].join(' ');
    const known = places.get(key);
    if (known !== undefined) return known;
    places.set(key, completions.length);
    return completions.push({ promptIds, completionIds }) - 1;
  };
  const pairs = group.map(({ promptIds, chosenIds, rejectedIds, margin = 0 }) => ({
    chosen: placeOf(promptIds, chosenIds),
    rejected: placeOf(promptIds, rejectedIds),
    margin,
  }));
  const [first] = group;
  return { completions, pairs, row: (first as PreferenceExample).row }; // a group is made of its first pair
}
