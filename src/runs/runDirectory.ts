/**
 * The folder of a run. Everything in it can be read while the run goes on; docs/run-format.md has the schema:
 *
 *     config.json             method, resolved settings, inputs, versions, seed, commit, command
 *     metrics.jsonl           one line per step
 *     samples.jsonl           completions with their per-token streams; samples-000001.jsonl … what was put aside
 *     status.json             running, finished, stopped or failed; process and step
 *     log.txt                 what happened, with times
 *     events.out.tfevents.…   the metrics for TensorBoard
 *     checkpoints/step-N      whole checkpoints
 *     model                   the model at the end of the run
 *
 * Knows files, not trainers.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { link, copyFile, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { CheckpointError, IoError } from '../errors/index.js';
import {
  listCheckpoints,
  removeUnfinished,
  writeCheckpoint,
  type Checkpoint,
} from './checkpoints.js';
import { makeFolder } from '../hub/index.js';
import { gitCommit, versions, type Versions } from './environment.js';
import { asIoError, cutLines, LineFile, overwriteFile, replaceFile, systemCode } from './files.js';
import { cutSamples, DEFAULT_SAMPLES_MEGABYTES, SampleFiles } from './sampleFiles.js';
import type { TrackedEnd, Tracker } from '../trackers/index.js';
import { EventWriter } from './tensorboard.js';
import { Tracking } from './tracking.js';

/** What a run is: the method, its settings and what it works on. */
export interface RunDescription {
  readonly method: string;
  /** Resolved settings. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Model, data, rewards: whatever the settings do not name, as JSON. */
  readonly inputs: Readonly<Record<string, unknown>>;
}

/** Of the schema of a run folder. 1 had the rewards of a sample behind its tokens. */
export const RUN_FORMAT_VERSION = 2;

/** Contents of config.json. */
export interface RunRecord extends RunDescription {
  /** Missing in runs of before 2. */
  readonly formatVersion?: number;
  readonly versions: Versions;
  readonly seed: number;
  readonly commit: string | null;
  readonly command: readonly string[];
  readonly started: string;
  /** Each time the run went on after an end. */
  readonly resumed?: readonly {
    readonly time: string;
    readonly fromStep: number;
    readonly command: readonly string[];
    readonly versions: Versions;
    readonly commit: string | null;
    /** Settings that differ from before. */
    readonly changed: readonly string[];
  }[];
}

/** How a run stands. */
export type RunState = 'running' | 'finished' | 'stopped' | 'failed';

/** Contents of status.json. */
export interface RunStatus {
  readonly state: RunState;
  readonly step: number;
  readonly totalSteps: number;
  /** What ended the run, where it failed. */
  readonly message?: string | undefined;
  /** Code of the error that ended the run, where it failed. */
  readonly code?: string | undefined;
  readonly pid: number;
  readonly host: string;
  readonly updated: string;
}

/** The folder of one run, open for writing. */
export class RunDirectory {
  readonly path: string;
  private readonly metrics: LineFile;
  private readonly samples: SampleFiles;
  private readonly logFile: LineFile;
  private readonly events: EventWriter;
  private readonly warned = new Set<string>();
  private readonly record: RunRecord;
  private readonly isResumed: boolean;
  private tracking: Tracking | undefined;

  private constructor(path: string, record: RunRecord, restartStep?: number) {
    const { config } = record;
    this.path = path;
    this.record = record;
    this.isResumed = restartStep !== undefined;
    this.metrics = new LineFile(join(path, 'metrics.jsonl'));
    const megabytes = config['samplesMegabytes'];
    this.samples = new SampleFiles(
      path,
      typeof megabytes === 'number' ? megabytes : DEFAULT_SAMPLES_MEGABYTES,
    );
    this.logFile = new LineFile(join(path, 'log.txt'));
    this.events = new EventWriter(path, restartStep);
  }

  /**
   * Makes the folder of a new run and writes config.json.
   *
   * @throws IoError if the folder holds something already, or cannot be written
   */
  static async create(path: string, description: RunDescription): Promise<RunDirectory> {
    RunDirectory.assertFree(path);
    try {
      makeFolder(join(path, 'checkpoints'));
    } catch (error) {
      throw asIoError(error, `Making the run directory ${path}`);
    }
    const record: RunRecord = {
      formatVersion: RUN_FORMAT_VERSION,
      ...description,
      versions: versions(),
      seed: Number(description.config['seed'] ?? 0),
      commit: await gitCommit(),
      command: process.argv,
      started: new Date().toISOString(),
    };
    writeRecord(path, record);
    return new RunDirectory(path, record);
  }

  /**
   * Checks that a new run may have this folder: that it does not exist, or is empty but for `inputs`, which are what the
   * run will read.
   *
   * @throws IoError if it holds something, or is no folder
   */
  static assertFree(path: string): void {
    let present: string[];
    try {
      present = readdirSync(path);
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return;
      throw asIoError(error, `Making the run directory ${path}`);
    }
    if (present.every((name) => name === 'inputs')) return;
    const isRun = present.includes('config.json') && present.includes('checkpoints');
    throw new IoError(
      `Making the run directory ${path}: expected a new or empty folder, but it holds ${isRun ? 'a run' : present.slice(0, 3).join(', ')} already.`,
      {
        hint: isRun
          ? 'Go on with it by --resume, or choose another folder.'
          : 'Choose another folder.',
      },
    );
  }

