/** Whether a claim was seen: a stated rule on numbers per seed. Knows no experiment. */

/** `partly` where it held for some seeds and not for others. */
export type Seen = 'yes' | 'no' | 'partly';

/** A published claim, and what came of it here. */
export interface Verdict {
  /** Where it was published. */
  readonly paper: string;
  /** What is claimed there, as the end of a sentence that begins with "The paper claims that". */
  readonly claim: string;
  /** What must hold for a seed to count as having shown it. */
  readonly rule: string;
  readonly seen: Seen;
  /** The numbers that decided. */
  readonly because: string;
}

/** yes where it holds for every seed, no where it holds for none. Nothing measured shows nothing. */
export function overSeeds(holds: readonly boolean[]): Seen {
  const count = holds.filter(Boolean).length;
  if (count === 0) return 'no';
  return count === holds.length ? 'yes' : 'partly';
}

/** Mean over seeds, and the range where they differ: `0.93 (0.90–0.96)`; `–` where nothing was measured. */
export function spread(values: readonly number[], digits: number): string {
  if (values.length === 0) return '–';
  const [low, high] = [Math.min(...values), Math.max(...values)].map((end) => end.toFixed(digits));
  const middle = mean(values).toFixed(digits);
  return low === high ? middle : `${middle} (${low}–${high})`;
}

/** Shares as `spread` in percent, without the sign. */
export function percents(values: readonly number[], digits = 1): string {
  return spread(
    values.map((value) => 100 * value),
    digits,
  );
}

/** Arithmetic mean; NaN of nothing. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
