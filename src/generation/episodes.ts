/**
 * Episodes of a policy, alone or with an environment: the sampling part of every on-policy method's rollout.
 *
 * An episode is one growing list of tokens. What the model drew stays as it was drawn, never decoded and encoded again;
 * only what the environment says is tokenised, once, and marked, so that it is in no loss, mean or count.
 */
import type { PromptExample } from '../data/index.js';
import type { Environment, EnvironmentStep, ModelTurn } from '../environments/index.js';
import { DataError, ValueRangeError } from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import type { Turn } from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import { callEach } from '../userCode/index.js';
import { endTokenIds } from './generate.js';
import { sample, type SampleOptions } from './sample.js';
import type { FinishReason } from './settings.js';
import { stopConditions } from './stopTexts.js';

/** How the tokens of an episode are drawn. */
export interface EpisodeSampling {
  /** Most tokens of one turn of the model. */
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly minP?: number | undefined;
}

/** What `sampleEpisodes` needs. */
export interface EpisodeOptions {
  readonly policy: Decoder;
  readonly tokenizer: Tokenizer;
  readonly prompts: readonly PromptExample[];
  /** G */
  readonly numCompletions: number;
  readonly sampling: EpisodeSampling;
  readonly seed: number;
  /** What answers the model; without one an episode is one turn. */
  readonly environment?: Environment | undefined;
  /** Most turns of the model in an episode with an environment. */
  readonly maxTurns: number;
  /** Keep which tokens each was drawn among, where sampling is truncated. */
  readonly keepSupport?: boolean | undefined;
  /** How long an asynchronous call of the environment may take. */
  readonly timeoutSeconds: number;
  /** How many calls of the environment may wait at the same time. */
  readonly concurrency: number;
  /** Called while first turns are drawn, with the number of finished and of all of them. */
  readonly onProgress?: ((finished: number, total: number) => void) | undefined;
}

/** What one prompt led to. Arrays have one entry per token after the prompt. */
export interface Episode {
  /** Which prompt, from 0. */
  readonly promptIndex: number;
  /** Which episode of that prompt, from 0. */
  readonly completionIndex: number;
  /** Everything after the prompt: tokens as they were drawn, observations as they were tokenised. */
  readonly tokenIds: readonly number[];
  /** nats, as the sampler reported them; 0 at tokens of observations. */
  readonly logprobs: readonly number[];
  /** 1 where the model drew the token, 0 where the environment said it. */
  readonly completionMask: readonly number[];
  /** The ids each token was drawn among, null at tokens of observations; absent where the sampler kept none. */
  readonly supports?: readonly (Int32Array | null)[];
  /**
   * Why the model's last turn ended. `length` also where the environment would have gone on, but `maxTurns` or the
   * model's positions were used up: such an episode is cut off, not finished.
   */
  readonly finishReason: FinishReason;
  /** The same in text; the last turn is the model's. */
  readonly turns: readonly Turn[];
  /** Whether the environment failed: then nothing can be said of how good the model was. */
  readonly failed: boolean;
}

/** An episode on its way. */
interface Play extends Episode {
  readonly prompt: PromptExample;
  readonly tokenIds: number[];
  readonly logprobs: number[];
  readonly completionMask: number[];
  supports?: (Int32Array | null)[];
  readonly turns: Turn[];
  finishReason: FinishReason;
  failed: boolean;
  state: unknown;
}

/**
 * Samples `numCompletions` episodes of each prompt; they come prompt-major, those of one prompt together.
 *
 * The first turns of a prompt share one pass over it. What an episode draws depends on the seed and on its own place,
 * not on which others are still running. With an environment, an episode ends when the environment says so, at EOS, after
 * `maxTurns` turns of the model, and where an observation and one more turn would not fit the model's positions; the
 * last two have the reason `length`. An observation that no turn follows is left out, never cut.
 *
 * An environment that throws, answers too late or answers something else ends its own episode (`failed`) and no other.
 *
 * @returns the episodes, and a sentence for each one that failed
 * @throws ValueRangeError for settings out of range, and as `sample`
 */
