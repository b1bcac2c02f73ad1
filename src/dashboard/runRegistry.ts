/** All runs of the watched folders: found, followed, forgotten when they are gone. Tells its listeners what changes. */
import { FollowedRun } from './followedRun.js';
import {
  PROTOCOL_VERSION,
  type DashboardEvent,
  type RunList,
  type RunSummary,
} from './protocol.js';
import { findRuns, nameOfPlace, type WatchedFolder } from './watchedFolders.js';

/** How often, in milliseconds. */
export interface Rhythm {
  /** Runs that go on. */
  readonly liveMs: number;
  /** Runs that have ended, and the search for new ones. */
  readonly idleMs: number;
}

const RHYTHM: Rhythm = { liveMs: 1000, idleMs: 5000 };

/** Hears of every change. */
export type EventListener = (event: DashboardEvent) => void;

/** The runs that are shown. */
export class RunRegistry {
  private readonly folders: readonly WatchedFolder[];
  private readonly rhythm: Rhythm;
  private readonly runs = new Map<string, FollowedRun>();
  private readonly faults = new Map<string, string>();
  private unreadable: RunList['unreadable'] = [];
  private readonly listeners = new Set<EventListener>();
  private timer: NodeJS.Timeout | undefined;
  private round: Promise<void> | undefined;
  private isClosed = false;
  private lastIdle = -Infinity;

  constructor(folders: readonly WatchedFolder[], rhythm: Rhythm = RHYTHM) {
    this.folders = folders;
    this.rhythm = rhythm;
  }

  /** Finds the runs, and begins to follow them. What they hold is read afterwards, newest first. */
  async start(): Promise<void> {
    await this.search();
    this.schedule(0);
  }

  /** Ends following. */
  async close(): Promise<void> {
    this.isClosed = true;
    clearTimeout(this.timer);
    this.listeners.clear();
    await this.round;
  }

  /** @returns what ends listening */
  listen(listener: EventListener): () => void {
    this.listeners.add(listener);
    listener({ type: 'hello', protocol: PROTOCOL_VERSION });
    return () => this.listeners.delete(listener);
  }

  get listenerCount(): number {
    return this.listeners.size;
  }

  /** The run of this id, read up to its end, or its metrics alone; undefined where there is none. */
  async run(id: string, what: 'all' | 'metrics' = 'all'): Promise<FollowedRun | undefined> {
    const run = this.runs.get(id);
    if (run !== undefined && !run.isIndexed) {
      const poll = this.pollRun(run);
      await (what === 'all' ? poll : Promise.race([poll, run.metricsRead]));
    }
    return run?.isRun ? run : undefined;
  }

  list(): RunList {
    const runs = [...this.runs.values()].filter((run) => run.isRun).map((run) => this.summary(run));
    runs.sort((a, b) => ((a.started ?? '') < (b.started ?? '') ? 1 : -1));
    const faults = [...this.runs.values()].flatMap((run) => {
      const reason = this.faults.get(run.id) ?? run.fault;
      return reason === undefined ? [] : [{ name: nameOfPlace(run.place), reason }];
    });
    return { runs, unreadable: [...this.unreadable, ...faults] };
  }

  summary(run: FollowedRun): RunSummary {
    return { ...run.summary(), parent: this.parentOf(run)?.id ?? null };
  }

  /** Runs in the folder of this one. */
  childrenOf(run: FollowedRun): string[] {
    return [...this.runs.values()]
      .filter((each) => each.isRun && this.parentOf(each) === run)
      .map(({ id }) => id);
  }

  private parentOf({ place: { watched, parts } }: FollowedRun): FollowedRun | undefined {
    let nearest: FollowedRun | undefined;
    for (const run of this.runs.values()) {
      const { place } = run;
      const holds =
        run.isRun &&
        place.watched === watched &&
        place.parts.length < parts.length &&
        place.parts.every((part, at) => part === parts[at]);
      if (holds && place.parts.length >= (nearest?.place.parts.length ?? 0)) nearest = run;
    }
    return nearest;
  }

  private schedule(delayMs: number): void {
    if (this.isClosed) return;
    this.timer = setTimeout(() => {
      this.round = this.look()
        .catch((error: unknown) => {
          // A fault of one run is told with it; this one is of the search, and may be gone the next time.
          this.unreadable = [{ name: 'search', reason: String(error) }];
        })
        .finally(() => this.schedule(this.rhythm.liveMs));
    }, delayMs);
    // A program that has nothing else to do may end.
    this.timer.unref();
  }

  private async look(): Promise<void> {
    const isIdleRound = performance.now() - this.lastIdle >= this.rhythm.idleMs;
    if (isIdleRound) {
      await this.search();
      this.lastIdle = performance.now();
    }
    const due = [...this.runs.values()].filter(
      (run) => isIdleRound || !run.isIndexed || run.isLive,
    );
    for (const run of due) {
      if (this.isClosed) return;
      await this.pollRun(run);
    }
  }

  private async search(): Promise<void> {
    const { places, unreadable } = await findRuns(this.folders);
    this.unreadable = unreadable;
    const found = new Set(places.map(({ id }) => id));
    for (const [id, run] of this.runs) {
      if (found.has(id)) continue;
      this.runs.delete(id);
      this.faults.delete(id);
      if (run.isRun) this.tell({ type: 'removed', id });
    }
    for (const place of places) {
      if (this.runs.has(place.id)) continue;
      const run = new FollowedRun(place);
      this.runs.set(place.id, run);
      // The list shows it before its lines are read.
      await this.guarded(run, () => run.pollRecord());
    }
  }

  /** What goes wrong in one run's folder is told with it and stops nothing else. */
  private async guarded(run: FollowedRun, action: () => Promise<void>): Promise<void> {
    try {
      await action();
      this.faults.delete(run.id);
    } catch (error) {
      this.faults.set(run.id, error instanceof Error ? error.message : String(error));
    }
  }

  private readonly polls = new Map<FollowedRun, Promise<void>>();

  /** One poll of a run at a time: two would tell its lines twice. */
  private pollRun(run: FollowedRun): Promise<void> {
    const going = this.polls.get(run);
    if (going !== undefined) return going;
    const poll = this.pollOnce(run).finally(() => this.polls.delete(run));
    this.polls.set(run, poll);
    return poll;
  }

  private pollOnce(run: FollowedRun): Promise<void> {
    return this.guarded(run, async () => {
      const { id, isRun: wasRun } = run;
      const changes = await run.poll();
      if (!run.isRun) {
        if (wasRun) this.tell({ type: 'removed', id });
        return;
      }
      if (changes.summary) this.tell({ type: 'run', run: this.summary(run) });
      const { table, samples, metricsRevision: revision } = run;
      if (changes.metrics) {
        const lastStep = table.steps[table.lines - 1] ?? 0;
        this.tell({ type: 'metrics', id, lines: table.lines, lastStep, revision });
      }
      if (changes.samples) {
        const total = samples.entries.length;
        this.tell({ type: 'samples', id, total, revision: samples.revision });
      }
    });
  }

  private tell(event: DashboardEvent): void {
    for (const listener of this.listeners) listener(event);
  }
}
