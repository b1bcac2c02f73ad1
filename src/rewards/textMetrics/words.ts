/** Words, n-grams and what every text metric asks of its inputs. Knows no metric. */
import { ValueRangeError } from '../../errors/index.js';

/** What Python's `str.split()` takes for white space: JavaScript's `\s` has U+FEFF, but neither U+0085 nor U+001C–1F. */
// oxlint-disable-next-line no-control-regex -- the information separators count, or counts differ from the packages'
const WHITE_SPACE = /[\t-\r\u001c-\u001f\u0085\p{Zs}\p{Zl}\p{Zp}]+/u;

/** The words between white space, as Python's `str.split()` finds them. */
export function splitWords(text: string): string[] {
  return text.split(WHITE_SPACE).filter((word) => word !== '');
}

/** How often each n-gram of `order` words occurs. The key is its words with a space between: words contain none. */
export function ngramCounts(words: readonly string[], order: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (let start = 0; start + order <= words.length; start++) {
    const ngram = words.slice(start, start + order).join(' ');
    counts.set(ngram, (counts.get(ngram) ?? 0) + 1);
  }
  return counts;
}

/**
 * Checks that there is something to compare with.
 *
 * @throws ValueRangeError if `references` is not an array or has no element
 */
export function checkReferences(caller: string, references: readonly string[]): void {
  if (Array.isArray(references) && references.length > 0) return;
  throw new ValueRangeError(
    `${caller}: expected an array of at least one reference, received ${JSON.stringify(references)}.`,
  );
}

/**
 * Checks a length of n-grams.
 *
 * @throws ValueRangeError if it is not a positive integer
 */
export function checkOrder(caller: string, name: string, order: number): void {
  if (Number.isInteger(order) && order >= 1) return;
  throw new ValueRangeError(
    `${caller}: expected ${name} to be a positive integer, received ${order}.`,
  );
}
