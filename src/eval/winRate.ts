/** How often a model's completions are preferred to others of the same prompts. Knows prompts, rewards and judges, no files. */
import { SeededRandom, type PromptExample } from '../data/index.js';
import { ConfigError, ShapeError, ValueRangeError } from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import {
  judgePairs,
  type NamedReward,
  type PairwiseJudge,
  type RewardInput,
} from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import {
  callsOf,
  drawCompletions,
  scoreDrawn,
  type DrawnCompletion,
  type ScoringModel,
} from './drawCompletions.js';
import { mean, wilsonInterval, type Estimate } from './intervals.js';

/** A model that completes the same rows: its tokenizer may write their prompts otherwise. */
export interface Opponent {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  readonly prompts: readonly PromptExample[];
}

/** What to compare, and by what. */
export interface WinRateOptions extends Opponent {
  /** Another model, or texts that were written before, one per prompt. */
  readonly against: Opponent | readonly string[];
  /** The completion with the higher weighted sum of these, and of the reward models, wins. */
  readonly rewards?: readonly NamedReward[] | undefined;
  /** Of the tokenizer of both models. */
  readonly rewardModels?: readonly ScoringModel[] | undefined;
  /** Compares the completions, in place of rewards and reward models. Either is shown first with probability ½. */
  readonly judge?: PairwiseJudge | undefined;
  readonly maxNewTokens: number;
  /** Samples per prompt; 0 (unless set) compares greedy completions. */
  readonly samples?: number | undefined;
  /** Temperature of the samples. 1 unless set. */
  readonly temperature?: number | undefined;
  /** Nucleus of the samples. 1 (everything) unless set. */
  readonly topP?: number | undefined;
  /** Seed of the samples and of who is shown first. 0 unless set. */
  readonly seed?: number | undefined;
  readonly rewardTimeoutSeconds?: number | undefined;
  readonly rewardConcurrency?: number | undefined;
  /** Called now and then with the number of finished completions, of both sides. */
  readonly onProgress?: ((finished: number) => void) | undefined;
}

/** Two completions of one prompt. */
export interface ComparedPair {
  /** Index of the prompt. */
  readonly promptIndex: number;
  readonly prompt: string;
  /** Of the model. */
  readonly completion: string;
  /** What it is compared with. */
  readonly against: string;
  /** 1 where the model's is better, 0 where the other one is, ½ for a tie; null where nothing could tell. */
  readonly outcome: number | null;
}

/** What was measured. */
export interface WinRate {
  /** Prompts of which a pair could be compared. */
  readonly problems: number;
  /**
   * Mean over prompts of the share of pairs that the model wins, a tie counting half. Wilson's interval over prompts,
   * which is as wide as for wins and losses alone: ties, and the means of several pairs, vary less.
   */
  readonly winRate: Estimate;
  /** Shares of all compared pairs. */
  readonly wins: number;
  readonly ties: number;
  readonly losses: number;
  /** Pairs that could not be compared; they count nowhere else. */
  readonly uncompared: number;
  /** Share of the judge's preferences for the completion that it saw first: one half, unless it prefers a place. */
  readonly firstPreferred?: number;
  /** Sentences about what gave no score or verdict. */
  readonly failures: readonly string[];
  readonly pairs: readonly ComparedPair[];
}

/** Scores that differ by less are a tie: a weighted sum of equal scores may differ in its last digits. */
const TIE = 1e-8;

/**
 * Compares completions of a model with those of another one, or with texts, on the same prompts.
 *
 * Source: the measure is that of Rafailov et al. 2023 (DPO), arXiv:2305.18290, §6 ("win rate"), and TRL's
 * `WinRateCallback`. We count ties as halves and tell them.
 *
 * @throws ValueRangeError if there is no prompt, or no pair could be compared; ShapeError where the other side has another
 *   number of prompts; ConfigError unless there are either rewards or a judge
 */
export async function winRate(options: WinRateOptions): Promise<WinRate> {
  const { prompts, against, judge, rewards = [], rewardModels = [] } = options;
  if (prompts.length === 0) {
    throw new ValueRangeError('winRate: expected at least one prompt, received none.');
  }
  if ((judge !== undefined) === rewards.length + rewardModels.length > 0) {
    throw new ConfigError(
      `winRate: expected rewards or a judge, received ${judge ? 'both' : 'neither'}.`,
    );
  }
  const others = 'model' in against ? against.prompts.length : against.length;
  if (others !== prompts.length) {
    throw new ShapeError(
      `winRate: expected as many completions or prompts on the other side, ${prompts.length}, received ${others}.`,
    );
  }
  const ours = await drawnBy(options, options, 'ours');
  const theirs =
    'model' in against
      ? await drawnBy(against, options, 'theirs', ours.length)
      : writtenBefore(options, against);
  const compared = judge
    ? await byJudge(judge, { ours, theirs, options })
    : await byRewards({ ours, theirs, options });
  const { outcomes, failures, ...told } = compared;
  const pairs = ours.map(({ promptIndex, input }, index) => ({
    promptIndex,
    prompt: input.prompt,
    completion: input.completion,
    against: theirs[index]?.input.completion ?? '',
    outcome: outcomes[index] ?? null,
  }));
  return { ...summary(pairs, prompts.length, failures), ...told, failures, pairs };
}

