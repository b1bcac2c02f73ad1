/** CIDEr and CIDEr-D, and the table of document frequencies that both need. Knows texts, not rows and rewards. */
import { ValueRangeError } from '../../errors/index.js';
import { checkOrder, checkReferences, ngramCounts, splitWords } from './words.js';

/** How often n-grams occur in a corpus, as plain values: `JSON.stringify` keeps all of it. */
export interface DocumentFrequencies {
  /** Sets of references that were counted. */
  readonly documents: number;
  /** Longest n-gram that was counted. */
  readonly maxOrder: number;
  /** Whether texts were lower-cased; those that are scored with the table are treated likewise. */
  readonly lowercase: boolean;
  /** By n-gram (its words with a space between): the sets that have it in at least one reference. */
  readonly counts: Readonly<Record<string, number>>;
}

/** Settings of `documentFrequencies`. */
export interface DocumentFrequencyOptions {
  /** Longest n-gram that counts. 4 unless set. */
  readonly maxOrder?: number | undefined;
  /** Whether texts are lower-cased. Not unless set. */
  readonly lowercase?: boolean | undefined;
}

/**
 * Counts in how many sets of references each n-gram occurs; a set is what the references of one image or source sentence
 * are. An n-gram that occurs in all of them has the weight 0, so that a single set makes every score 0.
 *
 * @throws ValueRangeError if there is no set, a set has no reference, or `maxOrder` is not a positive integer
 */
export function documentFrequencies(
  referenceSets: readonly (readonly string[])[],
  { maxOrder = 4, lowercase = false }: DocumentFrequencyOptions = {},
): DocumentFrequencies {
  checkOrder('documentFrequencies', 'maxOrder', maxOrder);
  if (referenceSets.length === 0) {
    throw new ValueRangeError(
      'documentFrequencies: expected at least one set of references, received none.',
    );
  }
  const counts = new Map<string, number>();
  for (const references of referenceSets) {
    checkReferences('documentFrequencies', references);
    const seen = new Set<string>();
    for (const reference of references) {
      const words = wordsOf(reference, lowercase);
      for (let order = 1; order <= maxOrder; order++) {
        for (const ngram of ngramCounts(words, order).keys()) seen.add(ngram);
      }
    }
    for (const ngram of seen) counts.set(ngram, (counts.get(ngram) ?? 0) + 1);
  }
  const documents = referenceSets.length;
  return { documents, maxOrder, lowercase, counts: Object.fromEntries(counts) };
}

/** What `cider` compares. */
export interface CiderOptions {
  readonly candidate: string;
  /** At least one. */
  readonly references: readonly string[];
  /** Of the corpus that the references belong to. */
  readonly documentFrequencies: DocumentFrequencies;
  /** N, the longest n-gram that counts. 4 unless set. */
  readonly maxOrder?: number | undefined;
}

/** What `ciderD` compares. */
export interface CiderDOptions extends CiderOptions {
  /** In words. Width of the penalty for a length that differs; `Infinity` is none. 6 unless set. */
  readonly sigma?: number | undefined;
}

/**
 * CIDEr: the mean cosine between the tf-idf vectors of candidate and references, over n-gram lengths and references.
 *
 *     gₙ(s) = vector over the n-grams ω of length n:  count of ω in s · log(M / max(1, df(ω)))
 *     CIDEr = 10/(N·m) · Σₙ Σⱼ gₙ(c)·gₙ(rⱼ) / (‖gₙ(c)‖ ‖gₙ(rⱼ)‖)       n = 1 … N, j = 1 … m
 *
 * M are the documents of the table and df(ω) those that have ω. A cosine with a zero vector is 0: of an empty text, of
 * n-grams longer than the text, of n-grams that every document has. So an empty candidate scores 0, and one word that is
 * the whole only reference scores 10/N.
 *
 * Source: Vedantam et al. 2015, arXiv:1411.5726, Eq. 1–3, with the uniform weights 1/N. We differ in that words are what
 * stands between white space (the paper stems them), an unseen n-gram counts as seen once (in the paper its weight is
 * infinite), and the score is multiplied by 10, as that of CIDEr-D is. The paper divides counts by the length of the
 * text, which changes no cosine.
 *
 * @returns from 0 to 10
 * @throws ValueRangeError if there is no reference, or `maxOrder` is not a positive integer or exceeds the table's
 */
