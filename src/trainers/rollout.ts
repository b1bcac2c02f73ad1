/** The rollout phase of on-policy methods: episodes for a batch of prompts, scored by rewards. */
import type { PromptExample } from '../data/index.js';
import type { Environment } from '../environments/index.js';
import { RewardError } from '../errors/index.js';
import { sampleEpisodes, type Episode, type FinishReason } from '../generation/index.js';
import type { Decoder } from '../models/index.js';
import type { JudgedPart, NamedReward, RewardInput, Turn } from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import { rewardsOfTokens } from './rewardParts.js';
import { scoreRows, type RewardModel, type RowScorer, type ScoredRows } from './scoreRows.js';
import { drawnTokens, type TokenRow } from './tokenRows.js';

/** One completion of a rollout. The rows of a prompt are contiguous. */
export interface RolloutRow extends TokenRow {
  readonly prompt: PromptExample;
  /** Place of the prompt in the batch. */
  readonly promptIndex: number;
  readonly groupIndex: number;
  /** What the model wrote; with an environment, everything that follows the prompt. */
  readonly completion: string;
  /** With an environment, who wrote what. */
  readonly turns?: readonly Turn[] | undefined;
  readonly finishReason: FinishReason;
  /** nats, as the sampler reported them; 0 at tokens that were not drawn. */
  readonly rolloutLogprobs: readonly number[];
  /** Weighted sum of the rewards, NaN where one of them gave no score. */
  readonly outcome: number;
  /** What is maximised: the outcome and any penalty of the method's own. */
  readonly reward: number;
  readonly rewards: Readonly<Record<string, number>>;
  /** Per token, what of the outcome was earned there (see `NamedReward.parts`); missing where all of it is one whole. */
  readonly tokenParts?: readonly number[] | undefined;
  /** The steps of the completion as a process reward model among the rewards judged them. */
  readonly judged?: readonly JudgedPart[] | undefined;
  /** The reward of the greedy completion of the prompt, where the method's baseline needs it. */
  readonly greedyReward?: number | undefined;
  /** How many updates the weights that drew it had seen. */
  readonly weightVersion: number;
}

/** How completions are drawn. */
export interface RolloutSampling {
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly minP?: number | undefined;
  readonly keepSamplingMask?: boolean | undefined;
}

/** What a rollout needs. */
export interface RolloutOptions {
  readonly policy: Decoder;
  readonly tokenizer: Tokenizer;
  readonly rewards: readonly NamedReward[];
  /** Beside the rewards, or instead of them. */
  readonly rewardModels?: readonly RewardModel[] | undefined;
  /** In place of the weighted sum of rewards and reward models. */
  readonly score?: RowScorer | undefined;
  readonly environment?: Environment | undefined;
  /** Most turns of the model; 1 without an environment. */
  readonly maxTurns?: number | undefined;
  readonly prompts: readonly PromptExample[];
  readonly groupSize: number;
  readonly sampling: RolloutSampling;
  /** Also score one greedy completion of each prompt. */
  readonly withGreedy?: boolean | undefined;
  /** What the method adds to the outcome, for example a penalty for length. */
  readonly penaltyOf?: ((row: { readonly length: number }) => number) | undefined;
  readonly seed: number;
  readonly weightVersion: number;
  readonly timeoutSeconds: number;
  readonly concurrency: number;
  /** Most tokens, padding included, of one pass of a reward model. */
  readonly microBatchTokens: number;
}

/** Samples and scores. Nothing is updated. */
export async function rollout(
  options: RolloutOptions,
): Promise<{ rows: RolloutRow[]; failures: readonly string[] }> {
  const { prompts, groupSize, penaltyOf } = options;
  const drawn = await sampleScored(options, { numCompletions: groupSize, greedy: false });
  const greedy = options.withGreedy
    ? await sampleScored(options, { numCompletions: 1, greedy: true })
    : undefined;
  const rows = drawn.episodes.map((episode, index): RolloutRow => {
    const prompt = prompts[episode.promptIndex] as PromptExample;
    const row: TokenRow = {
      promptIds: prompt.inputIds,
      completionIds: episode.tokenIds,
      ...(options.environment && { completionMask: episode.completionMask }),
      ...(episode.supports && { supports: episode.supports }),
    };
    const outcome = drawn.outcomes[index] ?? NaN;
    const parts = Number.isNaN(outcome) ? [] : drawn.partsOf(index);
    const judged = drawn.judgedOf?.(index);
    const rewardOf = (score: number, length: number): number =>
      score + (penaltyOf?.({ length }) ?? 0);
    const greedyEpisode = greedy?.episodes[episode.promptIndex];
    return {
      ...row,
      prompt,
      promptIndex: episode.promptIndex,
      groupIndex: episode.completionIndex,
      completion: episode.turns.map(({ text }) => text).join(''),
      ...(options.environment && { turns: episode.turns }),
      finishReason: episode.finishReason,
      rolloutLogprobs: episode.logprobs,
      outcome,
      reward: rewardOf(outcome, drawnTokens(row)),
      rewards: drawn.rewardsOf(index),
      ...(parts.length > 0 && {
        tokenParts: rewardsOfTokens(options.tokenizer, episode.tokenIds, parts),
      }),
      ...(judged && { judged: judged.map(({ end, score }) => ({ end, score })) }),
      ...(greedyEpisode && {
        greedyReward: rewardOf(
          greedy?.outcomes[episode.promptIndex] ?? NaN,
          greedyEpisode.completionMask.reduce((sum, flag) => sum + flag, 0),
        ),
      }),
      weightVersion: options.weightVersion,
    };
  });
  return { rows, failures: [...drawn.failures, ...(greedy?.failures ?? [])] };
}