  /**
   * Opens the folder of an earlier run to go on from its newest whole checkpoint, or from the beginning where it has
   * none. What metrics.jsonl and samples.jsonl hold of later steps is cut off: those steps come again.
   *
   * @throws CheckpointError if there is no run, it is of another method, or a process that is alive writes to it
   * @throws IoError if the folder cannot be read or written
   */
  static async resume(
    path: string,
    description: RunDescription,
  ): Promise<{ directory: RunDirectory; checkpoint: Checkpoint | undefined }> {
    const record = readRunRecord(path);
    if (record.method !== description.method) {
      throw new CheckpointError(
        `Resuming ${path}: expected a run of ${description.method}, received one of ${record.method}.`,
        { hint: `Resume it with \`posttrain train ${record.method}\`.` },
      );
    }
    refuseIfAlive(path);
    const folder = join(path, 'checkpoints');
    await removeUnfinished(folder);
    const { whole, torn } = await listCheckpoints(folder);
    const checkpoint = whole.at(-1);
    const step = checkpoint?.step ?? 0;

    const metricsCut = cutLines(join(path, 'metrics.jsonl'), (line) => stepOf(line) > step);
    const samplesCut = cutSamples(path, (line) => stepOf(line) > step);
    const changed = changedSettings(record.config, description.config);
    const again = {
      time: new Date().toISOString(),
      fromStep: step,
      command: process.argv,
      versions: versions(),
      commit: await gitCommit(),
      changed,
    };
    const now = { ...record, ...description, resumed: [...(record.resumed ?? []), again] };
    writeRecord(path, now);

    const directory = new RunDirectory(path, now, step + 1);
    directory.log(
      checkpoint === undefined
        ? 'Resumed from the beginning: there is no whole checkpoint.'
        : `Resumed from ${checkpoint.path}.`,
    );
    for (const { path: ignored, reason } of torn) directory.log(`Ignored ${ignored}: ${reason}.`);
    for (const change of changed) directory.log(`Changed ${change}.`);
    if (metricsCut + samplesCut > 0) {
      directory.log(
        `Cut off ${metricsCut} lines of metrics.jsonl and ${samplesCut} of samples.jsonl after step ${step}; these steps are trained again.`,
      );
    }
    return { directory, checkpoint };
  }

  /** Folder of the model that the run ended with; exists once the run has finished. */
  get modelPath(): string {
    return join(this.path, 'model');
  }

  /**
   * Appends the metrics of one step. A value that is not finite is written as null, and told once per name.
   *
   * @returns a warning for each metric that is not finite for the first time
   * @throws IoError if they cannot be written
   */
  writeMetrics(step: number, values: Readonly<Record<string, number>>): string[] {
    const warnings: string[] = [];
    const finite: Record<string, number | null> = {};
    for (const [name, value] of Object.entries(values)) {
      finite[name] = Number.isFinite(value) ? value : null;
      if (Number.isFinite(value) || this.warned.has(name)) continue;
      this.warned.add(name);
      warnings.push(`Metric ${name} is ${value} at step ${step}; it is written as null.`);
    }
    const time = new Date();
    this.metrics.append(`${JSON.stringify({ step, time: time.toISOString(), ...finite })}\n`);
    this.events.scalars(step, values, time);
    this.tracking?.log({ step, time, metrics: values });
    for (const warning of warnings) this.log(warning);
    return warnings;
  }

  /**
   * Appends samples of one step, one line each.
   *
   * @throws IoError if they cannot be written
   */
  writeSamples(step: number, samples: readonly object[]): void {
    this.samples.append(step, samples);
  }

  /**
   * Appends a line to log.txt.
   *
   * @throws IoError if it cannot be written
   */
  log(line: string): void {
    this.logFile.append(`${new Date().toISOString()} ${line}\n`);
  }

  /**
   * Writes status.json. That a run has failed is said on a full disk too: over the status that was there.
   *
   * @throws IoError if it cannot be written
   */
  writeStatus(status: Pick<RunStatus, 'state' | 'step' | 'totalSteps' | 'message' | 'code'>): void {
    const own = { pid: process.pid, host: hostname(), updated: new Date().toISOString() };
    const text = `${JSON.stringify({ ...status, ...own })}\n`;
    const path = join(this.path, 'status.json');
    try {
      replaceFile(path, text);
    } catch (error) {
      if (status.state !== 'failed') throw error;
      overwriteFile(path, text);
    }
  }

