/** Scores of sampled pairs by a judge that compares them. */
import { SeededRandom } from '../data/index.js';
import { judgePairs, type PairwiseJudge, type RewardInput } from '../rewards/index.js';
import { deriveSeed } from '../torch/index.js';
import { groupsOf } from './rolloutRecord.js';
import type { ScoredRows } from './scoreRows.js';

/** What the verdict is logged as: 1 of the better completion, 0 of the other one, ½ of both where neither is better. */
export const VERDICT = 'judge';
/** Whether the judge saw a completion first, logged beside its verdict. */
export const SHOWN_FIRST = 'shownFirst';

/** Sampled pairs and how they are judged. */
export interface JudgeRowsOptions {
  /** Two completions of each prompt, one after the other. */
  readonly inputs: readonly RewardInput[];
  /** Decides which completion is shown first. */
  readonly seed: number;
  readonly timeoutSeconds: number;
  readonly concurrency: number;
}

/** Asks the judge about every pair, of which either completion is as likely to be shown first. */
export async function judgeRows(
  judge: PairwiseJudge,
  { inputs, seed, timeoutSeconds, concurrency }: JudgeRowsOptions,
): Promise<ScoredRows> {
  const pairs = groupsOf(inputs, 2).map((pair) => {
    const [first, second] = pair as [RewardInput, RewardInput];
    const { prompt, row, source } = first;
    return {
      ...{ prompt, row, source },
      completions: [first.completion, second.completion] as const,
      ...(first.turns && second.turns && { turns: [first.turns, second.turns] as const }),
    };
  });
  const random = new SeededRandom(deriveSeed(seed, 'judge'));
  const swapped = pairs.map(() => random.nextFloat() < 0.5);
  const settings = { timeoutSeconds, concurrency, swapped };
  const { verdicts, failures } = await judgePairs(judge, pairs, settings);
  const outcomes = verdicts.flatMap((verdict) => {
    if (verdict === undefined) return [NaN, NaN];
    if (verdict === null) return [0.5, 0.5];
    return verdict === 0 ? [1, 0] : [0, 1];
  });
  return {
    outcomes,
    failures: failures.map(
      ({ file = '?', line = '?', reason }) => `judge for ${file}:${line} ${reason}`,
    ),
    rewardsOf: (index) => ({
      [VERDICT]: outcomes[index] ?? NaN,
      [SHOWN_FIRST]: (swapped[Math.floor(index / 2)] === true) === (index % 2 === 1) ? 1 : 0,
    }),
    partsOf: () => [],
  };
}
