/** One run folder, followed while it grows. */
import { findPatterns } from './failurePatterns.js';
import { LineTail } from './lineTail.js';
import { explainMetric, GROUP_TITLES } from './metricExplanations.js';
import { MetricTable, parseObject } from './metricTable.js';
import {
  HEADLINE_METRICS,
  type Mark,
  type MetricCatalog,
  type MetricGroupId,
  type MetricInfo,
  type RunDetail,
  type RunSummary,
} from './protocol.js';
import {
  parseRunConfig,
  parseRunStatus,
  stateOf,
  type RunConfig,
  type RunStatusFile,
} from './runRecord.js';
import { SampleIndex } from './sampleIndex.js';
import {
  listRunFolder,
  nameOfPlace,
  openRunFile,
  readRunFile,
  type RunFileName,
  type RunPlace,
} from './watchedFolders.js';

const MAX_CONFIG_BYTES = 4 << 20;
/** A line of metrics is a thousand bytes; this is one of a thousand metrics. */
const MAX_METRICS_LINE_BYTES = 1 << 20;
/** Steps that the time left is estimated from. */
const RECENT_STEPS = 20;
/** Bytes of a long file that are read before anything else gets its turn. */
const PART_BYTES = 8 << 20;
/** Marks are looked for again when a run is longer by this share: the rules read whole columns. */
const MARKS_GROWTH = 1 / 1000;

/** What is followed apart from each other: who looks at samples need not wait for the metrics. */
export type RunPart = 'metrics' | 'samples';

/** What a poll has found new. */
export interface Changes {
  readonly summary: boolean;
  /** Of the lines that were polled. */
  readonly lines: boolean;
}

/** A run and everything that is known of it. */
export class FollowedRun {
  readonly place: RunPlace;
  readonly samples: SampleIndex;
  table = new MetricTable();
  metricsRevision = 1;
  private readonly isRead: Record<RunPart, boolean> = { metrics: false, samples: false };
  private markedLines = 0;
  private record: RunConfig | undefined;
  private status: RunStatusFile | undefined;
  private marks: readonly Mark[] = [];
  private lastSummary = '';
  private readonly metricsTail: LineTail;
  private readonly smallFiles = new Map<RunFileName, string>();

  constructor(place: RunPlace) {
    this.place = place;
    this.samples = new SampleIndex(place);
    this.metricsTail = new LineTail({
      open: () => openRunFile(place, 'metrics.jsonl'),
      maxLineBytes: MAX_METRICS_LINE_BYTES,
      listener: {
        onReset: () => {
          this.table = new MetricTable();
          this.marks = [];
          this.markedLines = 0;
          this.metricsRevision++;
        },
        onLine: (line) => this.table.add(line.toString('utf8')),
        onLongLine: () => this.table.skipped++,
      },
    });
  }

  get id(): string {
    return this.place.id;
  }

  /** Whether the folder holds a run; undefined until it was read. A model's folder has a config.json, too. */
  get isRun(): boolean {
    return this.record !== undefined;
  }

  /** Why a folder with a config.json cannot be told; undefined where it can, or holds no run. */
  fault: string | undefined;

  get config(): RunConfig | undefined {
    return this.record;
  }

  /** Whether its files may grow: then it is looked at more often. */
  get isLive(): boolean {
    return ['running', 'starting'].includes(this.state());
  }

  /** Whether all that lies on the disk of it has been read once. */
  hasRead(part: RunPart): boolean {
    return this.isRead[part];
  }

  /** Whether everything that lies on the disk has been read once. */
  get isIndexed(): boolean {
    return this.isRead.metrics && this.isRead.samples;
  }

  /**
   * Reads what is new of metrics or samples; of a long file a part.
   *
   * @throws IoError where a file of it is no plain file
   */
  async poll(part: RunPart): Promise<Changes> {
    await this.pollRecord();
    if (this.record === undefined) return { summary: false, lines: false };
    const lines = await (part === 'metrics' ? this.pollMetrics() : this.pollSamples());
    const summary = JSON.stringify(this.summary());
    const hasChanged = summary !== this.lastSummary;
    this.lastSummary = summary;
    return { summary: hasChanged, lines };
  }

  private async pollMetrics(): Promise<boolean> {
    const hasChanged = await this.metricsTail.poll(PART_BYTES);
    this.isRead.metrics ||= this.metricsTail.isAtEnd;
    const { lines } = this.table;
    const grown = lines - this.markedLines;
    const isDue = grown > lines * MARKS_GROWTH || (grown > 0 && !this.isLive);
    if (this.record !== undefined && this.metricsTail.isAtEnd && isDue) {
      this.marks = findPatterns(this.table, this.record);
      this.markedLines = lines;
    }
    return hasChanged;
  }