  /**
   * Writes the checkpoint of a step, and then removes the oldest ones beyond `keep` (null keeps all).
   *
   * @throws IoError if it cannot be written; earlier checkpoints are intact
   */
  async saveCheckpoint(
    step: number,
    write: (folder: string) => Promise<void>,
    keep: number | null,
  ): Promise<Checkpoint> {
    this.metrics.sync();
    this.samples.sync();
    const checkpoint = await writeCheckpoint(join(this.path, 'checkpoints'), step, write, keep);
    this.log(`Saved ${checkpoint.path}.`);
    return checkpoint;
  }

  /**
   * Makes `model` out of a checkpoint's model folder, sharing the bytes on the disk where that is possible.
   *
   * @throws IoError if it cannot be written
   */
  async publishModel(modelFolder: string): Promise<string> {
    const temporary = join(this.path, `.tmp-model-${process.pid}`);
    try {
      await rm(temporary, { recursive: true, force: true });
      await linkTree(modelFolder, temporary);
      await rm(this.modelPath, { recursive: true, force: true });
      await rename(temporary, this.modelPath);
    } catch (error) {
      await rm(temporary, { recursive: true, force: true });
      throw asIoError(error, `Writing ${this.modelPath}`);
    }
    return this.modelPath;
  }

  /**
   * Lets trackers follow the metrics from now on. They are never waited for, and what goes wrong with them is told.
   *
   * @param tell tells people a sentence
   */
  follow(trackers: readonly Tracker[], totalSteps: number, tell: (sentence: string) => void): void {
    const { method, config, inputs, seed, commit, started, resumed } = this.record;
    const { fromStep, changed = [] } = (this.isResumed ? resumed?.at(-1) : undefined) ?? {};
    this.tracking = new Tracking(
      trackers,
      {
        ...{ directory: this.path, method, config, inputs, seed, commit, started, totalSteps },
        ...{ resumedFrom: fromStep, changed },
      },
      tell,
    );
  }

  /** Tells trackers how the run ended, and waits a limited time until they have everything. */
  async endTracking(state: TrackedEnd): Promise<void> {
    await this.tracking?.end(state);
    this.tracking = undefined;
  }

  /** Ends writing. */
  close(): void {
    for (const file of [this.metrics, this.samples, this.logFile, this.events]) file.close();
  }
}

/** Makes a folder out of another one, sharing the bytes on the disk where that is possible. */
export async function linkTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const name of await readdir(from, { recursive: true })) {
    const source = join(from, name);
    const target = join(to, name);
    if ((await stat(source)).isDirectory()) await mkdir(target, { recursive: true });
    // Some file systems have no hard links.
    else await link(source, target).catch(() => copyFile(source, target));
  }
}

/**
 * The record of a run.
 *
 * @throws CheckpointError if the folder holds no run, or its config.json is malformed
 */
export function readRunRecord(path: string): RunRecord {
  const file = join(path, 'config.json');
  if (!existsSync(file)) {
    throw new CheckpointError(`${path}: expected a run directory, but it has no config.json.`, {
      hint: 'Leave out --resume to start a run, or give the folder of one.',
    });
  }
  try {
    const record: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (isRunRecord(record)) return record;
  } catch (error) {
    throw new CheckpointError(`${file}: expected JSON, but it cannot be read.`, { cause: error });
  }
  throw new CheckpointError(`${file}: expected method, config and inputs of a run.`);
}

function isRunRecord(value: unknown): value is RunRecord {
  if (typeof value !== 'object' || value === null) return false;
  const { method, config, inputs } = value as Partial<Record<keyof RunRecord, unknown>>;
  const isObject = (part: unknown): boolean => typeof part === 'object' && part !== null;
  return typeof method === 'string' && isObject(config) && isObject(inputs);
}

/** How a run stands; undefined where it has not said yet. */
export function readRunStatus(path: string): RunStatus | undefined {
  try {
    return JSON.parse(readFileSync(join(path, 'status.json'), 'utf8')) as RunStatus;
  } catch {
    return undefined;
  }
}

function writeRecord(path: string, record: RunRecord): void {
  replaceFile(join(path, 'config.json'), `${JSON.stringify(record, undefined, 2)}\n`);
}

function refuseIfAlive(path: string): void {
  const status = readRunStatus(path);
  if (status?.state !== 'running' || status.host !== hostname() || status.pid === process.pid)
    return;
  try {
    process.kill(status.pid, 0);
  } catch {
    return;
  }
  throw new CheckpointError(
    `Resuming ${path}: expected a run that has ended, but process ${status.pid} writes to it.`,
    { hint: `Stop it first: kill -INT ${status.pid}` },
  );
}

/** The step of a line of metrics or samples; infinite where the line is not one. */
function stepOf(line: string): number {
  const digits = /^\{"step":(\d+)[,}]/.exec(line)?.[1];
  return digits === undefined ? Infinity : Number(digits);
}

/** `key: before → now` of every setting that differs. */
function changedSettings(
  before: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
): string[] {
  const keys = [...new Set([...Object.keys(before), ...Object.keys(now)])];
  return keys.flatMap((key) => {
    const [old, fresh] = [JSON.stringify(before[key]), JSON.stringify(now[key])];
    return old === fresh ? [] : [`${key}: ${old} → ${fresh}`];
  });
}
