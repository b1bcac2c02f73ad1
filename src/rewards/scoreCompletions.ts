import { ValueRangeError } from '../errors/index.js';
import { callEach, type Called } from '../userCode/index.js';
import { checkRewards, type NamedReward, type RewardInput } from './reward.js';

/** One call of a reward that gave no score. */
export interface RewardFailure {
  /** Name of the reward. */
  readonly reward: string;
  /** Index of the completion among the inputs. */
  readonly index: number;
  /** Where its row stands, if the input told. */
  readonly file?: string | undefined;
  readonly line?: number | undefined;
  /** What happened, for example `threw TypeError: …`, `returned NaN`, `did not answer within 30 s`. */
  readonly reason: string;
}

/** Scores of a batch of completions. */
export interface RewardScores {
  /** Σ weight · score per completion; NaN where any reward gave no score. */
  readonly scores: Float64Array;
  /** Each reward's own scores, before weights; NaN where it gave none. */
  readonly byReward: Readonly<Record<string, readonly number[]>>;
  /** Every missing score, by completion and then by reward. */
  readonly failures: readonly RewardFailure[];
}

/** Settings of `scoreCompletions`. */
export interface ScoreOptions {
  /** How long an asynchronous reward may take per completion. 30 unless set. */
  readonly timeoutSeconds?: number | undefined;
  /** How many calls may wait at the same time. 32 unless set. */
  readonly concurrency?: number | undefined;
}

/** A score, or why there is none. */
type Outcome = { readonly score: number } | { readonly reason: string };

/**
 * Scores every completion with every reward and adds up the weighted scores. A reward that throws, rejects, answers too
 * late or returns something other than a finite number leaves its completion unscored (NaN) and is reported with its
 * row; the other completions are not touched.
 *
 * A call that timed out is no longer waited for, but what it started goes on. A synchronous endless loop cannot be
 * interrupted inside a process: only rewards that wait (network, files, timers) can time out.
 *
 * @throws RewardError if there is no reward, two have the same name, or a weight is not finite
 * @throws ValueRangeError if a setting is not positive
 */
export async function scoreCompletions<Row>(
  rewards: readonly NamedReward<Row>[],
  inputs: readonly RewardInput<Row>[],
  options: ScoreOptions = {},
): Promise<RewardScores> {
  const { timeoutSeconds = 30, concurrency = 32 } = options;
  checkRewards('scoreCompletions', rewards);
  for (const [name, value] of Object.entries({ timeoutSeconds, concurrency })) {
    if (value > 0) continue;
    throw new ValueRangeError(
      `scoreCompletions: expected ${name} to be positive, received ${value}.`,
    );
  }

  const calls = inputs.flatMap((input) =>
    rewards.map(
      ({ fn }) =>
        (): unknown =>
          fn(input),
    ),
  );
  const outcomes = (await callEach(calls, { timeoutSeconds, concurrency })).map(toOutcome);
  return collect(rewards, inputs, outcomes);
}

function collect<Row>(
  rewards: readonly NamedReward<Row>[],
  inputs: readonly RewardInput<Row>[],
  outcomes: readonly Outcome[],
): RewardScores {
  const scores = new Float64Array(inputs.length);
  const byReward = Object.fromEntries(
    rewards.map(({ name }) => [name, inputs.map(() => Number.NaN)]),
  );
  const failures: RewardFailure[] = [];
  inputs.forEach((input, index) => {
    rewards.forEach(({ name, weight }, column) => {
      const outcome = outcomes[index * rewards.length + column] ?? { reason: 'was not called' };
      const score = 'score' in outcome ? outcome.score : Number.NaN;
      const own = byReward[name];
      if (own !== undefined) own[index] = score;
      scores[index] = (scores[index] ?? 0) + weight * score;
      if ('reason' in outcome) {
        failures.push({ reward: name, index, ...input.source, reason: outcome.reason });
      }
    });
  });
  return { scores, byReward, failures };
}

function toOutcome(called: Called<unknown>): Outcome {
  if (!('value' in called)) return called;
  const { value } = called;
  if (typeof value === 'number' && Number.isFinite(value)) return { score: value };
  if (typeof value === 'number' || value === null || value === undefined) {
    return { reason: `returned ${String(value)}` };
  }
  const shown = typeof value === 'string' ? JSON.stringify(value.slice(0, 60)) : typeof value;
  return { reason: `returned ${shown}, not a number` };
}
