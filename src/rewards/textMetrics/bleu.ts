/** Sentence BLEU. Knows texts and n-grams, not rows and rewards. */
import { ValueRangeError } from '../../errors/index.js';
import { checkOrder, checkReferences, ngramCounts, splitWords } from './words.js';

/** How `bleu` is computed. */
export interface BleuSettings {
  /** Longest n-gram that counts. 4 unless set. */
  readonly maxOrder?: number | undefined;
  /**
   * What an n-gram precision becomes where nothing matches. `exp` unless set: 1/2 of one match for the first order
   * without any, 1/4 for the second, and so on. `floor`: `smoothValue` of a match. `add-k`: `smoothValue` is added to
   * matches and totals of every order above 1, whether or not something matches. `none`: 0, and with it the score.
   */
  readonly smoothing?: 'exp' | 'floor' | 'add-k' | 'none' | undefined;
  /** For `floor` (0.1 unless set) and `add-k` (1 unless set). */
  readonly smoothValue?: number | undefined;
  /**
   * What counts as a word. `13a` unless set: mteval-v13a's, which sets punctuation apart. `none`: what stands between
   * white space. `char`: each code point that is not white space.
   */
  readonly tokenize?: '13a' | 'none' | 'char' | undefined;
  /** Whether both sides are lower-cased first. Not unless set. */
  readonly lowercase?: boolean | undefined;
}

/** What `bleu` compares, and how. */
export interface BleuOptions extends BleuSettings {
  readonly candidate: string;
  /** At least one. */
  readonly references: readonly string[];
}

/**
 * Sentence BLEU: the geometric mean of clipped n-gram precisions, times a penalty for brevity.
 *
 *     pₙ   = Σ_g min(c(g), max_j rⱼ(g)) / Σ_g c(g)      g: n-grams of the candidate, c and rⱼ: their counts
 *     BP   = min(1, exp(1 − r/c))                        c: its words, r: those of the reference nearest in length
 *     BLEU = BP · exp(1/N · Σₙ log pₙ)                   n = 1 … N
 *
 * Of two references equally near in length the shorter one counts. N is `maxOrder`, or the longest n-gram that fits into
 * the candidate where that is less (sacrebleu's effective order; with `add-k` every order above 1 has a total, so that N
 * stays `maxOrder`). Where no word matches, the score is 0 under every smoothing.
 *
 * An empty candidate scores 0. A candidate of one word that is also the whole reference scores 1.
 *
 * Source: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation"; smoothing by Chen and
 * Cherry 2014, W14-3346, methods 1 (`floor`), 2 (`add-k`) and 3 (`exp`); defaults and values of sacrebleu's
 * `sentence_bleu`, whose score is 100 times ours.
 *
 * @returns from 0 to 1
 * @throws ValueRangeError if there is no reference, `maxOrder` is not a positive integer, `smoothValue` is negative or not
 *   finite, or it is set for a smoothing that has none
 */
export function bleu(options: BleuOptions): number {
  const { candidate, references, maxOrder = 4, smoothing = 'exp' } = options;
  checkReferences('bleu', references);
  checkOrder('bleu', 'maxOrder', maxOrder);
  const smoothValue = smoothValueOf(smoothing, options.smoothValue);
  const words = wordsOf(candidate, options);
  const referenceWords = references.map((reference) => wordsOf(reference, options));

  let logSum = 0;
  let orders = 0;
  let halvings = 0;
  for (let order = 1; order <= maxOrder; order++) {
    let { matches, total } = clippedMatches(words, referenceWords, order);
    // Nothing longer can match either, and smoothing gives no score to a candidate without a single right word.
    if (order === 1 && matches === 0) return 0;
    if (smoothing === 'add-k' && order > 1) {
      matches += smoothValue;
      total += smoothValue;
    }
    if (total === 0) break;
    orders = order;
    if (matches === 0 && smoothing === 'exp') matches = 2 ** -++halvings;
    else if (matches === 0 && smoothing === 'floor') matches = smoothValue;
    logSum += Math.log(matches / total);
  }
  const penalty = brevityPenalty(
    words.length,
    referenceWords.map(({ length }) => length),
  );
  return penalty * Math.exp(logSum / orders);
}

function smoothValueOf(
  smoothing: NonNullable<BleuSettings['smoothing']>,
  given: number | undefined,
): number {
  if (smoothing === 'exp' || smoothing === 'none') {
    if (given === undefined) return 0;
    throw new ValueRangeError(
      `bleu: expected smoothValue only with the smoothing floor or add-k, received ${given} with ${smoothing}.`,
    );
  }
  const value = given ?? (smoothing === 'floor' ? 0.1 : 1);
  if (value >= 0 && Number.isFinite(value)) return value;
  throw new ValueRangeError(
    `bleu: expected smoothValue to be a finite number of at least 0, received ${value}.`,
  );
}

function clippedMatches(
  words: readonly string[],
  references: readonly (readonly string[])[],
  order: number,
): { matches: number; total: number } {
  const counts = references.map((reference) => ngramCounts(reference, order));
  let matches = 0;
  let total = 0;
  for (const [ngram, count] of ngramCounts(words, order)) {
    total += count;
    matches += Math.min(count, Math.max(...counts.map((inOne) => inOne.get(ngram) ?? 0)));
  }
  return { matches, total };
}

function brevityPenalty(length: number, referenceLengths: readonly number[]): number {
  let nearest = Number.POSITIVE_INFINITY;
  for (const other of referenceLengths) {
    const gain = Math.abs(nearest - length) - Math.abs(other - length);
    if (gain > 0 || (gain === 0 && other < nearest)) nearest = other;
  }
  return length < nearest ? Math.exp(1 - nearest / length) : 1;
}

function wordsOf(text: string, { tokenize = '13a', lowercase = false }: BleuSettings): string[] {
  const given = lowercase ? text.toLowerCase() : text;
  switch (tokenize) {
    case '13a':
      return splitWords(separatePunctuation(given));
    case 'none':
      return splitWords(given);
    case 'char':
      return splitWords(Array.from(given).join(' '));
  }
}

const ENTITIES: readonly (readonly [entity: string, character: string])[] = [
  ['&quot;', '"'],
  ['&amp;', '&'],
  ['&lt;', '<'],
  ['&gt;', '>'],
];

/** The rules of mteval-v13a, in its order. Apostrophes stay where they are, and so do `.`, `,` and `-` inside of numbers. */
function separatePunctuation(text: string): string {
  // The white space at the end goes first: a dash before a line break joins two lines, if there is a second one.
  const last = splitWords(text).at(-1) ?? '';
  let line = text.slice(0, text.lastIndexOf(last) + last.length);
  line = line.replaceAll('<skipped>', '').replaceAll('-\n', '').replaceAll('\n', ' ');
  for (const [entity, character] of ENTITIES) line = line.replaceAll(entity, character);
  // The spaces around let the rules below see a neighbour of the first and of the last character.
  return ` ${line} `
    .replace(/[!-&(-+/:-@[-`{-~]/gu, ' $& ')
    .replace(/([^0-9])([.,])/gu, '$1 $2 ')
    .replace(/([.,])([^0-9])/gu, ' $1 $2')
    .replace(/([0-9])-/gu, '$1 - ');
}
