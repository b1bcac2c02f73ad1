/** The prompt that a chosen and a rejected text share where a row names none. */
import { isDeepStrictEqual } from 'node:util';
import type { Message } from './textTokenizer.js';

/** Chosen and rejected without what they share, and that. */
export interface SplitPair<Part> {
  readonly prompt: Part;
  readonly chosen: Part;
  readonly rejected: Part;
}

/**
 * The longest common beginning of two texts is their prompt. A space before the first difference belongs to the
 * completions, as tokens begin with their space. Where one text begins with the whole other one, the last character they
 * share stays with the completions, so that neither is empty.
 *
 * Source: TRL 1.13, `extract_prompt`. We differ where the very first characters differ: TRL then looks at the character
 * before the first one, which in Python is the last, and takes the chosen text for the prompt where that is a space.
 */
export function splitTexts(chosen: string, rejected: string): SplitPair<string> {
  // By code points: half of a surrogate pair is not text.
  const [left, right] = [Array.from(chosen), Array.from(rejected)];
  let shared = sharedCount(left, right, (a, b) => a === b);
  const differs = shared < Math.min(left.length, right.length);
  if (!differs || left[shared - 1] === ' ') shared = Math.max(0, shared - 1);
  const length = left.slice(0, shared).join('').length;
  return {
    prompt: chosen.slice(0, length),
    chosen: chosen.slice(length),
    rejected: rejected.slice(length),
  };
}

/**
 * The longest common beginning of two conversations is their prompt; where one begins with the whole other one, the last
 * message they share stays with the completions.
 *
 * Source: TRL 1.13, `extract_prompt`.
 */
export function splitConversations(
  chosen: readonly Message[],
  rejected: readonly Message[],
): SplitPair<readonly Message[]> {
  let shared = sharedCount(chosen, rejected, isDeepStrictEqual);
  if (shared === Math.min(chosen.length, rejected.length)) shared = Math.max(0, shared - 1);
  return {
    prompt: chosen.slice(0, shared),
    chosen: chosen.slice(shared),
    rejected: rejected.slice(shared),
  };
}

function sharedCount<Item>(
  left: readonly Item[],
  right: readonly Item[],
  same: (a: Item | undefined, b: Item | undefined) => boolean,
): number {
  const most = Math.min(left.length, right.length);
  let count = 0;
  while (count < most && same(left[count], right[count])) count++;
  return count;
}
