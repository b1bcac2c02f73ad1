/** The rollout phase of on-policy methods: completions for a batch of prompts, scored by rewards. */
import { SeededRandom, type PromptExample } from '../data/index.js';
import { RewardError } from '../errors/index.js';
import { endTokenIds, sample, type FinishReason } from '../generation/index.js';
import type { Decoder } from '../models/index.js';
import { scoreCompletions, type NamedReward, type RewardFailure } from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { TokenRow } from './tokenRows.js';
import type { SampleRecord } from './trainer.js';

/** One sampled completion with its score. The rows of a prompt are contiguous. */
export interface RolloutRow extends TokenRow {
  readonly prompt: PromptExample;
  /** Place of the prompt in the batch. */
  readonly promptIndex: number;
  readonly groupIndex: number;
  readonly completion: string;
  readonly finishReason: FinishReason;
  /** nats, as the sampler reported them. */
  readonly rolloutLogprobs: readonly number[];
  /** Weighted sum of the rewards, NaN where one of them gave no score. */
  readonly reward: number;
  readonly rewards: Readonly<Record<string, number>>;
  /** How many updates the weights that drew it had seen. */
  readonly weightVersion: number;
}

/** What a rollout needs. */
export interface RolloutOptions {
  readonly policy: Decoder;
  readonly tokenizer: Tokenizer;
  readonly rewards: readonly NamedReward[];
  readonly prompts: readonly PromptExample[];
  readonly groupSize: number;
  readonly sampling: { readonly maxNewTokens: number; readonly temperature: number };
  readonly seed: number;
  readonly weightVersion: number;
  readonly timeoutSeconds: number;
  readonly concurrency: number;
}

/**
 * Samples and scores. Nothing is updated.
 *
 * @throws RewardError when no completion at all could be scored: then there is nothing to learn from
 */
export async function rollout(
  options: RolloutOptions,
): Promise<{ rows: RolloutRow[]; failures: readonly RewardFailure[] }> {
  const { policy, tokenizer, prompts, groupSize, sampling, seed } = options;
  const completions = await sample({
    ...sampling,
    model: policy,
    promptIds: prompts.map((prompt) => prompt.inputIds),
    numCompletions: groupSize,
    eosTokenIds: endTokenIds(policy, tokenizer),
    seed,
  });
  const texts = completions.map(({ tokenIds }) =>
    tokenizer.decode(tokenIds, { skipSpecialTokens: true }),
  );
  const promptOf = (index: number): PromptExample =>
    prompts[completions[index]?.promptIndex ?? 0] as PromptExample;

  const inputs = completions.map(({ finishReason, tokenIds }, index) => {
    const { text, row } = promptOf(index);
    return {
      prompt: text,
      completion: texts[index] ?? '',
      row: row.values,
      finishReason,
      completionTokens: tokenIds.length,
      source: { file: row.file, line: row.line },
    };
  });
  const { scores, byReward, failures } = await scoreCompletions(options.rewards, inputs, {
    timeoutSeconds: options.timeoutSeconds,
    concurrency: options.concurrency,
  });
  if (scores.every(Number.isNaN)) {
    throw new RewardError(
      `rollout: expected at least one scored completion, but all ${scores.length} are unscored; the first: ${describeFailure(failures[0])}.`,
      { hint: 'Try the reward on one completion by hand; it must return a finite number.' },
    );
  }

  const rows = completions.map((completion, index): RolloutRow => ({
    prompt: promptOf(index),
    promptIndex: completion.promptIndex,
    groupIndex: completion.completionIndex,
    promptIds: promptOf(index).inputIds,
    completionIds: completion.tokenIds,
    completion: texts[index] ?? '',
    finishReason: completion.finishReason,
    rolloutLogprobs: completion.logprobs,
    reward: scores[index] ?? NaN,
    rewards: Object.fromEntries(
      Object.entries(byReward).map(([name, values]) => [name, values[index] ?? NaN]),
    ),
    weightVersion: options.weightVersion,
  }));
  return { rows, failures };
}

/** Sentences about the first completions that got no score, and how many more there are. */
export function describeFailures(failures: readonly RewardFailure[]): string[] {
  const shown = failures.slice(0, 3).map(describeFailure);
  const rest = failures.length - shown.length;
  return rest > 0 ? [...shown, `${rest} more scores are missing`] : shown;
}

