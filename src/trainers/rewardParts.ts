/** From places in a text to the tokens that wrote it. */
import type { JudgedPart, RewardPart } from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { StepScore } from './trainer.js';

/**
 * The rewards of single tokens: each part lands on the token with which the text that earned it is complete.
 *
 * @param tokenIds of the completion; its text is what they decode to without special tokens
 * @returns one number per token, 0 where nothing was earned
 */
export function rewardsOfTokens(
  tokenizer: Pick<Tokenizer, 'decode'>,
  tokenIds: readonly number[],
  parts: readonly RewardPart[],
): number[] {
  const rewards = tokenIds.map(() => 0);
  for (const { end, reward } of parts) {
    const place = tokenAt(tokenizer, tokenIds, end);
    rewards[place] = (rewards[place] ?? 0) + reward;
  }
  return rewards;
}

/** The steps of a completion as tokens. One whose text ends within a token takes that token; the next begins after it. */
export function judgedStepsOf(
  tokenizer: Pick<Tokenizer, 'decode'>,
  tokenIds: readonly number[],
  judged: readonly JudgedPart[],
): StepScore[] {
  let from = 0;
  return judged.flatMap(({ end, score }) => {
    const to = tokenAt(tokenizer, tokenIds, end) + 1;
    const step = { from, to, score };
    from = Math.max(from, to);
    return step.from < to ? [step] : [];
  });
}

/** The first token after which the text has at least `end` units; the last one where it never has. */
function tokenAt(
  tokenizer: Pick<Tokenizer, 'decode'>,
  tokenIds: readonly number[],
  end: number,
): number {
  const lengthAfter = (count: number): number =>
    tokenizer.decode(tokenIds.slice(0, count), { skipSpecialTokens: true }).length;
  let [low, high] = [0, tokenIds.length - 1];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (lengthAfter(middle + 1) >= end) high = middle;
    else low = middle + 1;
  }
  return low;
}
