/** What a tracker is: something beside the run directory that is told how a run goes. Knows no server. */

/** What a run is, as its config.json has it. */
export interface TrackedRun {
  /** Absolute path of the run directory. */
  readonly directory: string;
  /** Last part of that path; `job/stage` for a stage of a job. */
  readonly name: string;
  readonly method: string;
  /** Resolved settings. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Model, data, rewards: whatever the settings do not name. */
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly seed: number;
  /** Of the program; null where it is not in a repository. */
  readonly commit: string | null;
  /** When the run was begun, as ISO 8601. */
  readonly started: string;
  readonly totalSteps: number;
  /** The step that the run goes on from; undefined for a new run. */
  readonly resumedFrom: number | undefined;
  /** Settings that differ from before, in words. */
  readonly changed: readonly string[];
  /** What this tracker gave to `remember` last, in whichever process; undefined where it never did. */
  readonly remembered: unknown;
  /** Keeps a value, as JSON, in the run directory: the name of the run at a server, by which a resumed run goes on. */
  readonly remember: (value: unknown) => void;
}

/** What was measured at one step. */
export interface TrackedStep {
  readonly step: number;
  readonly time: Date;
  /** By the names of metrics.jsonl. A value may be NaN or infinite. */
  readonly metrics: Readonly<Record<string, number>>;
}

/** How a run ended. */
export type TrackedEnd = 'finished' | 'stopped' | 'failed';

/**
 * Follows a run. The run never waits for it, and no error of it ends the run: calls come one after the other beside the
 * training, and `log` gets every step that has come since.
 *
 * An error is told once and the steps of that call are counted as lost, unless it is a `TrackerError` with `again`: then
 * the same call is made again, after growing waits. `begin` that fails otherwise ends the following.
 */
export interface Tracker {
  /** For messages, and for what it remembers in the run directory: one name per tracker of a run. */
  readonly name: string;
  /** @param signal aborted when there is no more time */
  begin(run: TrackedRun, signal: AbortSignal): Promise<void> | void;
  /** @param steps at least one, in order. After `again` the same ones come again. */
  log(steps: readonly TrackedStep[], signal: AbortSignal): Promise<void> | void;
  end(state: TrackedEnd, signal: AbortSignal): Promise<void> | void;
}
