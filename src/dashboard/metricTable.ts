/** The numbers of metrics.jsonl in columns, and what is asked of them. Knows no files. */
import type { Series, SeriesValues } from './protocol.js';

/** A run has some forty metrics; a file that names ever new ones must not fill the memory. */
const MAX_KEYS = 1000;
const MAX_KEY_LENGTH = 200;
/** Beyond this a pause of the process is meant, and not a step. Only for lines without stepSeconds. */
const LONGEST_STEP_SECONDS = 3600;

/** Numbers that grow at the end. */
class Growing {
  private space: Float64Array;
  private readonly empty: number;
  length = 0;

  constructor(empty: number, length = 0) {
    this.empty = empty;
    this.space = new Float64Array(Math.max(64, length)).fill(empty);
    this.length = length;
  }

  push(value: number): void {
    if (this.length === this.space.length) this.fillTo(this.length);
    this.space[this.length++] = value;
  }

  /** Makes the length at least this. */
  fillTo(length: number): void {
    if (length >= this.space.length) {
      const grown = new Float64Array(Math.max(length + 1, this.space.length * 2)).fill(this.empty);
      grown.set(this.space);
      this.space = grown;
    }
    this.length = Math.max(this.length, length);
  }

  get values(): Float64Array {
    return this.space.subarray(0, this.length);
  }
}

/** One metric: NaN where a line has none, or one that was not finite. */
export interface MetricColumn {
  readonly values: Float64Array;
  /** Lines with a finite value. */
  readonly count: number;
  readonly notFinite: number;
  /** Places of the first and the last line that have it, finite or not. */
  readonly first: number;
  readonly last: number;
  readonly min: number;
  readonly max: number;
}

interface Column {
  readonly numbers: Growing;
  count: number;
  notFinite: number;
  first: number;
  last: number;
  min: number;
  max: number;
}

/** Which part of the metrics, and how fine. */
export interface SeriesQuery {
  /** All where missing; unknown ones are left out. */
  readonly keys?: readonly string[] | undefined;
  /** Steps, both included. */
  readonly from?: number | undefined;
  readonly to?: number | undefined;
  readonly points: number;
}

/** The metrics of a run. */
export class MetricTable {
  private readonly columns = new Map<string, Column>();
  private readonly stepColumn = new Growing(0);
  private readonly secondsColumn = new Growing(0);
  private readonly tokensColumn = new Growing(0);
  private countsTokens = false;
  private lastTime: number | undefined;
  /** Lines that are no metrics of a later step. */
  skipped = 0;
  /** ISO 8601, of the last line. */
  updated: string | null = null;

  get lines(): number {
    return this.stepColumn.length;
  }

  get steps(): Float64Array {
    return this.stepColumn.values;
  }

  /** Seconds in steps up to each line. */
  get seconds(): Float64Array {
    return this.secondsColumn.values;
  }

  get keys(): string[] {
    return [...this.columns.keys()];
  }

  /** One metric, as long as the table. */
  column(key: string): MetricColumn | undefined {
    const column = this.columns.get(key);
    if (column === undefined) return undefined;
    column.numbers.fillTo(this.lines);
    const { count, notFinite, first, last, min, max } = column;
    return { values: column.numbers.values, count, notFinite, first, last, min, max };
  }

  /** The value of the last line that has this metric; undefined where none has, null where it was not finite. */
  latest(key: string): number | null | undefined {
    const column = this.column(key);
    if (column === undefined) return undefined;
    const value = column.values[column.last] ?? NaN;
    return Number.isNaN(value) ? null : value;
  }

  /** Takes a line of metrics.jsonl. What is no such line is counted and passed over. */
  add(line: string): void {
    const record = parseObject(line);
    const step = record?.['step'];
    const lastStep = this.lines === 0 ? -1 : (this.steps[this.lines - 1] ?? -1);
    if (record === undefined || typeof step !== 'number' || !(step > lastStep)) {
      this.skipped++;
      return;
    }
    this.addTime(record);
    const place = this.lines;
    this.stepColumn.push(step);
    for (const [key, value] of Object.entries(record)) {
      if (key === 'step' || key === 'time') continue;
      if (typeof value === 'number' || value === null) this.set(key, place, value ?? NaN);
    }
  }

