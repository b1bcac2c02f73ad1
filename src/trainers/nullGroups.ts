/** How many groups will teach nothing: a forecast from a first sample. */
import type { GrpoConfig } from '../config/index.js';
import { lacksVariance, groupsOf, mean } from './rolloutRecord.js';
import type { Rollout } from './rolloutSource.js';

/** What a first sample says about groups without variance. */
export interface NullGroupForecast {
  readonly groupSize: number;
  /** Groups of the sample. */
  readonly groups: number;
  /** Share of them without variance. */
  readonly observed: number;
  /** Mean reward, where all rewards of the sample are 0 or 1. */
  readonly successRate: number | undefined;
  /** pᴳ + (1 − p)ᴳ, which is the share if every problem were as hard as every other. */
  predicted(groupSize: number): number | undefined;
}

/**
 * The expected share of groups without variance.
 *
 *     1 − (1 − pᴳ − (1 − p)ᴳ)      p: mean reward of the sample, for rewards of 0 and 1
 *
 * Problems differ, and the share is convex in p: the observed share is at least the predicted one, up to chance.
 *
 * @param rows the first rollout, the rows of a prompt contiguous
 */
export function forecastNullGroups(
  rows: readonly { readonly reward: number }[],
  groupSize: number,
): NullGroupForecast {
  const rewards = rows.map(({ reward }) => reward);
  const groups = groupsOf(rewards, groupSize);
  const scored = rewards.filter((reward) => !Number.isNaN(reward));
  const isBinary = scored.length > 0 && scored.every((reward) => reward === 0 || reward === 1);
  const successRate = isBinary ? mean(scored) : undefined;
  return {
    groupSize,
    groups: groups.length,
    observed: groups.filter(lacksVariance).length / groups.length,
    successRate,
    predicted: (size) =>
      successRate === undefined ? undefined : successRate ** size + (1 - successRate) ** size,
  };
}

/**
 * The forecast of a rollout. With dynamic sampling its rows were chosen for their variance: of all groups that were drawn
 * for it only the share without variance is known.
 */
export function forecastOfRollout(
  { rows, discardedShare: observed }: Pick<Rollout, 'rows' | 'discardedShare'>,
  { groupSize, dynamicSampling }: Pick<GrpoConfig, 'groupSize' | 'dynamicSampling'>,
): NullGroupForecast {
  const forecast = forecastNullGroups(rows, groupSize);
  if (dynamicSampling === null) return forecast;
  return { ...forecast, observed, successRate: undefined, predicted: () => undefined };
}

/** A sentence with advice where more than half of the groups will teach nothing; else undefined. */
export function nullGroupWarning(forecast: NullGroupForecast): string | undefined {
  const { groupSize, observed, successRate: p } = forecast;
  const predicted = forecast.predicted(groupSize) ?? 0;
  if (observed <= 0.5 && predicted <= 0.5) return undefined;
  const percent = (value: number): string => `${Math.round(100 * value)} %`;
  const found = `In a first sample ${percent(observed)} of the groups of ${groupSize} have no variance and teach nothing`;
  if (p === undefined) {
    return `${found}: their completions all have the same reward. Use a reward that tells more completions apart, or a larger groupSize.`;
  }
  if (p === 0 || p === 1) {
    return `${found}: no completion was ${p === 0 ? 'right' : 'wrong'}. Use ${p === 0 ? 'easier' : 'harder'} problems, or a model that was fine-tuned ${p === 0 ? 'more' : 'less'}.`;
  }
  const doubled = forecast.predicted(2 * groupSize) ?? NaN;
  return (
    `${found}; with the mean reward of ${p.toPrecision(2)} at least ${percent(predicted)} were to be expected, and ` +
    `${percent(doubled)} of groups of ${2 * groupSize}. Raise groupSize, choose ${p < 0.5 ? 'easier' : 'harder'} problems, or set dynamicSampling.`
  );
}
