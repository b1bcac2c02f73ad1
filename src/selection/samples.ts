/** Scored samples of many prompts: which are kept, as rows for fine-tuning, and what is reported of them. No files. */
import { RewardError } from '../errors/index.js';
import {
  bestOfNKlBound,
  rankByScore,
  selectCompletions,
  type KeepRule,
} from './selectCompletions.js';

/** One scored completion, as a line of samples.jsonl. */
export interface Sample {
  /** Place of the prompt among the prompts of the data. */
  readonly promptIndex: number;
  readonly completionIndex: number;
  /** The prompt as the model saw it. */
  readonly prompt: string;
  readonly completion: string;
  /** Weighted sum of the rewards; null where one of them gave no score. */
  readonly score: number | null;
  /** Each reward's own score, before weights. */
  readonly scores: Readonly<Record<string, number | null>>;
  /** Place among the scored completions of the prompt, from 1; null without a score. */
  readonly rank: number | null;
  readonly finishReason: 'eos' | 'stop' | 'length';
  readonly completionTokens: number;
}

/** What decides which samples are kept. */
export interface SelectionSettings {
  readonly keep: KeepRule;
  readonly distinct: boolean;
  /** Whether completions that reached the length limit may be kept. */
  readonly keepTruncated: boolean;
}

/** Samples of one prompt get their ranks. */
export function withRanks(group: readonly Omit<Sample, 'rank'>[]): Sample[] {
  const ranks = rankByScore(group.map(({ score }) => score ?? NaN));
  return group.map((sample, index) => {
    const place = ranks.indexOf(index);
    return { ...sample, rank: place === -1 ? null : place + 1 };
  });
}

/**
 * The samples that are kept, prompt by prompt, the best of a prompt first.
 *
 * @param groups the samples of each prompt
 * @throws RewardError if none is kept at all
 */
export function selectSamples(
  groups: readonly (readonly Sample[])[],
  { keep, distinct, keepTruncated }: SelectionSettings,
): Sample[][] {
  const kept = groups.map((group) => {
    const candidates = group.map((sample) => ({
      text: sample.completion,
      score: mayBeKept(sample, keepTruncated) ? (sample.score ?? NaN) : NaN,
    }));
    return selectCompletions(candidates, keep, { distinct }).map((at) => group[at] as Sample);
  });
  if (kept.every((group) => group.length === 0)) throw nothingKept(groups.flat(), keep);
  return kept;
}

function mayBeKept({ finishReason }: Sample, keepTruncated: boolean): boolean {
  return keepTruncated || finishReason !== 'length';
}

function nothingKept(samples: readonly Sample[], keep: KeepRule): RewardError {
  const unscored = samples.filter(({ score }) => score === null).length;
  const truncated = samples.filter(({ finishReason }) => finishReason === 'length').length;
  const best = Math.max(...samples.map(({ score }) => score ?? -Infinity));
  const reasons = [
    ...(unscored > 0 ? [`${unscored} have no score`] : []),
    ...(truncated > 0 ? [`${truncated} reached the length limit`] : []),
    ...(keep.kind === 'threshold' && Number.isFinite(best)
      ? [`the highest score is ${best} and keep.atLeast ${keep.atLeast}`]
      : []),
  ];
  return new RewardError(
    `Selecting: expected at least one completion to keep, but none of ${samples.length} can be${reasons.length === 0 ? '' : `: ${reasons.join(', ')}`}.`,
    {
      hint: 'Read samples.jsonl of the iteration; then go on by --resume with another keep, keepTruncated or more samplesPerPrompt in a new run.',
    },
  );
}

/** What a kept row tells of where it comes from. */
export interface Provenance {
  /** Folder of the model that wrote it, and the hash of its weights. */
  readonly model: string;
  readonly weightsSha256: string;
  readonly iteration: number;
  readonly seed: number;
  readonly sampling: Readonly<Record<string, unknown>>;
  /** Samples of the prompt. */
  readonly n: number;
}

/** Columns that cannot stand beside prompt and completion: they are ours, or make the row one of another format. */
const MOVED_COLUMNS = ['completion', 'label', 'provenance'];

/**
 * A row {prompt, completion} for fine-tuning, in the form that the prompt has in the data (text or messages). The other
 * columns of the data's row stay; those that would be read as something else stand in `provenance.row`.
 *
 * @param values the row of the data
 */
export function selectedRow(
  sample: Sample,
  values: Readonly<Record<string, unknown>>,
  provenance: Provenance,
): Record<string, unknown> {
  const { prompt, ...columns } = values;
  const { completion, score, scores, rank, completionIndex } = sample;
  const others = Object.entries(columns);
  const isMoved = (name: string): boolean => MOVED_COLUMNS.includes(name);
  const moved = others.filter(([name]) => isMoved(name));
  return {
    prompt,
    completion:
      typeof prompt === 'string' ? completion : [{ role: 'assistant', content: completion }],
    ...Object.fromEntries(others.filter(([name]) => !isMoved(name))),
    provenance: {
      ...provenance,
      score,
      scores,
      rank,
      completionIndex,
      ...(moved.length > 0 && { row: Object.fromEntries(moved) }),
    },
  };
}

/**
 * What is reported of an iteration's samples. Means of rewards are over the completions that have a score.
 *
 * @param kept what `selectSamples` gave for the groups
 */
export function sampleMetrics(
  groups: readonly (readonly Sample[])[],
  kept: readonly (readonly Sample[])[],
  keep: KeepRule,
): Record<string, number> {
  const samples = groups.flat();
  const scored = samples.flatMap(({ score }) => score ?? []);
  const chosen = kept.flat();
  const names = Object.keys(samples[0]?.scores ?? {});
  const byReward = names.map((name): [string, number] => [
    `reward/${name}`,
    mean(samples.flatMap(({ scores }) => scores[name] ?? [])),
  ]);
  return {
    reward: mean(scored),
    rewardKept: mean(chosen.flatMap(({ score }) => score ?? [])),
    ...Object.fromEntries(byReward),
    acceptanceRate: chosen.length / samples.length,
    prompts: groups.length,
    promptsWithoutKept: kept.filter((group) => group.length === 0).length,
    samples: samples.length,
    kept: chosen.length,
    unscored: samples.length - scored.length,
    truncated: samples.filter(({ finishReason }) => finishReason === 'length').length,
    completionLength: mean(samples.map(({ completionTokens }) => completionTokens)),
    completionLengthKept: mean(chosen.map(({ completionTokens }) => completionTokens)),
    ...(keep.kind === 'best' && { klBound: bestOfNKlBound(groups[0]?.length ?? 1) }),
  };
}

/** NaN of nothing. */
function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
