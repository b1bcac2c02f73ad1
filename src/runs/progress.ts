/** Tells a person how far a run is. On a terminal one line that changes, elsewhere plain lines now and then. */

/** Where progress is written: standard error, or a test. */
export interface ProgressStream {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** Settings of `Progress`. */
export interface ProgressOptions {
  /** What is counted, before the bar: `grpo`, `Sampling`. */
  readonly label: string;
  readonly total: number;
  /** Units that were done before; they do not count for the rate. */
  readonly start?: number | undefined;
  /** Word of one unit. `step` unless set. */
  readonly unit?: string | undefined;
  /** Seconds of a clock, for tests. */
  readonly clock?: (() => number) | undefined;
}

/** Longest time without a line where there is no terminal. */
const QUIET_SECONDS = 10;
/** Shortest time between two lines or two drawings. */
const MIN_LINE_SECONDS = 1;
const MIN_DRAW_SECONDS = 0.1;
const BAR_WIDTH = 16;
/** The rate is that of the last half minute: the first steps of a run are slower than the rest. */
const RATE_SECONDS = 30;

/** One bar, or a series of lines. */
export class Progress {
  private readonly stream: ProgressStream;
  private readonly options: ProgressOptions;
  private readonly clock: () => number;
  private readonly startedAt: number;
  /** When how many units were done, over the last half minute. */
  private readonly recent: { at: number; done: number }[];
  private shownAt = -Infinity;
  private shownDone: number;
  private isDrawn = false;

  constructor(stream: ProgressStream, options: ProgressOptions) {
    this.stream = stream;
    this.options = options;
    this.clock = options.clock ?? (() => performance.now() / 1000);
    this.startedAt = this.clock();
    this.shownDone = options.start ?? 0;
    this.recent = [{ at: this.startedAt, done: this.shownDone }];
  }

  /** Says that `done` units are done, with a few words about the last one. */
  update(done: number, note = ''): void {
    const now = this.clock();
    this.recent.push({ at: now, done });
    while (this.recent.length > 2 && (this.recent[0]?.at ?? now) < now - RATE_SECONDS)
      this.recent.shift();
    const isLast = done >= this.options.total;
    const quiet = now - this.shownAt;
    if (this.stream.isTTY === true) {
      if (quiet < MIN_DRAW_SECONDS && !isLast) return;
      const width = this.stream.columns ?? 80;
      this.stream.write(`\r\x1b[2K${this.line(done, note, now, true).slice(0, width - 1)}`);
      this.isDrawn = true;
    } else {
      const isTwentieth = done - this.shownDone >= this.options.total / 20;
      const isDue = (isTwentieth && quiet >= MIN_LINE_SECONDS) || quiet >= QUIET_SECONDS;
      if (!isDue && !isLast) return;
      this.stream.write(`${this.line(done, note, now, false)}\n`);
    }
    this.shownAt = now;
    this.shownDone = done;
  }

  /** Writes a line of its own, above the bar where there is one. */
  message(text: string): void {
    if (this.isDrawn) this.stream.write('\r\x1b[2K');
    this.isDrawn = false;
    this.stream.write(`${text}\n`);
    this.shownAt = this.stream.isTTY === true ? -Infinity : this.shownAt;
  }

  /** Ends the line of the bar. */
  end(): void {
    if (this.isDrawn) this.stream.write('\n');
    this.isDrawn = false;
  }

  private line(done: number, note: string, now: number, withBar: boolean): string {
    const { label, total, unit = 'step' } = this.options;
    const first = this.recent[0] ?? { at: this.startedAt, done: this.options.start ?? 0 };
    const rate = (done - first.done) / Math.max(now - first.at, 1e-9);
    const left = rate > 0 ? `${formatSeconds((total - done) / rate)} left` : '';
    const share = Math.min(1, done / total);
    const filled = Math.round(share * BAR_WIDTH);
    const bar = withBar ? ` [${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}]` : '';
    const parts = [
      `${label}${bar} ${unit} ${done}/${total} (${Math.round(share * 100)} %)`,
      formatRate(rate, unit),
      done < total ? left : `${formatSeconds(now - this.startedAt)} in all`,
      note,
    ];
    return parts.filter((part) => part !== '').join(' · ');
  }
}

function formatRate(rate: number, unit: string): string {
  if (!(rate > 0) || !Number.isFinite(rate)) return '';
  return rate >= 1 ? `${rate.toPrecision(3)} ${unit}s/s` : `${(1 / rate).toPrecision(3)} s/${unit}`;
}

/** A duration for people: `42 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

/** Metrics that say most in few words, in order. */
const HEADLINES = [
  'reward',
  'loss',
  'accuracy',
  'klPolicyReference',
  'completionLength',
  'learningRate',
];

/** The most telling metrics of a step in a few words. */
export function headline(metrics: Readonly<Record<string, number>>, most = 3): string {
  return HEADLINES.flatMap((name) => {
    const value = metrics[name];
    return value === undefined ? [] : [`${name} ${formatNumber(value)}`];
  })
    .slice(0, most)
    .join(', ');
}

/** A number in four digits. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
  return String(Number(value.toPrecision(4)));
}
