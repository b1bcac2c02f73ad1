/** Completions of a model for prompts, and what rewards give them: what every measure of a policy begins with. */
import type { PromptExample } from '../data/index.js';
import type { Environment } from '../environments/index.js';
import { sampleEpisodes } from '../generation/index.js';
import type { Decoder, ScalarParts } from '../models/index.js';
import {
  scoreCompletions,
  type NamedReward,
  type RewardFailure,
  type RewardInput,
} from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { scoreSequences } from './scoreSequences.js';

/** A reward model with its place in the sum. */
export interface ScoringModel {
  readonly name: string;
  readonly weight: number;
  /** Of the tokenizer of the model that is measured. */
  readonly model: ScalarParts;
}

/** Who completes what. */
export interface DrawOptions {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  readonly prompts: readonly PromptExample[];
  /** Most tokens of a completion; with an environment, of one turn. */
  readonly maxNewTokens: number;
  readonly environment?: Environment | undefined;
  /** Most turns of the model with an environment. 4 unless set. */
  readonly maxTurns?: number | undefined;
  readonly rewardTimeoutSeconds?: number | undefined;
  readonly rewardConcurrency?: number | undefined;
  /** Called now and then with the number of finished completions. */
  readonly onProgress?: ((finished: number) => void) | undefined;
}

/** How completions are drawn. */
export interface DrawSettings {
  readonly temperature: number;
  readonly topP?: number;
  readonly numCompletions: number;
  readonly seed?: number;
}

/** One completion, as text and as tokens. */
export interface DrawnCompletion {
  /** Index of its prompt. */
  readonly promptIndex: number;
  /** What rewards see of it. */
  readonly input: RewardInput;
  /** Tokens of prompt and completion. */
  readonly sequence: readonly number[];
  /** Whether the environment failed. */
  readonly failed: boolean;
}

/** What scores completions. */
export interface ScoringOptions {
  readonly rewards: readonly NamedReward[];
  /** Rewards that read the tokens as they were drawn, beside the others or instead of them. */
  readonly rewardModels?: readonly ScoringModel[] | undefined;
  readonly rewardTimeoutSeconds?: number | undefined;
  readonly rewardConcurrency?: number | undefined;
}

/** @returns the completions, those of a prompt side by side; sentences about environments that failed */
export async function drawCompletions(
  options: DrawOptions,
  settings: DrawSettings,
): Promise<{ drawn: DrawnCompletion[]; failures: readonly string[] }> {
  const { model, tokenizer, prompts, maxNewTokens, environment, maxTurns = 4 } = options;
  const { numCompletions, temperature, topP, seed = 0 } = settings;
  const { episodes, failures } = await sampleEpisodes({
    policy: model,
    tokenizer,
    prompts,
    numCompletions,
    sampling: { maxNewTokens, temperature, topP },
    seed,
    environment,
    maxTurns: environment ? maxTurns : 1,
    ...callsOf(options),
    onProgress: options.onProgress,
  });
  const drawn = episodes.map((episode): DrawnCompletion => {
    const { promptIndex, finishReason, failed, turns, completionMask, tokenIds } = episode;
    const { text, row, inputIds } = prompts[promptIndex] as PromptExample; // the sampler counts what it was given
    const input = {
      prompt: text,
      completion: turns.findLast(({ role }) => role === 'model')?.text ?? '',
      ...(environment && { turns }),
      row: row.values,
      finishReason,
      completionTokens: completionMask.reduce((sum, flag) => sum + flag, 0),
      source: { file: row.file, line: row.line },
    };
    return { promptIndex, input, sequence: [...inputIds, ...tokenIds], failed };
  });
  return { drawn, failures };
}

/** @returns weighted sums, NaN where a reward gave no score, and the calls without one */
export async function scoreDrawn(
  options: ScoringOptions,
  drawn: readonly Pick<DrawnCompletion, 'input' | 'sequence'>[],
): Promise<{ scores: Float64Array; failures: RewardFailure[] }> {
  const { rewards, rewardModels = [] } = options;
  const inputs = drawn.map(({ input }) => input);
  const { scores, failures: unscored } =
    rewards.length > 0 || rewardModels.length === 0
      ? await scoreCompletions(rewards, inputs, callsOf(options))
      : { scores: new Float64Array(inputs.length), failures: [] };
  const sequences = drawn.map(({ sequence }) => sequence);
  const unread = addModelScores(scores, rewardModels, sequences).map(({ reward, index }) => ({
    reward,
    index,
    ...inputs[index]?.source,
    reason: 'gave no finite score',
  }));
  return { scores, failures: [...unscored, ...unread] };
}

/** How long a user's function may take, and how many may be waited for. */
export function callsOf({
  rewardTimeoutSeconds: timeoutSeconds = 30,
  rewardConcurrency: concurrency = 32,
}: Pick<ScoringOptions, 'rewardTimeoutSeconds' | 'rewardConcurrency'>): {
  timeoutSeconds: number;
  concurrency: number;
} {
  return { timeoutSeconds, concurrency };
}

/**
 * Adds what reward models give to the scores of the same completions; what is not finite leaves one unscored.
 *
 * @returns the calls without a score
 */
function addModelScores(
  scores: Float64Array,
  models: readonly ScoringModel[],
  sequences: readonly (readonly number[])[],
): { reward: string; index: number }[] {
  return models.flatMap(({ name, model, weight }) =>
    scoreSequences(model, sequences).flatMap((score, index) => {
      const isScored = Number.isFinite(score);
      scores[index] = (scores[index] ?? NaN) + (isScored ? weight * score : NaN);
      return isScored ? [] : [{ reward: name, index }];
    }),
  );
}
