/** What a rollout tells: numbers for the metrics, rows for samples.jsonl. */
import type { Tokenizer } from '../tokenizers/index.js';
import { topTokenRecord, type Alternatives } from './alternatives.js';
import type { LossRecord } from './lossSettings.js';
import { judgedStepsOf } from './rewardParts.js';
import type { RolloutRow } from './rollout.js';
import { drawnTokens } from './tokenRows.js';
import type { SampleRecord } from './trainer.js';
import type { UpdateStreams } from './updateRecord.js';
import { tokenTexts } from './tokenTexts.js';

/** Means and shares over the rows of a rollout; NaN rewards are left out. Lengths count what the model drew. */
export function rolloutMetrics(rows: readonly RolloutRow[]): Record<string, number> {
  const lengths = rows.map(drawnTokens);
  const share = (test: (row: RolloutRow) => boolean): number =>
    rows.filter(test).length / rows.length;
  const scored = rows.filter((row) => !Number.isNaN(row.reward)).map((row) => row.reward);
  const byName = Object.keys(rows[0]?.rewards ?? {}).map((name): [string, number] => [
    `reward/${name}`,
    mean(rows.map((row) => row.rewards[name] ?? NaN).filter((value) => !Number.isNaN(value))),
  ]);
  const hasTurns = rows.some(({ turns }) => turns);
  const modelTurns = ({ turns = [] }: RolloutRow): number =>
    turns.filter(({ role }) => role === 'model').length;
  return {
    reward: mean(scored),
    rewardStd: Math.sqrt(mean(scored.map((value) => (value - mean(scored)) ** 2))),
    ...Object.fromEntries(byName),
    unscored: rows.length - scored.length,
    completionLength: mean(lengths),
    completionLengthMax: Math.max(...lengths),
    ...(hasTurns && { turns: mean(rows.map(modelTurns)) }),
    eosRate: share((row) => row.finishReason !== 'length'),
    truncatedRate: share((row) => row.finishReason === 'length'),
  };
}

/** Whether the scores of a group are all equal, or fewer than two: it gives no policy gradient. */
export function lacksVariance(scores: readonly number[]): boolean {
  const scored = scores.filter((score) => !Number.isNaN(score));
  // Not an exact comparison: a weighted sum of equal scores may differ in its last digits.
  return scored.length < 2 || Math.max(...scored) - Math.min(...scored) <= 1e-8;
}

/** The rows of each group. */
export function groupsOf<Row>(rows: readonly Row[], groupSize: number): Row[][] {
  return Array.from({ length: rows.length / groupSize }, (_, group) =>
    rows.slice(group * groupSize, (group + 1) * groupSize),
  );
}

/** Share of groups whose scored rewards are all equal: they give no policy gradient, only that of the KL term. */
export function shareWithoutVariance(rows: readonly RolloutRow[], groupSize: number): number {
  const groups = groupsOf(rows, groupSize);
  const without = groups.filter((group) => lacksVariance(group.map(({ reward }) => reward)));
  return without.length / groups.length;
}

/** Arithmetic mean; NaN of nothing. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** At least `count` rows as whole groups: a completion says little without those it was compared with. */
export function firstGroups<Row>(rows: readonly Row[], count: number, groupSize: number): Row[] {
  return rows.slice(0, Math.ceil(count / groupSize) * groupSize);
}

/** A rollout row with what a method made of it. */
export interface RecordedRow extends RolloutRow {
  /** One per token. */
  readonly advantages: readonly number[];
  readonly oldLogprobs: readonly number[];
  readonly refLogprobs?: readonly number[] | undefined;
  readonly values?: readonly number[] | undefined;
  readonly returns?: readonly number[] | undefined;
  /** One per token, where rewards are credited to tokens. */
  readonly tokenRewards?: readonly number[] | undefined;
  /** Whether the loss gives it a weight. Scored rows have one unless said. */
  readonly isTrained?: boolean | undefined;
  /** What the updates said of it, where they had it. */
  readonly update?: UpdateStreams | undefined;
  readonly loss?: LossRecord | undefined;
  /** Where no update says what they are. */
  readonly alternatives?: Alternatives | undefined;
}

/** A row as samples.jsonl keeps it. */
export function sampleRecord(row: RecordedRow, step: number, tokenizer: Tokenizer): SampleRecord {
  const finite = (value: number): number | null => (Number.isNaN(value) ? null : value);
  const mask = row.completionMask ?? row.completionIds.map(() => 1);
  const counted = row.advantages.filter((_, index) => mask[index] === 1);
  const { values, returns, loss, judged, isTrained = !Number.isNaN(row.reward) } = row;
  const { alternatives = row.alternatives, ...update } = row.update ?? {};
  const tokenRewards = row.tokenRewards ?? row.tokenParts;
  return {
    step,
    promptIndex: row.promptIndex,
    groupIndex: row.groupIndex,
    length: row.completionIds.length,
    finishReason: row.finishReason,
    reward: finite(row.reward),
    rewards: Object.fromEntries(
      Object.entries(row.rewards).map(([name, value]) => [name, finite(value)]),
    ),
    advantage: mean(counted),
    weightVersion: row.weightVersion,
    prompt: row.prompt.text,
    completion: row.completion,
    ...(row.turns && { turns: row.turns }),
    tokenIds: row.completionIds,
    tokens: tokenTexts(tokenizer, row.completionIds),
    ...(loss && { loss }),
    streams: {
      oldLogprobs: row.oldLogprobs,
      rolloutLogprobs: row.rolloutLogprobs,
      refLogprobs: row.refLogprobs,
      ...update,
      advantages: row.advantages,
      ...(values && { values }),
      ...(returns && { returns }),
      ...(tokenRewards && { tokenRewards }),
      mask: isTrained ? mask : mask.map(() => 0),
    },
    ...(judged && { steps: judgedStepsOf(tokenizer, row.completionIds, judged) }),
    ...(alternatives && { topTokens: topTokenRecord(alternatives, tokenizer) }),
  };
}