function describeFailure(failure: RewardFailure | undefined): string {
  if (!failure) return 'a reward gave no score';
  const place = failure.file === undefined ? '' : ` for ${failure.file}:${failure.line ?? '?'}`;
  return `reward ${failure.reward}${place} ${failure.reason}`;
}

/** Means and shares over the rows of a rollout; NaN rewards are left out. */
export function rolloutMetrics(rows: readonly RolloutRow[]): Record<string, number> {
  const lengths = rows.map((row) => row.completionIds.length);
  const share = (test: (row: RolloutRow) => boolean): number =>
    rows.filter(test).length / rows.length;
  const scored = rows.filter((row) => !Number.isNaN(row.reward)).map((row) => row.reward);
  const byName = Object.keys(rows[0]?.rewards ?? {}).map((name): [string, number] => [
    `reward/${name}`,
    mean(rows.map((row) => row.rewards[name] ?? NaN).filter((value) => !Number.isNaN(value))),
  ]);
  return {
    reward: mean(scored),
    rewardStd: Math.sqrt(mean(scored.map((value) => (value - mean(scored)) ** 2))),
    ...Object.fromEntries(byName),
    unscored: rows.length - scored.length,
    completionLength: mean(lengths),
    completionLengthMax: Math.max(...lengths),
    eosRate: share((row) => row.finishReason === 'eos'),
    truncatedRate: share((row) => row.finishReason === 'length'),
  };
}

/** Share of groups whose scored rewards are all equal: they give no policy gradient, only that of the KL term. */
export function shareWithoutVariance(rows: readonly RolloutRow[], groupSize: number): number {
  const groups = rows.length / groupSize;
  let without = 0;
  for (let group = 0; group < groups; group++) {
    const rewards = rows
      .slice(group * groupSize, (group + 1) * groupSize)
      .map((row) => row.reward)
      .filter((reward) => !Number.isNaN(reward));
    // Not an exact comparison: a weighted sum of equal scores may differ in its last digits.
    if (rewards.length < 2 || Math.max(...rewards) - Math.min(...rewards) <= 1e-8) without++;
  }
  return without / groups;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * The rows in parts of equal size. Whole groups are shuffled, and their rows stay together and in order; where one part
 * takes everything, nothing is shuffled.
 *
 * @param partSize a multiple of groupSize that divides the number of rows
 */
export function groupMinibatches<Row>(
  rows: readonly Row[],
  options: { groupSize: number; partSize: number; seed: number },
): Row[][] {
  const { groupSize, partSize, seed } = options;
  if (partSize === rows.length) return [[...rows]];
  const groups = new SeededRandom(seed).permutation(rows.length / groupSize);
  const shuffled = Array.from(groups, (group) =>
    rows.slice(group * groupSize, (group + 1) * groupSize),
  ).flat();
  return Array.from({ length: rows.length / partSize }, (_, part) =>
    shuffled.slice(part * partSize, (part + 1) * partSize),
  );
}

/** At least `count` rows as whole groups: a completion says little without those it was compared with. */
export function firstGroups<Row>(rows: readonly Row[], count: number, groupSize: number): Row[] {
  return rows.slice(0, Math.ceil(count / groupSize) * groupSize);
}

/** A row as samples.jsonl keeps it. */
export function sampleRecord(
  row: RolloutRow & {
    readonly advantage: number;
    readonly oldLogprobs: readonly number[];
    readonly refLogprobs?: readonly number[] | undefined;
  },
  step: number,
  tokenizer: Tokenizer,
): SampleRecord {
  const finite = (value: number): number | null => (Number.isNaN(value) ? null : value);
  return {
    step,
    promptIndex: row.promptIndex,
    groupIndex: row.groupIndex,
    prompt: row.prompt.text,
    completion: row.completion,
    tokenIds: row.completionIds,
    tokens: row.completionIds.map((id) => tokenizer.tokenText(id)),
    finishReason: row.finishReason,
    reward: finite(row.reward),
    rewards: Object.fromEntries(
      Object.entries(row.rewards).map(([name, value]) => [name, finite(value)]),
    ),
    advantage: row.advantage,
    weightVersion: row.weightVersion,
    streams: {
      oldLogprobs: row.oldLogprobs,
      rolloutLogprobs: row.rolloutLogprobs,
      refLogprobs: row.refLogprobs,
      advantages: row.completionIds.map(() => row.advantage),
      mask: row.completionIds.map(() => (Number.isNaN(row.reward) ? 0 : 1)),
    },
  };
}
