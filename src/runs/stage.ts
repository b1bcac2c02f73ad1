/** A run that is a part of a job: begun, gone on with or left as it is, whatever an earlier process did of it. */
import { existsSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { StopListener } from './ending.js';
import { asIoError } from './files.js';
import type { ProgressStream } from './progress.js';
import { readRunStatus } from './runDirectory.js';
import type { TrainOptions } from './run.js';

/** What goes on while a job trains. */
export interface Course {
  readonly stop: StopListener;
  readonly stream: ProgressStream | null;
}

/** A run of any method. */
export interface StageRun {
  train(options: TrainOptions): Promise<{ readonly state: 'finished' | 'stopped' }>;
  dispose(): void;
}

/**
 * Trains a run of a job to its end, unless an earlier process did.
 *
 * @param out its run directory
 * @param create makes the run, or goes on with the one in `out` where `resume` says so
 * @returns `stopped` where the job was asked to end first
 * @throws as `create` and the training do
 */
export async function trainStage(
  out: string,
  { stop, stream }: Course,
  create: (resume: boolean) => Promise<StageRun>,
): Promise<'finished' | 'stopped'> {
  const isBegun = existsSync(join(out, 'config.json'));
  const isDone = readRunStatus(out)?.state === 'finished' && existsSync(join(out, 'model'));
  if (isDone) return 'finished';
  // A process that was killed before it wrote what the run is may have left an empty folder.
  if (!isBegun) await removeFolder(out);
  const run = await create(isBegun);
  try {
    return (await run.train({ progress: stream, signal: stop.abort })).state;
  } finally {
    run.dispose();
  }
}

async function removeFolder(folder: string): Promise<void> {
  try {
    await rm(folder, { recursive: true, force: true });
  } catch (error) {
    throw asIoError(error, `Removing ${folder}`);
  }
}

/**
 * The lines of a run's metrics.jsonl, from the first step to the last. What is not a number is left out.
 *
 * @throws IoError if the file cannot be read
 */
export function readMetrics(path: string): Record<string, number>[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw asIoError(error, `Reading ${path}`);
  }
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => {
    const entries = Object.entries(JSON.parse(line) as Record<string, unknown>);
    return Object.fromEntries(
      entries.filter((entry): entry is [string, number] => typeof entry[1] === 'number'),
    );
  });
}
