/** ROUGE-N and ROUGE-L. Knows texts and words, not rows and rewards. */
import { checkOrder, checkReferences, ngramCounts } from './words.js';

/** How much of the candidate is in the reference and the other way round, each from 0 to 1. */
export interface RougeScore {
  /** Share of the candidate that the reference has. */
  readonly precision: number;
  /** Share of the reference that the candidate has. */
  readonly recall: number;
  /** Their harmonic mean, 0 where both are 0. */
  readonly f1: number;
}

/** What `rougeL` compares. */
export interface RougeLOptions {
  readonly candidate: string;
  /** At least one. */
  readonly references: readonly string[];
}

/** What `rougeN` compares. */
export interface RougeNOptions extends RougeLOptions {
  /** Words of an n-gram. */
  readonly n: number;
}

/**
 * ROUGE-N: the n-grams that candidate and reference share.
 *
 *     matches   = Σ_g min(c(g), r(g))                 g: n-grams, c and r: their counts on both sides
 *     precision = matches / Σ_g c(g),   recall = matches / Σ_g r(g),   f1 = 2·precision·recall / (precision + recall)
 *
 * Of several references the one with the highest f1 counts, the first among equals. Words are runs of `a`–`z` and
 * `0`–`9` after lower-casing; every other character separates them, so that a text in another script has no words. All
 * three are 0 where a side has no n-gram: an empty candidate, or one word and n = 2.
 *
 * Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", §2; values of Google's rouge-score
 * package without its stemmer, which we lack. The paper counts recall alone and joins several references by the highest.
 *
 * @throws ValueRangeError if there is no reference, or n is not a positive integer
 */
export function rougeN({ candidate, references, n }: RougeNOptions): RougeScore {
  checkReferences('rougeN', references);
  checkOrder('rougeN', 'n', n);
  const counts = ngramCounts(alphanumericWords(candidate), n);
  return best(references, (reference) => {
    const others = ngramCounts(alphanumericWords(reference), n);
    let matches = 0;
    for (const [ngram, count] of others) matches += Math.min(count, counts.get(ngram) ?? 0);
    return scoreOf(matches, total(counts), total(others));
  });
}

/**
 * ROUGE-L: the longest common subsequence of words.
 *
 *     precision = LCS(c, r) / |c|,   recall = LCS(c, r) / |r|,   f1 = 2·precision·recall / (precision + recall)
 *
 * Words, several references and empty texts are treated as by `rougeN`.
 *
 * Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", §3.1; values of Google's rouge-score
 * package, whose `rougeL` takes a text as one sentence. The paper weighs recall by β; here β = 1.
 *
 * @throws ValueRangeError if there is no reference
 */
export function rougeL({ candidate, references }: RougeLOptions): RougeScore {
  checkReferences('rougeL', references);
  const words = alphanumericWords(candidate);
  return best(references, (reference) => {
    const others = alphanumericWords(reference);
    return scoreOf(commonSubsequence(words, others), words.length, others.length);
  });
}

function alphanumericWords(text: string): string[] {
  return text.toLowerCase().match(/[a-z0-9]+/g) ?? [];
}

function best(references: readonly string[], score: (reference: string) => RougeScore): RougeScore {
  return references.map(score).reduce((kept, next) => (next.f1 > kept.f1 ? next : kept));
}

function scoreOf(matches: number, candidateTotal: number, referenceTotal: number): RougeScore {
  if (matches === 0) return { precision: 0, recall: 0, f1: 0 };
  const precision = matches / candidateTotal;
  const recall = matches / referenceTotal;
  return { precision, recall, f1: (2 * precision * recall) / (precision + recall) };
}

function total(counts: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
}

/** Length of the longest common subsequence, by the usual table of which two rows are kept. */
function commonSubsequence(a: readonly string[], b: readonly string[]): number {
  let above = Array.from({ length: b.length + 1 }, () => 0);
  for (const word of a) {
    const row = [0];
    b.forEach((other, j) => {
      const longest =
        word === other ? (above[j] ?? 0) + 1 : Math.max(above[j + 1] ?? 0, row[j] ?? 0);
      row.push(longest);
    });
    above = row;
  }
  return above.at(-1) ?? 0;
}
