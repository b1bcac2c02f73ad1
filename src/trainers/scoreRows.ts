/** Scores of sampled completions: reward functions read their text, reward models their tokens. */
import type { ScalarModel } from '../models/index.js';
import {
  scoreCompletions,
  type JudgedPart,
  type NamedReward,
  type RewardPart,
  type RewardFailure,
  type RewardInput,
  type RewardScores,
} from '../rewards/index.js';
import { scorePass, type TokenRow } from './tokenRows.js';

/** A reward that reads the tokens as they were drawn. */
export interface RewardModel {
  /** What it is logged under. */
  readonly name: string;
  readonly weight: number;
  /** Frozen; of the policy's tokenizer. */
  readonly model: ScalarModel;
}

/** Completions and what scores them. */
export interface ScoreRowsOptions {
  /** May be empty where there are reward models. */
  readonly rewards: readonly NamedReward[];
  /** Beside the rewards, or instead of them. */
  readonly rewardModels?: readonly RewardModel[] | undefined;
  /** The completions as text. */
  readonly inputs: readonly RewardInput[];
  /** The same completions as tokens. */
  readonly rows: readonly Pick<TokenRow, 'promptIds' | 'completionIds'>[];
  readonly timeoutSeconds: number;
  readonly concurrency: number;
  /** Most tokens, padding included, of one pass of a reward model. */
  readonly microBatchTokens: number;
}

/** Scores, one per completion. */
export interface ScoredRows {
  /** Weighted sums; NaN where a reward gave no score. */
  readonly outcomes: readonly number[];
  /** A sentence for every score that is missing. */
  readonly failures: readonly string[];
  /** Each reward's own score of one completion, before weights. */
  readonly rewardsOf: (index: number) => Record<string, number>;
  /** The parts of one completion's outcome that were earned at places of its text, weighted. */
  readonly partsOf: (index: number) => readonly RewardPart[];
  /** The steps of one completion as the first reward that judges steps saw them; none where no reward does. */
  readonly judgedOf?: ((index: number) => readonly JudgedPart[] | undefined) | undefined;
}

/** Gives sampled completions their scores. `seed` is that of the batch. */
export type RowScorer = (
  options: ScoreRowsOptions & { readonly seed: number },
) => Promise<ScoredRows>;

const NO_FUNCTIONS: RewardScores = { scores: new Float64Array(), byReward: {}, failures: [] };

/** Scores every completion with every reward function and reward model, and adds up the weighted scores. */
export async function scoreRows(options: ScoreRowsOptions): Promise<ScoredRows> {
  const { rewards, rewardModels = [], inputs, rows, timeoutSeconds, concurrency } = options;
  const calls = { timeoutSeconds, concurrency };
  const called = rewards.length > 0 ? await scoreCompletions(rewards, inputs, calls) : NO_FUNCTIONS;
  const read = rewardModels.map((reward) => ({
    ...reward,
    scores: scorePass(reward.model, rows, options.microBatchTokens).map((score) =>
      Number.isFinite(score) ? score : NaN,
    ),
  }));
  const unread = read.flatMap(({ name, scores }) =>
    scores.flatMap((score, index) => {
      if (!Number.isNaN(score)) return [];
      const { file = '?', line = '?' } = inputs[index]?.source ?? {};
      return [`reward model ${name} for ${file}:${line} gave no finite score`];
    }),
  );
  const byReward: Record<string, readonly number[]> = {
    ...called.byReward,
    ...Object.fromEntries(read.map(({ name, scores }) => [name, scores])),
  };
  return {
    outcomes: inputs.map((_, index) =>
      read.reduce(
        (sum, { weight, scores }) => sum + weight * (scores[index] ?? NaN),
        rewards.length > 0 ? (called.scores[index] ?? NaN) : 0,
      ),
    ),
    failures: [...called.failures.map(describeFailure), ...unread],
    rewardsOf: (index) =>
      Object.fromEntries(
        Object.entries(byReward).map(([name, values]) => [name, values[index] ?? NaN]),
      ),
    judgedOf: (index) => {
      const input = inputs[index];
      return input && rewards.find(({ judged }) => judged)?.judged?.(input);
    },
    partsOf: (index) =>
      rewards.flatMap(({ weight, parts }) => {
        const input = inputs[index];
        const found = input === undefined ? [] : (parts?.(input) ?? []);
        return found.map(({ end, reward }) => ({ end, reward: weight * reward }));
      }),
  };
}

function describeFailure(failure: RewardFailure): string {
  const place = failure.file === undefined ? '' : ` for ${failure.file}:${failure.line ?? '?'}`;
  return `reward ${failure.reward}${place} ${failure.reason}`;
}
