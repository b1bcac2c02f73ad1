/** Judges that compare two completions of one prompt: what they see, and how they are asked. */
import { ValueRangeError } from '../errors/index.js';
import { callEach, type Called } from '../userCode/index.js';
import type { Turn } from './reward.js';
import type { ScoreOptions } from './scoreCompletions.js';

/** What one call of a judge sees. */
export interface JudgeInput<Row = Readonly<Record<string, unknown>>> {
  /** The prompt as the model saw it: plain text, or the conversation as the chat template rendered it. */
  readonly prompt: string;
  /** Two completions, without special tokens; with an environment, the last turn of each. */
  readonly completions: readonly [string, string];
  /** With an environment, everything that follows the prompt, of each completion. */
  readonly turns?: readonly [readonly Turn[], readonly Turn[]] | undefined;
  /** The row that the prompt came from, with all its columns. */
  readonly row: Row;
  /** Where the row stands in the user's files, for reports. */
  readonly source?: { readonly file: string; readonly line: number } | undefined;
}

/** Index of the better completion; null for a tie, or where the judge cannot tell. */
export type Verdict = 0 | 1 | null;

/**
 * Compares two completions. Anything but a verdict (undefined, another number, an error thrown, a promise that rejects or
 * does not settle in time) leaves the pair without one and is reported.
 */
export type PairwiseJudge<Row = Readonly<Record<string, unknown>>> = (
  input: JudgeInput<Row>,
) => Verdict | undefined | Promise<Verdict | undefined>;

/** One call of a judge that gave no verdict. */
export interface JudgeFailure {
  /** Index of the pair. */
  readonly index: number;
  readonly file?: string | undefined;
  readonly line?: number | undefined;
  /** What happened, for example `threw TypeError: …`, `returned 2, not 0, 1 or null`. */
  readonly reason: string;
}

/** Verdicts of a batch of pairs. */
export interface Judgements {
  /** About the completions in the order of the inputs; undefined where the judge failed. */
  readonly verdicts: readonly (Verdict | undefined)[];
  readonly failures: readonly JudgeFailure[];
}

/** Settings of `judgePairs`. */
export interface JudgeOptions extends ScoreOptions {
  /** One per pair: whether the second completion is shown first. None is unless set. */
  readonly swapped?: readonly boolean[] | undefined;
}

/**
 * Asks a judge about every pair. Judges tend to prefer a place: `swapped` decides which completion is shown first, and
 * verdicts are turned back. Two completions of the same text are a tie that nobody is asked about.
 *
 * Source: TRL 1.0, `experimental.judges`, `BasePairwiseJudge.judge` with `shuffle_order` (TRL 1.13 has no judges any more).
 * We differ in a verdict for a tie, in asking about one pair at a time, and in who shuffles: here it is the caller, so
 * that no judge can forget it.
 *
 * @throws ValueRangeError if a setting is not positive, or `swapped` has another length
 */
export async function judgePairs<Row>(
  judge: PairwiseJudge<Row>,
  pairs: readonly JudgeInput<Row>[],
  options: JudgeOptions = {},
): Promise<Judgements> {
  const { timeoutSeconds = 30, concurrency = 32 } = options;
  const { swapped = pairs.map(() => false) } = options;
  for (const [name, value] of Object.entries({ timeoutSeconds, concurrency })) {
    if (value > 0) continue;
    throw new ValueRangeError(`judgePairs: expected ${name} to be positive, received ${value}.`);
  }
  if (swapped.length !== pairs.length) {
    throw new ValueRangeError(
      `judgePairs: expected ${pairs.length} entries in swapped, one per pair, received ${swapped.length}.`,
    );
  }
  const calls = pairs.map((pair, index) => (): unknown => {
    if (isTie(pair)) return null;
    return judge(swapped[index] === true ? turnedAround(pair) : pair);
  });
  const outcomes = await callEach(calls, { timeoutSeconds, concurrency });
  const failures: JudgeFailure[] = [];
  const verdicts = outcomes.map((called, index) => {
    const verdict = toVerdict(called);
    if (typeof verdict === 'object' && verdict !== null) {
      failures.push({ index, ...pairs[index]?.source, reason: verdict.reason });
      return undefined;
    }
    return verdict !== null && swapped[index] === true ? otherOf(verdict) : verdict;
  });
  return { verdicts, failures };
}

function otherOf(verdict: 0 | 1): 0 | 1 {
  return verdict === 0 ? 1 : 0;
}

/** Whether nothing is there to prefer. */
function isTie<Row>({ completions, turns }: JudgeInput<Row>): boolean {
  const [first, second] = turns?.map((each) => JSON.stringify(each)) ?? completions;
  return first === second;
}

function turnedAround<Row>(pair: JudgeInput<Row>): JudgeInput<Row> {
  const { completions, turns } = pair;
  return {
    ...pair,
    completions: [completions[1], completions[0]],
    ...(turns && { turns: [turns[1], turns[0]] as const }),
  };
}

function toVerdict(called: Called<unknown>): Verdict | { readonly reason: string } {
  if (!('value' in called)) return called;
  const { value } = called;
  if (value === 0 || value === 1 || value === null) return value;
  const shown = typeof value === 'string' ? JSON.stringify(value.slice(0, 60)) : describe(value);
  return { reason: `returned ${shown}, not 0, 1 or null` };
}

function describe(value: unknown): string {
  return typeof value === 'number' || value === undefined ? String(value) : typeof value;
}