function summary(
  pairs: readonly ComparedPair[],
  prompts: number,
  failures: readonly string[],
): Omit<WinRate, 'failures' | 'pairs'> {
  const known = pairs.flatMap(({ outcome }) => (outcome === null ? [] : [outcome]));
  if (known.length === 0) {
    throw new ValueRangeError(
      `winRate: expected at least one pair that can be compared, but none of ${pairs.length} was; the first: ${failures[0] ?? 'a reward gave no score'}.`,
    );
  }
  const values = Array.from({ length: prompts }, (_, prompt) =>
    pairs.flatMap(({ promptIndex, outcome }) =>
      promptIndex === prompt && outcome !== null ? [outcome] : [],
    ),
  ).filter((own) => own.length > 0);
  const share = (value: number): number =>
    known.filter((outcome) => outcome === value).length / known.length;
  return {
    problems: values.length,
    winRate: wilsonInterval(
      values.reduce((sum, own) => sum + mean(own), 0),
      values.length,
    ),
    wins: share(1),
    ties: share(0.5),
    losses: share(0),
    uncompared: pairs.length - known.length,
  };
}

/** Both sides, completion by completion. */
interface Sides {
  readonly ours: readonly DrawnCompletion[];
  readonly theirs: readonly DrawnCompletion[];
  readonly options: WinRateOptions;
}

interface Compared {
  readonly outcomes: readonly (number | undefined)[];
  readonly failures: readonly string[];
  readonly firstPreferred?: number;
}

async function byRewards({ ours, theirs, options }: Sides): Promise<Compared> {
  const { rewards = [] } = options;
  const { scores, failures } = await scoreDrawn({ ...options, rewards }, [...ours, ...theirs]);
  return {
    outcomes: ours.map((_, index) => {
      const difference = (scores[index] ?? NaN) - (scores[ours.length + index] ?? NaN);
      if (Number.isNaN(difference)) return undefined;
      if (Math.abs(difference) <= TIE) return 0.5;
      return difference > 0 ? 1 : 0;
    }),
    failures: failures.map(
      ({ reward, file = '?', line = '?', reason }) =>
        `reward ${reward} for ${file}:${line} ${reason}`,
    ),
  };
}

async function byJudge(judge: PairwiseJudge, { ours, theirs, options }: Sides): Promise<Compared> {
  const random = new SeededRandom(deriveSeed(options.seed ?? 0, 'judge'));
  const swapped = ours.map(() => random.nextFloat() < 0.5);
  const pairs = ours.map(({ input: { prompt, row, source, completion } }, index) => ({
    ...{ prompt, row, source },
    completions: [completion, theirs[index]?.input.completion ?? ''] as const,
  }));
  const { verdicts, failures } = await judgePairs(judge, pairs, { ...callsOf(options), swapped });
  const firsts = verdicts.flatMap((verdict, index) =>
    verdict === undefined || verdict === null
      ? []
      : [(verdict === 1) === (swapped[index] === true) ? 1 : 0],
  );
  return {
    outcomes: verdicts.map((verdict) => {
      if (verdict === undefined) return undefined;
      return verdict === null ? 0.5 : 1 - verdict;
    }),
    failures: failures.map(
      ({ file = '?', line = '?', reason }) => `judge for ${file}:${line} ${reason}`,
    ),
    ...(firsts.length > 0 && { firstPreferred: mean(firsts) }),
  };
}

/** Each side has draws of its own: a model against itself wins half. */
async function drawnBy(
  { model, tokenizer, prompts }: Opponent,
  options: WinRateOptions,
  side: 'ours' | 'theirs',
  before = 0,
): Promise<DrawnCompletion[]> {
  const { samples = 0, temperature = 1, topP = 1, seed = 0, maxNewTokens } = options;
  const { drawn } = await drawCompletions(
    {
      ...{ model, tokenizer, prompts, maxNewTokens },
      onProgress: (finished) => options.onProgress?.(before + finished),
    },
    samples === 0
      ? { temperature: 0, numCompletions: 1 }
      : { temperature, topP, numCompletions: samples, seed: deriveSeed(seed, side) },
  );
  return drawn;
}

/** Tokens of a text as those of a completion that ended by itself. */
export function finishedTokens(text: string, tokenizer: Tokenizer): number[] {
  const eos = tokenizer.eosTokenId;
  const ids = tokenizer.encode(text, { addSpecialTokens: false });
  return [...ids, ...(eos === undefined ? [] : [eos])];
}

/** Texts in the place of draws, each as often as its prompt is sampled. They end with EOS, as a finished completion does. */
function writtenBefore(
  { prompts, tokenizer, samples = 0 }: WinRateOptions,
  texts: readonly string[],
): DrawnCompletion[] {
  return prompts.flatMap(({ text: prompt, inputIds, row }, promptIndex) => {
    const completion = texts[promptIndex] ?? '';
    const ids = finishedTokens(completion, tokenizer);
    const input: RewardInput = {
      ...{ prompt, completion, row: row.values, finishReason: 'eos' },
      completionTokens: ids.length,
      source: { file: row.file, line: row.line },
    };
    const drawn = { promptIndex, input, sequence: [...inputIds, ...ids], failed: false };
    return Array.from({ length: Math.max(1, samples) }, () => drawn);
  });
}
