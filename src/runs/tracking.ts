/** Who follows a run: the trackers of its settings and those that are given in code, and what they are told of it. */
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { CheckpointError, UsageError } from '../errors/index.js';
import {
  Follower,
  mlflowAccess,
  mlflowCall,
  MlflowTracker,
  type TrackedRun,
  type TrackedStep,
  type Tracker,
} from '../trackers/index.js';
import { asIoError, replaceFile, systemCode } from './files.js';

/** The settings under `track`. */
export interface TrackSettings {
  readonly mlflow: string | null;
  readonly experiment: string;
}

/**
 * Checks that a run can be followed as its settings say, before anything is written. No server is asked.
 *
 * @throws ConfigError where an address or an environment variable is missing
 */
export function requireTrackers({ mlflow }: TrackSettings): void {
  if (mlflow !== null) mlflowAccess(mlflow);
}

/**
 * The trackers of a run.
 *
 * @throws ConfigError as `requireTrackers`; UsageError where two have one name
 */
export function trackersOf(
  { mlflow, experiment }: TrackSettings,
  given: readonly Tracker[] = [],
): readonly Tracker[] {
  const trackers: Tracker[] = [...given];
  if (mlflow !== null) {
    const access = mlflowAccess(mlflow);
    const { address } = access;
    trackers.unshift(new MlflowTracker({ call: mlflowCall(access), address, experiment }));
  }
  const names = trackers.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    throw new UsageError(`train: expected trackers of different names, received two of ${twice}.`);
  }
  return trackers;
}

/** What is known of a run when it is begun to be followed. */
export type FollowedRun = Omit<TrackedRun, 'name' | 'remembered' | 'remember'>;

/** The followers of one run. */
export class Tracking {
  private readonly followers: readonly Follower[];

  /** @param tell tells people a sentence; an error of it is not heard */
  constructor(trackers: readonly Tracker[], run: FollowedRun, tell: (sentence: string) => void) {
    const directory = resolve(run.directory);
    const path = join(directory, MEMORY_FILE);
    const memory = readMemory(path);
    const name = nameOf(directory);
    this.followers = trackers.map((tracker) => {
      const remember = (value: unknown): void => {
        memory[tracker.name] = value;
        replaceFile(path, `${JSON.stringify(memory)}\n`);
      };
      const remembered = memory[tracker.name];
      const own = { ...run, directory, name, remembered, remember };
      return new Follower(tracker, own, { tell: safely(tell) });
    });
  }

  log(step: TrackedStep): void {
    for (const follower of this.followers) follower.log(step);
  }

  async end(state: 'finished' | 'stopped' | 'failed'): Promise<void> {
    await Promise.all(this.followers.map((follower) => follower.end(state)));
  }
}

/** What trackers remember, by their names. */
const MEMORY_FILE = 'trackers.json';

function readMemory(path: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return {};
    throw asIoError(error, `Reading ${path}`);
  }
  try {
    return { ...(JSON.parse(text) as object) };
  } catch (error) {
    throw new CheckpointError(`${path}: expected JSON, received something else.`, {
      hint: 'Remove it: trackers then begin anew.',
      cause: error,
    });
  }
}

/** The disk may be what fails: writing the metrics says so, and ends the run. */
function safely(tell: (sentence: string) => void): (sentence: string) => void {
  return (sentence) => {
    try {
      tell(sentence);
    } catch {
      // See above.
    }
  };
}

/** A stage lies one or two folders below its job. */
function nameOf(directory: string): string {
  const job = [dirname(directory), dirname(dirname(directory))].find((folder) =>
    existsSync(join(folder, 'config.json')),
  );
  return job === undefined ? basename(directory) : relative(dirname(job), directory);
}
