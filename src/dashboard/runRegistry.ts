/** All runs of the watched folders: found, followed, forgotten when they are gone. Tells its listeners what changes. */
import { FollowedRun, type RunPart } from './followedRun.js';
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

/** A question about a run that is being read waits for so long; then it is answered from what has been read. */
const ANSWER_MS = 700;

const RHYTHM: Rhythm = { liveMs: 1000, idleMs: 5000 };

const PARTS: readonly RunPart[] = ['metrics', 'samples'];
const ASPECTS = ['record', ...PARTS] as const;

/** Hears of every change. */
export type EventListener = (event: DashboardEvent) => void;

/** The runs that are shown. */
export class RunRegistry {
  private readonly folders: readonly WatchedFolder[];
  private readonly rhythm: Rhythm;
  private readonly runs = new Map<string, FollowedRun>();
  /** By `record`, `metrics` or `samples`, and the run's id. */
  private readonly faults = new Map<string, string>();
  private unreadable: RunList['unreadable'] = [];
  private readonly listeners = new Set<EventListener>();
  private timer: NodeJS.Timeout | undefined;
  private round: Promise<void> | undefined;
  private isClosed = false;
  /** Questions that wait for lines to be read. */
  private asking = 0;
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

  /** The run of this id, its metrics or samples read up to the end or as far as it went; undefined where there is none. */
  async run(id: string, part: RunPart): Promise<FollowedRun | undefined> {
    const run = this.runs.get(id);
    const end = performance.now() + ANSWER_MS;
    this.asking++;
    try {
      while (run !== undefined && !run.hasRead(part) && performance.now() < end) {
        await this.pollRun(run, part);
        if (!run.isRun || this.faults.has(`${part} ${id}`)) break;
      }
    } finally {
      this.asking--;
    }
    return run?.isRun ? run : undefined;
  }

  /** Every run, as far as it has been read. */
  known(): FollowedRun[] {
    return [...this.runs.values()].filter((run) => run.isRun);
  }

  list(): RunList {
    const runs = [...this.runs.values()].filter((run) => run.isRun).map((run) => this.summary(run));
    runs.sort((a, b) => ((a.started ?? '') < (b.started ?? '') ? 1 : -1));
    const faults = [...this.runs.values()].flatMap((run) => {
      const reasons = ASPECTS.map((aspect) => this.faults.get(`${aspect} ${run.id}`));
      const reason = reasons.find((each) => each !== undefined) ?? run.fault;
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
    const all = [...this.runs.values()];
    const due = all.filter((run) => isIdleRound || !run.isIndexed || run.isLive);
    // The newest first: it is what somebody waits for.
    due.sort((a, b) => ((a.config?.started ?? '') < (b.config?.started ?? '') ? 1 : -1));
    for (const run of due) for (const part of PARTS) await this.pollRun(run, part);
    // A long file is read in parts, and those that grow are looked at in between.
    const begin = performance.now();
    for (const run of all) {
      for (const part of PARTS) {
        // Who asks does not wait for what nobody has asked for.
        const goesOn = (): boolean =>
          !this.isClosed && this.asking === 0 && performance.now() - begin < ANSWER_MS;
        const isReadable = (): boolean => run.isRun && !this.faults.has(`${part} ${run.id}`);
        while (isReadable() && !run.hasRead(part) && goesOn()) await this.pollRun(run, part);
      }
    }
  }

  private async search(): Promise<void> {
    const { places, unreadable } = await findRuns(this.folders);
    this.unreadable = unreadable;
    const found = new Set(places.map(({ id }) => id));
    for (const [id, run] of this.runs) {
      if (found.has(id)) continue;
      this.runs.delete(id);
      for (const aspect of ASPECTS) this.faults.delete(`${aspect} ${id}`);
      if (run.isRun) this.tell({ type: 'removed', id });
    }
    for (const place of places) {
      if (this.runs.has(place.id)) continue;
      const run = new FollowedRun(place);
      this.runs.set(place.id, run);
      // The list shows it before its lines are read.
      await this.guarded(run, 'record', () => run.pollRecord());
    }
  }

  /** What goes wrong in one run's folder is told with it and stops nothing else. */
  private async guarded(
    { id }: FollowedRun,
    aspect: (typeof ASPECTS)[number],
    action: () => Promise<void>,
  ): Promise<void> {
    const key = `${aspect} ${id}`;
    try {
      await action();
      this.faults.delete(key);
      // It was read anew.
      this.faults.delete(`record ${id}`);
    } catch (error) {
      this.faults.set(key, error instanceof Error ? error.message : String(error));
    }
  }

  private readonly polls = new Map<string, Promise<void>>();

  /** One poll of the same lines at a time: two would tell them twice. */
  private pollRun(run: FollowedRun, part: RunPart): Promise<void> {
    const key = `${part} ${run.id}`;
    const going = this.polls.get(key);
    if (going !== undefined) return going;
    const poll = this.pollOnce(run, part).finally(() => this.polls.delete(key));
    this.polls.set(key, poll);
    return poll;
  }

  private pollOnce(run: FollowedRun, part: RunPart): Promise<void> {
    return this.guarded(run, part, async () => {
      const { id, isRun: wasRun } = run;
      const changes = await run.poll(part);
      if (this.runs.get(id) !== run) return; // gone in the meantime
      if (!run.isRun) {
        if (wasRun) this.tell({ type: 'removed', id });
        return;
      }
      if (changes.summary) this.tell({ type: 'run', run: this.summary(run) });
      if (!changes.lines) return;
      const { table, samples, metricsRevision: revision } = run;
      if (part === 'metrics') {
        const lastStep = table.steps[table.lines - 1] ?? 0;
        this.tell({ type: 'metrics', id, lines: table.lines, lastStep, revision });
      } else {
        const total = samples.entries.length;
        this.tell({ type: 'samples', id, total, revision: samples.revision });
      }
    });
  }

  private tell(event: DashboardEvent): void {
    for (const listener of this.listeners) listener(event);
  }
}