export async function sampleEpisodes(
  options: EpisodeOptions,
): Promise<{ episodes: Episode[]; failures: readonly string[] }> {
  const { prompts, numCompletions, seed, environment } = options;
  checkOptions(options);
  const plays = prompts.flatMap((prompt, promptIndex) =>
    Array.from({ length: numCompletions }, (_, completionIndex) =>
      startPlay(prompt, promptIndex, completionIndex),
    ),
  );
  const dialogue = environment && new Dialogue(environment, options);
  await dialogue?.reset(plays);
  const ending = endingOf(options);
  const promptIds = prompts.map(({ inputIds }) => inputIds);
  const { onProgress } = options;
  const firstTurns = {
    ...ending,
    promptIds,
    numCompletions,
    seed,
    ...(onProgress && { onProgress }),
  };
  await drawTurns(plays, firstTurns, options);

  let running = (await dialogue?.answer(plays, 0)) ?? [];
  for (let turn = 1; running.length > 0; turn++) {
    const promptsSoFar = running.map(({ prompt, tokenIds }) => [...prompt.inputIds, ...tokenIds]);
    const rowSeeds = running.map(({ promptIndex, completionIndex }) =>
      deriveSeed(seed, 'turn', turn, promptIndex * numCompletions + completionIndex),
    );
    await drawTurns(running, { ...ending, promptIds: promptsSoFar, rowSeeds }, options);
    running = (await dialogue?.answer(running, turn)) ?? [];
  }
  const episodes = plays.map(({ prompt: _prompt, state: _state, ...episode }) => episode);
  return { episodes, failures: dialogue?.failures ?? [] };
}

function startPlay(prompt: PromptExample, promptIndex: number, completionIndex: number): Play {
  return {
    prompt,
    promptIndex,
    completionIndex,
    tokenIds: [],
    logprobs: [],
    completionMask: [],
    finishReason: 'length',
    turns: [],
    failed: false,
    state: undefined,
  };
}

/**
 * What ends a turn. An EOS token that the environment names among its stop texts ends the turn alone: chat templates end
 * every message with it, and the conversation goes on.
 */
function endingOf({ policy, tokenizer, environment }: EpisodeOptions): Partial<SampleOptions> {
  const eosTokenIds = endTokenIds(policy, tokenizer);
  if (!environment) return { eosTokenIds };
  const where = `environment ${environment.name}`;
  const conditions = stopConditions(where, tokenizer, environment.stop);
  const { stopTokenIds } = conditions;
  return { ...conditions, eosTokenIds: eosTokenIds.filter((id) => !stopTokenIds.includes(id)) };
}

/** Draws one turn for each episode and appends it. */
async function drawTurns(
  plays: readonly Play[],
  turns: Partial<SampleOptions> & Pick<SampleOptions, 'promptIds'>,
  { policy, tokenizer, sampling, keepSupport = false }: EpisodeOptions,
): Promise<void> {
  const drawn = await sample({ ...sampling, ...turns, model: policy, keepSupport });
  drawn.forEach(({ tokenIds, logprobs, supports, finishReason }, index) => {
    const play = plays[index] as Play;
    play.tokenIds.push(...tokenIds);
    play.logprobs.push(...logprobs);
    play.completionMask.push(...tokenIds.map(() => 1));
    if (supports) (play.supports ??= []).push(...supports);
    play.finishReason = finishReason;
    const text = tokenizer.decode(tokenIds, { skipSpecialTokens: true });
    play.turns.push({ role: 'model', text });
  });
}

/** The environment's side of the episodes. */
class Dialogue {
  /** A sentence for each episode in which the environment failed. */
  readonly failures: string[] = [];
  private readonly environment: Environment;
  private readonly options: EpisodeOptions;