  private async pollSamples(): Promise<boolean> {
    const hasChanged = await this.samples.poll(PART_BYTES);
    this.isRead.samples ||= this.samples.isAtEnd;
    return hasChanged;
  }

  /** Reads what the run is, and how it stands by its own words. */
  async pollRecord(): Promise<void> {
    const config = await this.textIfChanged('config.json');
    if (config !== 'same') this.takeConfig(config);
    if (this.record === undefined) return;
    const status = await this.textIfChanged('status.json');
    if (status !== 'same') this.status = status === undefined ? undefined : parseRunStatus(status);
  }

  private takeConfig(text: string | undefined): void {
    const isJson = text === undefined || parseObject(text) !== undefined;
    this.fault = isJson ? undefined : 'config.json is not a JSON object';
    this.record = text === undefined ? undefined : parseRunConfig(text);
  }

  /** The text of a small file where it is another one than before. */
  private async textIfChanged(name: RunFileName): Promise<string | undefined> {
    const handle = await openRunFile(this.place, name);
    if (handle === undefined) {
      this.smallFiles.delete(name);
      return undefined;
    }
    let mark: string;
    try {
      const { size, mtimeMs, ino } = await handle.stat();
      mark = [ino, size, mtimeMs].join(' ');
    } finally {
      await handle.close();
    }
    if (this.smallFiles.get(name) === mark) return 'same';
    const text = await readRunFile(this.place, name, MAX_CONFIG_BYTES);
    this.smallFiles.set(name, mark);
    return text;
  }

  private state() {
    const { table, status } = this;
    return stateOf(status, { lines: table.lines, lastSign: table.updated, now: Date.now() });
  }

  summary(): RunSummary {
    const { table, status, record } = this;
    const state = this.state();
    const step = Math.max(status?.step ?? 0, table.steps[table.lines - 1] ?? 0);
    const totalSteps = status?.totalSteps ?? null;
    const { watched } = this.place;
    return {
      id: this.id,
      name: nameOfPlace(this.place),
      folder: watched.given,
      parent: null,
      method: record?.method ?? '',
      preset: record?.preset ?? null,
      model: record?.model ?? null,
      data: record?.data ?? null,
      state,
      message: status?.message ?? null,
      step,
      totalSteps,
      started: record?.started ?? null,
      updated: latest(table.updated, status?.updated ?? null),
      seconds: table.seconds[table.lines - 1] ?? 0,
      secondsLeft:
        state === 'running' && totalSteps !== null ? this.secondsFor(totalSteps - step) : null,
      latest: Object.fromEntries(
        HEADLINE_METRICS.flatMap((key) => {
          const value = table.latest(key);
          return value === undefined ? [] : [[key, value]];
        }),
      ),
      marks: this.marks,
      metricLines: table.lines,
      samples: this.samples.entries.length,
      indexed: this.isIndexed,
    };
  }

  private secondsFor(steps: number): number | null {
    const { seconds, lines } = this.table;
    const before = Math.max(0, lines - 1 - RECENT_STEPS);
    if (lines - 1 <= before) return null;
    const perLine = ((seconds[lines - 1] ?? 0) - (seconds[before] ?? 0)) / (lines - 1 - before);
    return perLine * Math.max(0, steps);
  }

  async detail(): Promise<RunDetail | undefined> {
    const { record } = this;
    if (record === undefined) return undefined;
    const checkpoints = await listRunFolder(this.place, 'checkpoints');
    return {
      ...this.summary(),
      ...record,
      checkpoints: checkpoints.map((name) => ({ step: Number(name.slice('step-'.length)), name })),
      children: [],
    };
  }

  /** Names, meaning and extremes of all metrics, by group. */
  catalog(): MetricCatalog {
    const { table } = this;
    const infos = table.keys.flatMap((key): MetricInfo[] => {
      const column = table.column(key);
      if (column === undefined) return [];
      const { count, notFinite, first, last, min, max } = column;
      return [
        {
          key,
          ...explainMetric(key),
          firstStep: table.steps[first] ?? 0,
          lastStep: table.steps[last] ?? 0,
          ...{ count, notFinite },
          last: table.latest(key) ?? null,
          min: count === 0 ? null : min,
          max: count === 0 ? null : max,
        },
      ];
    });
    const groups = (Object.keys(GROUP_TITLES) as MetricGroupId[]).map((id) => ({
      id,
      title: GROUP_TITLES[id],
      metrics: infos.filter(({ group }) => group === id),
    }));
    return {
      run: this.id,
      groups: groups.filter(({ metrics }) => metrics.length > 0),
      marks: this.marks,
      firstStep: table.steps[0] ?? 0,
      lastStep: table.steps[table.lines - 1] ?? 0,
      lines: table.lines,
      revision: this.metricsRevision,
    };
  }
}

function latest(a: string | null, b: string | null): string | null {
  if (a === null || b === null) return a ?? b;
  return a > b ? a : b;
}
