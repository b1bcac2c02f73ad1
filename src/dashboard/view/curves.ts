/** From the server's buckets to the curves of a chart. Plain TypeScript: it runs in the browser. */
import type { Series } from '../protocol.js';

/** What the horizontal axis shows. */
export type Axis = 'step' | 'seconds' | 'tokens';

/** A line of a chart; y is null where there is no value. */
export interface Curve {
  readonly x: readonly number[];
  readonly y: readonly (number | null)[];
  /** Smallest and largest value of each bucket, where a bucket holds several lines of the file. */
  readonly low?: readonly (number | null)[] | undefined;
  readonly high?: readonly (number | null)[] | undefined;
}

/** The horizontal positions of the buckets; null where the run does not count what the axis shows. */
export function axisValues(series: Series, axis: Axis): readonly number[] | null {
  return series.buckets[axis];
}

/** One metric over an axis; undefined where the run does not have one of them. */
export function curveOf(series: Series, key: string, axis: Axis): Curve | undefined {
  const x = axisValues(series, axis);
  const values = series.values[key];
  if (x === null || values === undefined) return undefined;
  const { mean, min, max } = values;
  return { x, y: mean, ...(min && max && { low: min, high: max }) };
}

/** An answer to `since` put behind the buckets that it follows. */
export function continued(before: Series | undefined, next: Series): Series {
  const { first } = next;
  if (before === undefined || first === 0) return next;
  type Values = readonly (number | null)[];
  const join = <Value>(old: readonly Value[], added: readonly Value[]): readonly Value[] => [
    ...old.slice(0, first),
    ...added,
  ];
  const none: Values = Array.from({ length: first }, () => null);
  const tokens = next.buckets.tokens && {
    // A run that begins to count has counted none before.
    tokens: join(before.buckets.tokens ?? none.map(() => 0), next.buckets.tokens),
  };
  const values = Object.entries(next.values).map(([key, { mean, min, max }]) => {
    const old = before.values[key];
    return [
      key,
      {
        mean: join(old?.mean ?? none, mean),
        ...(min && { min: join(old?.min ?? none, min) }),
        ...(max && { max: join(old?.max ?? none, max) }),
      },
    ] as const;
  });
  return {
    ...next,
    first: 0,
    buckets: {
      step: join(before.buckets.step, next.buckets.step),
      seconds: join(before.buckets.seconds, next.buckets.seconds),
      tokens: null,
      ...tokens,
    },
    values: Object.fromEntries(values),
  };
}

/**
 * Exponential moving average without the pull of its beginning towards 0.
 *
 *     mₜ = s·mₜ₋₁ + (1 − s)·yₜ      shown: mₜ / (1 − sᵗ), t counting the values that there are
 *
 * @param smoothing s in [0, 1); 0 changes nothing
 * @returns null where y is null
 */
export function smooth(
  y: readonly (number | null)[],
  smoothing: number,
): readonly (number | null)[] {
  if (smoothing <= 0) return y;
  let mean = 0;
  let weight = 0;
  return y.map((value) => {
    if (value === null) return null;
    mean = smoothing * mean + (1 - smoothing) * value;
    weight = smoothing * weight + (1 - smoothing);
    return mean / weight;
  });
}

/** The values without those that a logarithmic axis cannot show. */
export function positive(y: readonly (number | null)[]): readonly (number | null)[] {
  return y.map((value) => (value !== null && value > 0 ? value : null));
}

/**
 * The steps that a stretch of the axis covers, with one bucket more at each end so that lines reach the border.
 *
 * @returns undefined where no bucket lies in it
 */
export function stepsWithin(
  series: Series,
  axis: Axis,
  [from, to]: readonly [number, number],
): { readonly from: number; readonly to: number } | undefined {
  const x = axisValues(series, axis);
  const { step } = series.buckets;
  if (x === null) return undefined;
  const first = x.findIndex((value) => value >= from);
  const last = x.findLastIndex((value) => value <= to);
  const start = step[Math.max(0, (first === -1 ? x.length : first) - 1)];
  const end = step[Math.min(x.length - 1, last + 1)];
  return start === undefined || end === undefined || end < start
    ? undefined
    : { from: start, to: end };
}

/** Where a step lies on the axis: of the first bucket that reaches it. */
export function positionOfStep(series: Series, axis: Axis, step: number): number | undefined {
  if (axis === 'step') return step;
  const index = series.buckets.step.findIndex((last) => last >= step);
  return axisValues(series, axis)?.[index];
}

/** Smallest and largest value of several lines; undefined where there is none. */
export function extent(
  lines: readonly (readonly (number | null)[])[],
): readonly [number, number] | undefined {
  let low = Infinity;
  let high = -Infinity;
  for (const line of lines) {
    for (const value of line) {
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low > high ? undefined : [low, high];
}

/** Round numbers inside a range, about `count` of them. */
export function ticks([low, high]: readonly [number, number], count: number): number[] {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  const first = Math.ceil(low / step);
  const last = Math.floor(high / step + 1e-9);
  // Multiples, not sums: 0.1 + 0.2 would be written with all its digits.
  return Array.from({ length: last - first + 1 }, (_, index) =>
    Number(((first + index) * step).toPrecision(12)),
  );
}
