/** The numbers of metrics.jsonl in columns, and what is asked of them. Knows no files. */
import { randomUUID } from 'node:crypto';
import { BlockStatistics } from './bucketStatistics.js';
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
  readonly key: string;
  readonly numbers: Growing;
  readonly blocks: BlockStatistics;
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
  /** Cursor of an earlier answer: only what is new since then, where that is possible. */
  readonly since?: string | undefined;
}

/** Steps that were written more than once: how many lines, and between which steps. */
export interface RepeatedSteps {
  lines: number;
  from: number;
  to: number;
}

/** The metrics of a run. */
export class MetricTable {
  /** Another one for every table, also of another process: a cursor of one means nothing to another. */
  private readonly id = randomUUID();
  private readonly columns = new Map<string, Column>();
  private readonly stepColumn = new Growing(0);
  private readonly secondsColumn = new Growing(0);
  private readonly tokensColumn = new Growing(0);
  private countsTokens = false;
  private lastTime: number | undefined;
  /** Columns in the order of the last line: the next one has nearly always the same. */
  private readonly order: Column[] = [];
  /** Lines that are no metrics of a later step. */
  skipped = 0;
  /** Of these, the ones that are metrics of a step that was there before. */
  readonly repeated: RepeatedSteps = { lines: 0, from: Infinity, to: -Infinity };

  /** ISO 8601, of the last line. */
  get updated(): string | null {
    return this.lastTime === undefined ? null : new Date(this.lastTime).toISOString();
  }

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
      if (typeof step === 'number' && step <= lastStep) this.addRepeated(step);
      return;
    }
    this.addTime(record);
    const place = this.lines;
    this.stepColumn.push(step);
    let nth = 0;
    for (const key in record) {
      const value = record[key];
      if (typeof value !== 'number' && value !== null) continue;
      if (key === 'step' || key === 'time') continue;
      const expected = this.order[nth];
      const column = expected?.key === key ? expected : this.columnFor(key, place);
      if (column === undefined) continue;
      this.order[nth++] = column;
      setValue(column, place, value ?? NaN);
    }
  }

  private addRepeated(step: number): void {
    const { repeated } = this;
    repeated.lines++;
    repeated.from = Math.min(repeated.from, step);
    repeated.to = Math.max(repeated.to, step);
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
    if (!Number.isNaN(now)) this.lastTime = now;
  }

  private columnFor(key: string, place: number): Column | undefined {
    const known = this.columns.get(key);
    if (known !== undefined) return known;
    if (this.columns.size >= MAX_KEYS || key.length > MAX_KEY_LENGTH || key === '__proto__')
      return undefined;
    const column: Column = {
      ...{ key, numbers: new Growing(NaN, place), blocks: new BlockStatistics() },
      ...{ count: 0, notFinite: 0, first: place, last: place, min: Infinity, max: -Infinity },
    };
    this.columns.set(key, column);
    return column;
  }

  /**
   * Values over the steps, in at most `points` buckets. All but the last one hold the same number of lines, a power of two,
   * and begin at a multiple of it: a run that grows changes its last bucket and adds others, until all are too many.
   */
  series({ keys, from, to, points, since }: SeriesQuery): Omit<Series, 'run' | 'revision'> {
    const isWhole = from === undefined && to === undefined;
    const [begin, end] = isWhole
      ? [0, this.lines]
      : this.linesOf(from ?? -Infinity, to ?? Infinity);
    let bucketLines = 1;
    while (bucketsIn(begin, end, bucketLines) > points) bucketLines *= 2;
    const known = isWhole ? this.linesAt(since, bucketLines) : 0;
    const first = Math.floor(known / bucketLines);
    const start = Math.max(begin, first * bucketLines);
    // Bucket i holds the lines [edges[i], edges[i + 1]).
    const edges = [start];
    while ((edges.at(-1) ?? end) < end)
      edges.push(Math.min(end, (Math.floor((edges.at(-1) ?? 0) / bucketLines) + 1) * bucketLines));
    const lastOf = (values: Float64Array): number[] =>
      edges.slice(1).map((edge) => values[edge - 1] ?? 0);
    const wanted = keys ?? this.keys;
    const values: [string, SeriesValues][] = wanted.flatMap((key) => {
      const column = this.columns.get(key);
      if (column === undefined) return [];
      column.numbers.fillTo(this.lines);
      return [[key, inBuckets(column, edges, bucketLines)]];
    });
    return {
      from: this.steps[begin] ?? 0,
      to: this.steps[end - 1] ?? 0,
      exact: bucketLines === 1,
      first: isWhole ? first : 0,
      cursor: [this.id, bucketLines, this.lines].join('.'),
      buckets: {
        step: lastOf(this.steps),
        seconds: lastOf(this.seconds),
        tokens: this.countsTokens ? lastOf(this.tokensColumn.values) : null,
      },
      values: Object.fromEntries(values),
    };
  }

  /** Lines that an answer with this cursor has; 0 where its buckets are others than those of now. */
  private linesAt(cursor: string | undefined, bucketLines: number): number {
    const [id, size, lines] = cursor?.split('.') ?? [];
    const isOurs = id === this.id && Number(size) === bucketLines;
    return isOurs ? Math.min(this.lines, Math.max(0, Math.trunc(Number(lines)) || 0)) : 0;
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

function bucketsIn(begin: number, end: number, bucketLines: number): number {
  return Math.ceil(end / bucketLines) - Math.floor(begin / bucketLines);
}

function setValue(column: Column, place: number, value: number): void {
  if (column.numbers.length < place) column.numbers.fillTo(place);
  column.numbers.push(value);
  column.last = place;
  if (!Number.isFinite(value)) {
    column.notFinite++;
    return;
  }
  column.count++;
  if (value < column.min) column.min = value;
  if (value > column.max) column.max = value;
}

function inBuckets(
  { numbers: { values }, blocks }: Column,
  edges: readonly number[],
  bucketLines: number,
): SeriesValues {
  const orNull = (value: number): number | null => (Number.isFinite(value) ? value : null);
  if (bucketLines === 1)
    return { mean: Array.from(values.subarray(edges[0], edges.at(-1)), orNull) };
  const [min, max, mean]: [(number | null)[], (number | null)[], (number | null)[]] = [[], [], []];
  for (let bucket = 0; bucket + 1 < edges.length; bucket++) {
    const found = blocks.of(values, edges[bucket] ?? 0, edges[bucket + 1] ?? 0);
    const isEmpty = found.count === 0;
    min.push(isEmpty ? null : found.min);
    max.push(isEmpty ? null : found.max);
    mean.push(isEmpty ? null : found.sum / found.count);
  }
  return { mean, min, max };
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
