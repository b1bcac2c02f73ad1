/** Rewards that need no code of the user's: rules over the text. */
import { RewardError } from '../errors/index.js';
import type { RewardFunction, RewardInput } from './reward.js';

/** Settings of `exactMatch`. */
export interface ExactMatchOptions {
  /** Column of the row with the right answer. `answer` unless set. */
  readonly column?: string | undefined;
  /** Finds the answer in the completion: its first group, or the whole match where it has no group. All unless set. */
  readonly extract?: RegExp | undefined;
  /** Applied to both sides before they are compared. Trims white space unless set. */
  readonly normalize?: ((text: string) => string) | undefined;
}

/**
 * 1 if the (extracted) completion equals the row's answer, else 0. A completion without a match of `extract` gets 0; a
 * row without an answer leaves it unscored.
 */
export function exactMatch(options: ExactMatchOptions = {}): RewardFunction {
  const { column = 'answer', normalize = (text) => text.trim() } = options;
  const pattern = options.extract === undefined ? undefined : withoutState(options.extract);
  return (input) => {
    const expected = normalize(answerOf(input, column, 'exactMatch'));
    const answer =
      pattern === undefined ? input.completion : extractFirst(input.completion, pattern);
    return answer !== undefined && normalize(answer) === expected ? 1 : 0;
  };
}

/** Settings of `numericMatch`. */
export interface NumericMatchOptions {
  /** Column of the row with the right answer. `answer` unless set. */
  readonly column?: string | undefined;
}

/**
 * An integer or decimal number, with commas between groups of three digits allowed. A minus counts as a sign where it
 * does not follow a word or a closing bracket: the last number of `5-3` is 3.
 */
const NUMBER = /(?:(?<![\w)])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?/g;

/**
 * 1 if the last number of the completion equals the last number of the row's answer, else 0; thus a GSM8K solution that
 * ends with `#### 1,234` is matched by `The answer is 1234.` Numbers are equal as values (`2.50` is `2.5`). A
 * completion without a number gets 0; a row whose answer has none leaves it unscored.
 */
export function numericMatch(options: NumericMatchOptions = {}): RewardFunction {
  const { column = 'answer' } = options;
  return (input) => {
    const answer = answerOf(input, column, 'numericMatch');
    const expected = lastNumber(answer);
    if (expected === undefined) {
      throw new RewardError(
        `numericMatch: expected a number in column ${JSON.stringify(column)}, received ${JSON.stringify(answer.slice(0, 60))}.`,
      );
    }
    return lastNumber(input.completion) === expected ? 1 : 0;
  };
}

/** 1 if the pattern occurs in the completion, else 0. Anchor it with ^ and $ to demand the whole completion. */
export function formatMatch(pattern: RegExp): RewardFunction {
  const stateless = withoutState(pattern);
  return ({ completion }) => (stateless.test(completion) ? 1 : 0);
}

/** Settings of `lengthReward`: a length to reach or one not to exceed. */
export type LengthRewardOptions = (
  | { readonly target: number; readonly max?: undefined }
  | { readonly max: number; readonly target?: undefined }
) & {
  /** What is counted: `tokens` (unless set), or `characters` (Unicode code points). */
  readonly unit?: 'tokens' | 'characters' | undefined;
};

/**
 * A score for the length n of a completion.
 *
 *     target:  max(0, 1 − |n − target| / target)
 *     max:     1 up to max, then falling linearly to 0 at 2·max
 *
 * Source: none; a plain shape of our own.
 *
 * @throws RewardError unless exactly one of `target` and `max` is a positive number
 */
export function lengthReward(options: LengthRewardOptions): RewardFunction {
  const { target, max, unit = 'tokens' } = options;
  const limit = target ?? max;
  const isOne = (target === undefined) !== (max === undefined);
  if (!isOne || limit === undefined || !(limit > 0) || !Number.isFinite(limit)) {
    throw new RewardError(
      `lengthReward: expected either a positive target or a positive max, received target ${target} and max ${max}.`,
    );
  }
  return ({ completion, completionTokens }) => {
    const length = unit === 'tokens' ? completionTokens : Array.from(completion).length;
    const excess = target === undefined ? Math.max(0, length - limit) : Math.abs(length - limit);
    return Math.max(0, 1 - excess / limit);
  };
}

/** The same pattern without `g` and `y`, which make a RegExp remember where it stopped. */
function withoutState(pattern: RegExp): RegExp {
  return new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''));
}

function extractFirst(text: string, pattern: RegExp): string | undefined {
  const match = pattern.exec(text);
  return match?.[1] ?? match?.[0];
}

function lastNumber(text: string): number | undefined {
  const last = text.match(NUMBER)?.at(-1);
  return last === undefined ? undefined : Number(last.replaceAll(',', ''));
}

function answerOf({ row }: RewardInput, column: string, caller: string): string {
  const value = row[column];
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  const columns = Object.keys(row).join(', ') || 'none';
  throw new RewardError(
    `${caller}: expected column ${JSON.stringify(column)} to hold the answer, received ${value === undefined ? `only the columns ${columns}` : JSON.stringify(value)}.`,
  );
}
