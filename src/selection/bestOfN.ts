/** Best-of-n sampling: n completions of a prompt, of which the one with the highest score is the answer. */
import { ConfigError, ValueRangeError } from '../errors/index.js';
import {
  encodePrompt,
  generate,
  type Completion,
  type GenerateOptions,
} from '../generation/index.js';
import type { NamedReward, RewardInput } from '../rewards/index.js';
import { checkRewardParts, scoreRows, type RewardModel } from '../trainers/index.js';
import { bestOfNKlBound, selectCompletions } from './selectCompletions.js';

/** What to complete, and what decides. */
export interface BestOfNOptions extends Omit<GenerateOptions, 'numCompletions'> {
  /** Samples per prompt. */
  n: number;
  /** Their weighted sum is the score. May be left out where there are reward models. */
  rewards?: readonly NamedReward[] | undefined;
  /** Beside the rewards, or instead of them. They must have the model's vocabulary. */
  rewardModels?: readonly RewardModel[] | undefined;
  /** What the rewards know of each prompt, one row per prompt. Without them rows are empty. */
  rows?: readonly Readonly<Record<string, unknown>>[] | undefined;
  /** How long an asynchronous reward may take per completion. 30 unless set. */
  rewardTimeoutSeconds?: number | undefined;
  /** How many calls of rewards may wait at the same time. 32 unless set. */
  rewardConcurrency?: number | undefined;
  /** Most tokens, padding included, of one pass of a reward model. 4,096 unless set. */
  microBatchTokens?: number | undefined;
}

/** A completion with what it was judged. */
export interface ScoredCompletion extends Completion {
  /** Weighted sum of the rewards; NaN where one of them gave no score. */
  readonly score: number;
  /** Each reward's own score, before weights; NaN where it gave none. */
  readonly scores: Readonly<Record<string, number>>;
}

/** All samples of a prompt. */
export interface BestOfNPrompt {
  readonly promptIndex: number;
  /** The one with the highest score, the first of several; undefined where none could be scored. */
  readonly best: ScoredCompletion | undefined;
  /** All n, in the order in which they were drawn. */
  readonly completions: readonly ScoredCompletion[];
}

/** What `bestOfN` found. */
export interface BestOfNResult {
  readonly prompts: readonly BestOfNPrompt[];
  /** Mean score of the best, over the prompts that have one; NaN where none has. */
  readonly reward: number;
  /** Mean score of all samples that have one: what a single sample gets. */
  readonly meanReward: number;
  /** Nats: how far the distribution of the best is from that of the samples, at most (see `bestOfNKlBound`). */
  readonly klBound: number;
  /** A sentence for every score that is missing. */
  readonly failures: readonly string[];
}

/**
 * Samples n completions of each prompt and takes the one that scores highest. What cannot be scored is never the best.
 *
 * Source: Stiennon et al. 2020, arXiv:2009.01325, Appendix G.3.
 *
 * @throws ValueRangeError if `n` is not a positive integer, or there is not one row per prompt; and as `generate`
 * @throws RewardError if there is no reward, or two have the same name; ConfigError if a reward model has another
 *   vocabulary
 */
export async function bestOfN(options: BestOfNOptions): Promise<BestOfNResult> {
  const { n, prompts, rows, model, tokenizer, rewards = [], rewardModels = [] } = options;
  if (!Number.isInteger(n) || n < 1) {
    throw new ValueRangeError(`bestOfN: expected n to be a positive integer, received ${n}.`);
  }
  if (rows !== undefined && rows.length !== prompts.length) {
    throw new ValueRangeError(
      `bestOfN: expected one row for each of the ${prompts.length} prompts, received ${rows.length}.`,
    );
  }
  checkRewardParts('bestOfN', rewards, rewardModels);
  const { vocabSize } = model.config;
  const other = rewardModels.find((reward) => reward.model.config.vocabSize !== vocabSize);
  if (other !== undefined) {
    throw new ConfigError(
      `bestOfN: expected reward model ${other.name} to have the model's vocabulary of ${vocabSize} tokens, received ${other.model.config.vocabSize}.`,
      { hint: 'A reward model reads the tokens as they were drawn: both need one tokenizer.' },
    );
  }
  const texts = prompts.map((prompt) =>
    typeof prompt === 'string'
      ? prompt
      : tokenizer.applyChatTemplate(prompt, { addGenerationPrompt: true }),
  );
  const promptIds = prompts.map((prompt) => encodePrompt(tokenizer, prompt));
  const drawn = await generate({ ...options, model, numCompletions: n });
  const scored = await scoreRows({
    rewards,
    rewardModels,
    inputs: drawn.map(({ promptIndex, text, finishReason, tokenIds }): RewardInput => ({
      prompt: texts[promptIndex] ?? '',
      completion: text,
      row: rows?.[promptIndex] ?? {},
      finishReason,
      completionTokens: tokenIds.length,
      source: { file: 'prompt', line: promptIndex + 1 },
    })),
    rows: drawn.map(({ promptIndex, tokenIds }) => ({
      promptIds: promptIds[promptIndex] ?? [],
      completionIds: tokenIds,
    })),
    timeoutSeconds: options.rewardTimeoutSeconds ?? 30,
    concurrency: options.rewardConcurrency ?? 32,
    microBatchTokens: options.microBatchTokens ?? 4096,
  });
  const completions = drawn.map((completion, index) => ({
    ...completion,
    score: scored.outcomes[index] ?? NaN,
    scores: scored.rewardsOf(index),
  }));
  const found = prompts.map((_, promptIndex) =>
    pickBest(promptIndex, completions.slice(promptIndex * n, (promptIndex + 1) * n)),
  );
  return {
    prompts: found,
    reward: meanOf(found.flatMap(({ best }) => best?.score ?? [])),
    meanReward: meanOf(completions.map(({ score }) => score).filter(Number.isFinite)),
    klBound: bestOfNKlBound(n),
    failures: scored.failures,
  };
}

function pickBest(promptIndex: number, completions: readonly ScoredCompletion[]): BestOfNPrompt {
  const [best] = selectCompletions(completions, { kind: 'best' });
  return { promptIndex, best: best === undefined ? undefined : completions[best], completions };
}

/** NaN of nothing. */
function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