export function cider(options: CiderOptions): number {
  return consensus('cider', options, (candidate, reference) => {
    let product = 0;
    for (const [ngram, weight] of candidate) product += weight * (reference.get(ngram) ?? 0);
    return product;
  });
}

/**
 * CIDEr-D: CIDEr that cannot be raised by repeating words or by length. The product of two weights is clipped at the
 * reference's own, and a Gaussian of the difference in length multiplies every term.
 *
 *     CIDEr-D = 10/(N·m) · Σⱼ e^(−(|c| − |rⱼ|)²/(2σ²)) · Σₙ min(gₙ(c), gₙ(rⱼ))·gₙ(rⱼ) / (‖gₙ(c)‖ ‖gₙ(rⱼ)‖)
 *
 * with gₙ as for `cider`, |·| in words and the minimum taken per n-gram. Empty and one-word texts score as there.
 *
 * Source: Vedantam et al. 2015, arXiv:1411.5726, the variant CIDEr-D (N = 4, σ = 6, the factor 10); values of its authors'
 * implementation in pycocoevalcap: counts are not divided by the length of the text, which matters to the minimum, and
 * an unseen n-gram counts as seen once. Theirs has N = 4 alone, and counts bigrams for the length, which gives the same
 * difference wherever a score is not 0 anyway.
 *
 * @returns from 0 to 10
 * @throws ValueRangeError if there is no reference, `maxOrder` is not a positive integer or exceeds the table's, or
 *   `sigma` is not positive
 */
export function ciderD(options: CiderDOptions): number {
  const { sigma = 6 } = options;
  if (!(sigma > 0)) {
    throw new ValueRangeError(`ciderD: expected sigma to be positive, received ${sigma}.`);
  }
  return consensus('ciderD', options, (candidate, reference, lengthDifference) => {
    let product = 0;
    for (const [ngram, weight] of candidate) {
      const other = reference.get(ngram) ?? 0;
      product += Math.min(weight, other) * other;
    }
    return product * Math.exp(-(lengthDifference ** 2) / (2 * sigma ** 2));
  });
}

type Weights = ReadonlyMap<string, number>;

/** 10 times the mean over orders and references of the product divided by both norms. */
function consensus(
  caller: string,
  { candidate, references, documentFrequencies: table, maxOrder = 4 }: CiderOptions,
  product: (candidate: Weights, reference: Weights, lengthDifference: number) => number,
): number {
  checkReferences(caller, references);
  checkOrder(caller, 'maxOrder', maxOrder);
  if (maxOrder > table.maxOrder) {
    throw new ValueRangeError(
      `${caller}: expected maxOrder of at most the table's ${table.maxOrder}, received ${maxOrder}.`,
      { hint: 'Build the table with documentFrequencies(referenceSets, { maxOrder }).' },
    );
  }
  const words = wordsOf(candidate, table.lowercase);
  const others = references.map((reference) => wordsOf(reference, table.lowercase));
  let sum = 0;
  for (let order = 1; order <= maxOrder; order++) {
    const weights = weightsOf(words, order, table);
    for (const other of others) {
      const otherWeights = weightsOf(other, order, table);
      const norms = norm(weights) * norm(otherWeights);
      if (norms === 0) continue;
      sum += product(weights, otherWeights, words.length - other.length) / norms;
    }
  }
  return (10 * sum) / (maxOrder * references.length);
}

function weightsOf(words: readonly string[], order: number, table: DocumentFrequencies): Weights {
  const weights = ngramCounts(words, order);
  for (const [ngram, count] of weights) {
    // Object.hasOwn, because a text may well contain the word "constructor".
    const documents = Object.hasOwn(table.counts, ngram) ? (table.counts[ngram] ?? 0) : 0;
    weights.set(ngram, count * Math.log(table.documents / Math.max(1, documents)));
  }
  return weights;
}

function norm(weights: Weights): number {
  let squares = 0;
  for (const weight of weights.values()) squares += weight ** 2;
  return Math.sqrt(squares);
}

function wordsOf(text: string, lowercase: boolean): string[] {
  return splitWords(lowercase ? text.toLowerCase() : text);
}
