/** Measures how many problems a model solves: greedily, and by several samples. Knows prompts and rewards, no files. */
import { majorityAtK, passAtK } from '../algorithms/sampleMetrics.js';
import type { PromptExample } from '../data/index.js';
import { ValueRangeError } from '../errors/index.js';
import type { Environment } from '../environments/index.js';
import type { FinishReason } from '../generation/index.js';
import type { Decoder } from '../models/index.js';
import type { NamedReward, RewardFailure, Turn } from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import {
  drawCompletions,
  scoreDrawn,
  type DrawSettings,
  type ScoringModel,
} from './drawCompletions.js';
import { bootstrapInterval, mean, wilsonInterval, type Estimate } from './intervals.js';

/** What to measure and how. */
export interface EvaluateOptions {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  /** One problem each. */
  readonly prompts: readonly PromptExample[];
  /** A completion is correct when the weighted sum of these, and of the reward models, reaches `threshold`. */
  readonly rewards: readonly NamedReward[];
  /** Rewards that read the tokens as they were drawn, beside the others or instead of them. */
  readonly rewardModels?: readonly ScoringModel[] | undefined;
  /** 1 unless set. */
  readonly threshold?: number | undefined;
  /** Most tokens of a completion; with an environment, of one turn. */
  readonly maxNewTokens: number;
  /** What answers the model; without one a completion is all there is. */
  readonly environment?: Environment | undefined;
  /** Most turns of the model with an environment. 4 unless set. */
  readonly maxTurns?: number | undefined;
  /** Samples per problem; 0 (unless set) measures the greedy completion only. */
  readonly samples?: number | undefined;
  /** The k of pass@k and maj@k, each at most `samples`; 1 and `samples` unless set. */
  readonly k?: readonly number[] | undefined;
  /** Temperature of the samples. 1 unless set. */
  readonly temperature?: number | undefined;
  /** Nucleus of the samples. 1 (everything) unless set. */
  readonly topP?: number | undefined;
  /** Seed of the samples and of the intervals. 0 unless set. */
  readonly seed?: number | undefined;
  /** The answer in a completion, by which majorities are counted. The trimmed completion unless set. */
  readonly answerOf?: ((completion: string) => string) | undefined;
  readonly rewardTimeoutSeconds?: number | undefined;
  readonly rewardConcurrency?: number | undefined;
  /** Called now and then with the number of finished and of all completions. */
  readonly onProgress?: ((finished: number, total: number) => void) | undefined;
}

/** One judged completion. */
export interface JudgedCompletion {
  /** Index of its problem. */
  readonly promptIndex: number;
  readonly prompt: string;
  /** What the model wrote; with an environment, in its last turn. */
  readonly completion: string;
  /** With an environment, everything after the prompt. */
  readonly turns?: readonly Turn[];
  /** Weighted sum of the rewards; NaN where one of them gave no score. */
  readonly reward: number;
  readonly isCorrect: boolean;
  readonly finishReason: FinishReason;
  readonly completionTokens: number;
}

/** Means over completions of one way of drawing them. */
export interface CompletionStats {
  /** Mean of the rewards that were given. */
  readonly reward: number;
  /** Mean tokens, the ending one included. */
  readonly completionLength: number;
  /** Share that ended by an end-of-sequence token or a stop condition rather than by the length limit. */
  readonly eosRate: number;
  /** Completions without a score; they count as wrong. */
  readonly unscored: number;
}

/** What was measured. Intervals are over problems. */
export interface Evaluation {
  readonly problems: number;
  /** Share of problems whose greedy completion is correct, with Wilson's interval. */
  readonly accuracy: Estimate;
  readonly greedy: CompletionStats;
  /** Present where samples were drawn. Intervals are bootstrapped over problems. */
  readonly sampled?: CompletionStats & {
    readonly samples: number;
    readonly temperature: number;
    /** Probability that at least one of k samples is correct, by k. */
    readonly passAtK: Readonly<Record<number, Estimate>>;
    /** Probability that the most frequent answer of k samples is correct, by k. */
    readonly majorityAtK: Readonly<Record<number, Estimate>>;
  };
  /** The greedy completions, one per problem. */
  readonly completions: readonly JudgedCompletion[];
  /** Rewards that gave no score, greedy ones first. */
  readonly failures: readonly RewardFailure[];
  /** Sentences about episodes in which the environment failed; they are unscored. */
  readonly environmentFailures: readonly string[];
}