  constructor(environment: Environment, options: EpisodeOptions) {
    this.environment = environment;
    this.options = options;
  }

  async reset(plays: readonly Play[]): Promise<void> {
    const calls = plays.map(
      ({ prompt }) =>
        () =>
          this.environment.reset({ prompt: prompt.text, row: prompt.row.values }),
    );
    const outcomes = await callEach(calls, this.options);
    outcomes.forEach((outcome, index) => {
      const play = plays[index] as Play;
      if ('value' in outcome) play.state = outcome.value;
      else this.fail(play, `reset ${outcome.reason}`);
    });
  }

  /**
   * Tells the environment what the model wrote, and appends what it answers where another turn follows.
   *
   * @returns the episodes that go on
   */
  async answer(all: readonly Play[], turn: number): Promise<Play[]> {
    const plays = all.filter(({ failed }) => !failed);
    const calls = plays.map(({ state, turns, finishReason }) => {
      const written: ModelTurn = { text: turns.at(-1)?.text ?? '', index: turn, finishReason };
      return (): unknown => this.environment.step(state, written);
    });
    const outcomes = await callEach(calls, this.options);
    return plays.filter((play, index) => {
      const outcome = outcomes[index] ?? { reason: 'was not called' };
      if (!('value' in outcome)) return this.fail(play, `step ${outcome.reason}`);
      if (!isStep(outcome.value)) {
        return this.fail(play, 'step returned something other than { state, observation, done }');
      }
      return this.proceed(play, outcome.value, turn);
    });
  }

  /** @returns whether another turn of the model follows */
  private proceed(
    play: Play,
    { state, observation, done }: EnvironmentStep,
    turn: number,
  ): boolean {
    if (done || play.finishReason === 'eos') return false;
    const { policy, sampling, maxTurns } = this.options;
    const ids = turn + 1 < maxTurns ? this.encode(play, observation) : undefined;
    if (play.failed) return false;
    const length = play.prompt.inputIds.length + play.tokenIds.length + (ids?.length ?? 0);
    if (!ids || length + sampling.maxNewTokens > policy.config.maxPositionEmbeddings) {
      play.finishReason = 'length';
      return false;
    }
    play.state = state;
    play.tokenIds.push(...ids);
    play.logprobs.push(...ids.map(() => 0));
    play.completionMask.push(...ids.map(() => 0));
    play.supports?.push(...ids.map(() => null));
    play.turns.push({ role: 'environment', text: observation });
    return true;
  }

  private encode(play: Play, observation: string): number[] | undefined {
    try {
      return this.options.tokenizer.encode(observation, { addSpecialTokens: false });
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      this.fail(play, `step gave a text that the tokenizer refuses: ${error.message}`);
      return undefined;
    }
  }

  /** @returns false: the episode does not go on */
  private fail(play: Play, what: string): false {
    play.failed = true;
    const { file, line } = play.prompt.row;
    this.failures.push(`environment ${this.environment.name} for ${file}:${line}: ${what}`);
    return false;
  }
}

function isStep(value: unknown): value is EnvironmentStep {
  if (typeof value !== 'object' || value === null) return false;
  const { observation, done } = value as Readonly<Record<string, unknown>>;
  return typeof observation === 'string' && typeof done === 'boolean';
}

function checkOptions(options: EpisodeOptions): void {
  const { maxTurns, timeoutSeconds, concurrency } = options;
  if (!Number.isInteger(maxTurns) || maxTurns < 1) {
    throw new ValueRangeError(
      `sampleEpisodes: expected maxTurns to be a positive integer, received ${maxTurns}.`,
    );
  }
  for (const [name, value] of Object.entries({ timeoutSeconds, concurrency })) {
    if (value > 0) continue;
    throw new ValueRangeError(
      `sampleEpisodes: expected ${name} to be positive, received ${value}.`,
    );
  }
}