/** Outcomes are NaN where the environment failed, too. */
interface Scored extends ScoredRows {
  readonly episodes: readonly Episode[];
}

async function sampleScored(
  options: RolloutOptions,
  { numCompletions, greedy }: { numCompletions: number; greedy: boolean },
): Promise<Scored> {
  const { policy, tokenizer, prompts, sampling, environment, seed } = options;
  const { timeoutSeconds, concurrency, score = scoreRows } = options;
  const { keepSamplingMask = false, maxNewTokens, ...distribution } = sampling;
  const { episodes, failures: broken } = await sampleEpisodes({
    policy,
    tokenizer,
    prompts,
    numCompletions,
    sampling: greedy ? { maxNewTokens, temperature: 0 } : { maxNewTokens, ...distribution },
    keepSupport: keepSamplingMask && !greedy,
    seed: greedy ? deriveSeed(seed, 'greedy') : seed,
    environment,
    maxTurns: options.maxTurns ?? 1,
    timeoutSeconds,
    concurrency,
  });
  const inputs = episodes.map((episode): RewardInput => {
    const { text, row } = prompts[episode.promptIndex] as PromptExample;
    return {
      prompt: text,
      completion: episode.turns.findLast(({ role }) => role === 'model')?.text ?? '',
      ...(environment && { turns: episode.turns }),
      row: row.values,
      finishReason: episode.finishReason,
      completionTokens: episode.completionMask.reduce((sum, flag) => sum + flag, 0),
      source: { file: row.file, line: row.line },
    };
  });
  const rows = episodes.map(({ promptIndex, tokenIds }) => ({
    promptIds: (prompts[promptIndex] as PromptExample).inputIds,
    completionIds: tokenIds,
  }));
  const scored = await score({ ...options, inputs, rows });
  return {
    episodes,
    ...scored,
    outcomes: episodes.map(({ failed }, index) => (failed ? NaN : (scored.outcomes[index] ?? NaN))),
    failures: [...broken, ...scored.failures],
  };
}

/**
 * Finds rewards that cannot be told apart or added up.
 *
 * @throws RewardError where there is none, two share a name, or a weight is not finite
 */
export function checkRewardParts(
  where: string,
  rewards: readonly NamedReward[],
  rewardModels: readonly RewardModel[],
): void {
  const all = [...rewards, ...rewardModels];
  const names = all.map(({ name }) => name);
  if (all.length === 0) {
    throw new RewardError(`${where}: expected a reward function or a reward model, received none.`);
  }
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) {
    throw new RewardError(
      `${where}: expected rewards with different names, received two named ${JSON.stringify(twice)}.`,
      { hint: 'Rewards are logged and weighted by name: give one of them another.' },
    );
  }
  const wrong = all.find(({ weight }) => !Number.isFinite(weight));
  if (wrong) {
    throw new RewardError(
      `${where}: expected reward ${JSON.stringify(wrong.name)} to have a finite weight, received ${wrong.weight}.`,
    );
  }
}

/**
 * Refuses what nothing can be learnt from.
 *
 * @throws RewardError when no completion at all could be scored
 */
export function requireScores(rows: readonly RolloutRow[], failures: readonly string[]): void {
  if (!rows.every(({ reward }) => Number.isNaN(reward))) return;
  throw new RewardError(
    `rollout: expected at least one scored completion, but all ${rows.length} are unscored; the first: ${failures[0] ?? 'a reward gave no score'}.`,
    {
      hint: 'Try the reward on one completion by hand, it must return a finite number; or the judge on two, it must return 0, 1 or null.',
    },
  );
}

/** The first of these sentences, and how many more there are. */
export function describeFailures(failures: readonly string[]): string[] {
  const shown = failures.slice(0, 3);
  const rest = failures.length - shown.length;
  return rest > 0 ? [...shown, `${rest} more scores are missing`] : shown;
}