/**
 * Measures a model on problems.
 *
 * Majorities are counted over answers as text. All answers of one problem that the rewards call correct count as one
 * answer, so that two spellings of the right answer do not split its votes.
 *
 * @throws ValueRangeError if there is no problem or a k exceeds the number of samples
 * @throws NumericsError when the model gives no finite distribution
 */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { prompts, samples = 0, temperature = 1, topP = 1, seed = 0 } = options;
  const ks = sortedKs(options);
  if (prompts.length === 0) {
    throw new ValueRangeError('evaluate: expected at least one problem, received none.');
  }
  const total = prompts.length * (1 + samples);
  const greedy = await judge(options, { temperature: 0, numCompletions: 1 }, (finished) =>
    options.onProgress?.(finished, total),
  );
  const correct = greedy.judged.filter(({ isCorrect }) => isCorrect).length;
  const evaluation = {
    problems: prompts.length,
    accuracy: wilsonInterval(correct, prompts.length),
    greedy: statsOf(greedy.judged),
    completions: greedy.judged,
    failures: greedy.failures,
    environmentFailures: greedy.environmentFailures,
  };
  if (samples === 0) return evaluation;

  const settings = {
    temperature,
    topP,
    numCompletions: samples,
    seed: deriveSeed(seed, 'evaluate'),
  };
  const drawn = await judge(options, settings, (finished) =>
    options.onProgress?.(prompts.length + finished, total),
  );
  const perProblem = prompts.map((_, index) =>
    drawn.judged.slice(index * samples, (index + 1) * samples),
  );
  const estimate = (
    k: number,
    of: (group: readonly JudgedCompletion[]) => number,
  ): [number, Estimate] => [
    k,
    bootstrapInterval(perProblem.map(of), deriveSeed(seed, 'intervals', k)),
  ];
  return {
    ...evaluation,
    sampled: {
      samples,
      temperature,
      ...statsOf(drawn.judged),
      passAtK: Object.fromEntries(ks.map((k) => estimate(k, (group) => passOf(group, k)))),
      majorityAtK: Object.fromEntries(
        ks.map((k) => estimate(k, (group) => majorityOf(group, k, options.answerOf))),
      ),
    },
    failures: [...greedy.failures, ...drawn.failures],
    environmentFailures: [...greedy.environmentFailures, ...drawn.environmentFailures],
  };
}

function sortedKs({ samples = 0, k }: EvaluateOptions): number[] {
  const ks = [...new Set(k ?? (samples === 0 ? [] : [1, samples]))].sort((a, b) => a - b);
  for (const value of ks) {
    if (Number.isInteger(value) && value >= 1 && value <= samples) continue;
    throw new ValueRangeError(
      `evaluate: expected every k to be from 1 to the ${samples} samples, received ${value}.`,
    );
  }
  return ks;
}

function passOf(group: readonly JudgedCompletion[], k: number): number {
  const correct = group.filter(({ isCorrect }) => isCorrect).length;
  return passAtK({ samples: group.length, correct, k });
}

function majorityOf(
  group: readonly JudgedCompletion[],
  k: number,
  answerOf: (completion: string) => string = (completion) => completion.trim(),
): number {
  // A prefix keeps a wrong answer from ever being spelled like the label of the right one.
  const answers = group.map(({ isCorrect, completion }) =>
    isCorrect ? 'correct' : `wrong ${answerOf(completion)}`,
  );
  return majorityAtK({ answers, reference: 'correct', k });
}

/** Draws completions of every problem and scores them. */
async function judge(
  options: EvaluateOptions,
  settings: DrawSettings,
  onProgress: (finished: number) => void,
): Promise<{
  judged: JudgedCompletion[];
  failures: readonly RewardFailure[];
  environmentFailures: readonly string[];
}> {
  const { threshold = 1, environment } = options;
  const { drawn, failures: environmentFailures } = await drawCompletions(
    { ...options, onProgress },
    settings,
  );
  const { scores, failures } = await scoreDrawn(options, drawn);
  const judged = drawn.map(({ promptIndex, failed, input }, index) => {
    const reward = failed ? Number.NaN : (scores[index] ?? Number.NaN);
    const { prompt, completion, turns, finishReason, completionTokens } = input;
    return {
      promptIndex,
      prompt,
      completion,
      ...(environment && turns && { turns }),
      reward,
      // Sums of weights such as 0.7 + 0.3 may fall short of 1 by a rounding.
      isCorrect: reward >= threshold - 1e-9,
      finishReason,
      completionTokens,
    };
  });
  return { judged, failures, environmentFailures };
}

function statsOf(judged: readonly JudgedCompletion[]): CompletionStats {
  const scored = judged.filter(({ reward }) => !Number.isNaN(reward));
  return {
    reward: mean(scored.map(({ reward }) => reward)),
    completionLength: mean(judged.map(({ completionTokens }) => completionTokens)),
    eosRate: mean(judged.map(({ finishReason }) => (finishReason === 'length' ? 0 : 1))),
    unscored: judged.length - scored.length,
  };
}
