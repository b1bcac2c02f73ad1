/** What a reward is. Rewards see text and the user's row; never tokens, tensors or models. */
import { RewardError } from '../errors/index.js';

/** One contribution to an episode of several turns. */
export interface Turn {
  readonly role: 'model' | 'environment';
  /** Without special tokens. */
  readonly text: string;
}

/** What one reward function call sees. */
export interface RewardInput<Row = Readonly<Record<string, unknown>>> {
  /** The prompt as the model saw it: plain text, or the conversation as the chat template rendered it. */
  readonly prompt: string;
  /** What the model wrote, without special tokens; with an environment, in its last turn. */
  readonly completion: string;
  /** With an environment, everything that follows the prompt, in order. */
  readonly turns?: readonly Turn[] | undefined;
  /** The row that the prompt came from, with all its columns. */
  readonly row: Row;
  /** Why the completion ended: the EOS token, a stop string or token, or the length limit. */
  readonly finishReason: 'eos' | 'stop' | 'length';
  /** Tokens of the completion, its EOS included. */
  readonly completionTokens: number;
  /** Where the row stands in the user's files, for reports. */
  readonly source?: { readonly file: string; readonly line: number } | undefined;
}

/**
 * Scores one completion; higher is better. What is not a finite number (null, undefined, NaN, an error thrown, a promise
 * that rejects or does not settle in time) leaves the completion unscored.
 */
export type RewardFunction<Row = Readonly<Record<string, unknown>>> = (
  input: RewardInput<Row>,
) => number | null | undefined | Promise<number | null | undefined>;

/** A part of a score and where in the completion it was earned. */
export interface RewardPart {
  /** Where the text that earned it ends, in UTF-16 units of the completion. */
  readonly end: number;
  readonly reward: number;
}

/** A step of a completion and what was thought of it. */
export interface JudgedPart {
  /** Where its text ends, in UTF-16 units of the completion. */
  readonly end: number;
  /** The probability that it is right. */
  readonly score: number;
}

/** A reward with the name it is logged under and its weight in the sum. */
export interface NamedReward<Row = Readonly<Record<string, unknown>>> {
  readonly name: string;
  readonly weight: number;
  readonly fn: RewardFunction<Row>;
  /**
   * Called once with the values of all rows of the data before anything is scored; in training those of the training
   * data. For what a score needs to know of the other rows.
   */
  readonly prepare?: ((rows: readonly Readonly<Record<string, unknown>>[]) => void) | undefined;
  /**
   * Of a completion that was just scored, the parts that its score is the sum of, for methods that reward single tokens
   * (PPO). Without it the score is one whole.
   */
  readonly parts?: ((input: RewardInput) => readonly RewardPart[]) | undefined;
  /** Of a completion that was just scored, the steps whose judgements made the score, for the record of the run. */
  readonly judged?: ((input: RewardInput) => readonly JudgedPart[]) | undefined;
}

/**
 * Gives rewards other weights, by name. Rewards that are not named keep theirs.
 *
 * @throws RewardError if no reward has the name, or a weight is not a finite number
 */
export function withWeights<Row>(
  rewards: readonly NamedReward<Row>[],
  weights: Readonly<Record<string, number>>,
): NamedReward<Row>[] {
  for (const name of Object.keys(weights)) {
    if (rewards.some((reward) => reward.name === name)) continue;
    throw new RewardError(
      `withWeights: expected the name of a reward (${rewards.map((reward) => reward.name).join(', ')}), received ${JSON.stringify(name)}.`,
    );
  }
  const weighted = rewards.map((reward) => ({
    ...reward,
    weight: weights[reward.name] ?? reward.weight,
  }));
  checkRewards('withWeights', weighted);
  return weighted;
}

/**
 * Checks that there are rewards, with names that differ and finite weights.
 *
 * @throws RewardError otherwise
 */
export function checkRewards<Row>(caller: string, rewards: readonly NamedReward<Row>[]): void {
  if (rewards.length === 0) {
    throw new RewardError(`${caller}: expected at least one reward, received none.`);
  }
  const seen = new Set<string>();
  for (const { name, weight, fn } of rewards) {
    if (name === '') throw new RewardError(`${caller}: expected every reward to have a name.`);
    if (seen.has(name)) {
      throw new RewardError(
        `${caller}: expected rewards with different names, received two named ${JSON.stringify(name)}.`,
        { hint: 'Rewards are logged by name: give one of them another.' },
      );
    }
    seen.add(name);
    if (!Number.isFinite(weight)) {
      throw new RewardError(
        `${caller}: expected reward ${JSON.stringify(name)} to have a finite weight, received ${weight}.`,
      );
    }
    if (typeof fn !== 'function') {
      throw new RewardError(
        `${caller}: expected reward ${JSON.stringify(name)} to be a function, received ${typeof fn}.`,
      );
    }
  }
}