  private addTime(record: Readonly<Record<string, unknown>>): void {
    const { time, stepSeconds, tokens } = record;
    const now = typeof time === 'string' ? Date.parse(time) : NaN;
    const since = (now - (this.lastTime ?? now)) / 1000;
    const own = typeof stepSeconds === 'number' && stepSeconds >= 0 ? stepSeconds : since;
    const before = this.secondsColumn.values[this.lines - 1] ?? 0;
    this.secondsColumn.push(before + (own >= 0 && own < LONGEST_STEP_SECONDS ? own : 0));
    const tokensBefore = this.tokensColumn.values[this.lines - 1] ?? 0;
    const isCount = typeof tokens === 'number' && tokens >= 0;
    this.countsTokens ||= isCount;
    this.tokensColumn.push(tokensBefore + (isCount ? tokens : 0));
    if (Number.isNaN(now)) return;
    this.lastTime = now;
    this.updated = new Date(now).toISOString();
  }

  private set(key: string, place: number, value: number): void {
    let column = this.columns.get(key);
    if (column === undefined) {
      if (this.columns.size >= MAX_KEYS || key.length > MAX_KEY_LENGTH || key === '__proto__')
        return;
      const bounds = { min: Infinity, max: -Infinity };
      column = {
        numbers: new Growing(NaN, place),
        count: 0,
        notFinite: 0,
        first: place,
        last: place,
        ...bounds,
      };
      this.columns.set(key, column);
    }
    if (column.numbers.length < place) column.numbers.fillTo(place);
    column.numbers.push(value);
    column.last = place;
    if (!Number.isFinite(value)) {
      column.notFinite++;
      return;
    }
    column.count++;
    column.min = Math.min(column.min, value);
    column.max = Math.max(column.max, value);
  }

  /** Values over the steps, in at most `points` buckets of the same number of lines. */
  series({ keys, from, to, points }: SeriesQuery): Omit<Series, 'run' | 'revision'> {
    const [begin, end] = this.linesOf(from ?? -Infinity, to ?? Infinity);
    const lines = end - begin;
    const count = Math.min(points, lines);
    // Bucket i holds the lines [edges[i], edges[i + 1]).
    const edges = Array.from({ length: count + 1 }, (_, at) =>
      count === 0 ? begin : begin + Math.floor((at * lines) / count),
    );
    const lastOf = (values: Float64Array): number[] =>
      edges.slice(1).map((edge) => values[edge - 1] ?? 0);
    const wanted = keys ?? this.keys;
    const values: [string, SeriesValues][] = wanted.flatMap((key) => {
      const column = this.column(key);
      return column ? [[key, inBuckets(column.values, edges)]] : [];
    });
    return {
      from: this.steps[begin] ?? 0,
      to: this.steps[end - 1] ?? 0,
      exact: count === lines,
      buckets: {
        step: lastOf(this.steps),
        seconds: lastOf(this.seconds),
        tokens: this.countsTokens ? lastOf(this.tokensColumn.values) : null,
      },
      values: Object.fromEntries(values),
    };
  }

  /** Places [begin, end) of the lines with these steps. */
  private linesOf(from: number, to: number): [number, number] {
    const firstNotBelow = (bound: (step: number) => boolean): number => {
      let [low, high] = [0, this.lines];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (bound(this.steps[middle] ?? Infinity)) high = middle;
        else low = middle + 1;
      }
      return low;
    };
    const begin = firstNotBelow((step) => step >= from);
    return [
      begin,
      Math.max(
        begin,
        firstNotBelow((step) => step > to),
      ),
    ];
  }
}

function inBuckets(values: Float64Array, edges: readonly number[]): SeriesValues {
  const [min, max, mean, last]: (number | null)[][] = [[], [], [], []];
  for (let bucket = 0; bucket + 1 < edges.length; bucket++) {
    let [low, high, sum, count, latest] = [Infinity, -Infinity, 0, 0, NaN];
    for (let at = edges[bucket] ?? 0; at < (edges[bucket + 1] ?? 0); at++) {
      const value = values[at] ?? NaN;
      if (!Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
      sum += value;
      count++;
      latest = value;
    }
    const isEmpty = count === 0;
    min?.push(isEmpty ? null : low);
    max?.push(isEmpty ? null : high);
    mean?.push(isEmpty ? null : sum / count);
    last?.push(isEmpty ? null : latest);
  }
  return { min: min ?? [], max: max ?? [], mean: mean ?? [], last: last ?? [] };
}

/** The object that a line holds; undefined where it holds none. */
export function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
