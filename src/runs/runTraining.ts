/** The loop around a trainer: metrics, samples, checkpoints, progress, and a clean end whatever ends it. */
import { join } from 'node:path';
import { synchronize } from '../torch/index.js';
import type { TrackedEnd, Tracker } from '../trackers/index.js';
import type { Trainer } from '../trainers/index.js';
import type { Checkpoint } from './checkpoints.js';
import { listenForStop, reportFailure, tellStatus, type StopListener } from './ending.js';
import { headline, Progress, type ProgressStream } from './progress.js';
import type { RunDirectory } from './runDirectory.js';
import { saveTrainer } from './trainerState.js';

/** Hears of every step; may answer with a sentence for people. */
export type StepListener = (
  step: number,
  metrics: Readonly<Record<string, number>>,
) => string | undefined;

/** What `runTraining` needs. */
export interface RunTrainingOptions {
  readonly trainer: Trainer;
  readonly directory: RunDirectory;
  /** Writes the model and its tokenizer into a folder that exists. */
  readonly saveModel: (folder: string) => Promise<void>;
  /** Steps between checkpoints; null writes one at the end only. */
  readonly checkpointEvery: number | null;
  /** How many of the newest checkpoints stay; null keeps all. */
  readonly keepCheckpoints: number | null;
  /** Steps between lines in log.txt. */
  readonly logEvery: number;
  /** Measures on held-out data; its metrics are logged as `eval/<name>`. */
  readonly evaluate?: (() => Promise<Record<string, number>>) | undefined;
  /** Steps between evaluations; null evaluates after the last step only. */
  readonly evalEvery?: number | null | undefined;
  /** The device whose work is waited for before a step is timed. */
  readonly device?: string | undefined;
  /** Where progress is shown; null shows none. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
  /** Ends the run after the step in progress. Without it, SIGINT and SIGTERM do while training goes on. */
  readonly signal?: AbortSignal | undefined;
  /** The checkpoint that the trainer was restored from; it is not written again. */
  readonly resumedFrom?: Checkpoint | undefined;
  /** Called before the first step of a new run. A sentence it returns is shown and logged. */
  readonly beforeTraining?: (() => Promise<string | undefined>) | undefined;
  /**
   * Called after the last step, before the model is saved for good. A sentence it returns is shown and logged.
   */
  readonly afterTraining?: (() => Promise<string | undefined>) | undefined;
  /** Called after each step with everything that was measured. A sentence it returns is shown and logged. */
  readonly onStep?: StepListener | undefined;
  /** Who is told of the run beside its directory. */
  readonly trackers?: readonly Tracker[] | undefined;
}

/** How a run ended. */
export interface RunResult {
  /** `stopped` when a signal ended it before its last step. */
  readonly state: 'finished' | 'stopped';
  /** The signal that stopped it, where one did. */
  readonly stoppedBy?: NodeJS.Signals | undefined;
  readonly directory: string;
  /** Folder of the model: `model` of the run when it finished, else that of the last checkpoint. */
  readonly model: string;
  readonly checkpoint: string;
  readonly step: number;
  readonly totalSteps: number;
  /** Seconds of this call. */
  readonly seconds: number;
  /** Metrics of the last step. */
  readonly metrics: Readonly<Record<string, number>>;
}

/**
 * Trains to the last step. Every step's metrics are on the disk before the next one begins; checkpoints hold the model,
 * its tokenizer and the trainer's state.
 *
 * The first SIGINT or SIGTERM ends the run after the step in progress, with a checkpoint; the second one kills the
 * process as it would without us. An error ends the run as it is: status.json and log.txt say why, nothing is saved, and
 * the last checkpoint is what it was.
 *
 * @throws NumericsError from the trainer when something is not finite; IoError when the disk fails
 */
export async function runTraining(options: RunTrainingOptions): Promise<RunResult> {
  const { trainer, directory } = options;
  const stop = listenForStop(options.signal, 'after this step and saves a checkpoint');
  const stream = options.progress === undefined ? process.stderr : options.progress;
  const progress =
    stream === null
      ? null
      : new Progress(stream, {
          label: trainer.method,
          total: trainer.totalSteps,
          start: trainer.step,
        });
  let end: TrackedEnd = 'failed';
  try {
    directory.follow(options.trackers ?? [], trainer.totalSteps, (sentence) =>
      tell(sentence, directory, progress),
    );
    const result = await trainToEnd(options, stop, progress);
    end = result.state;
    return result;
  } catch (error) {
    progress?.end();
    reportFailure(directory, trainer, error);
    throw error;
  } finally {
    progress?.end();
    stop.forget();
    await directory.endTracking(end);
    directory.close();
  }
}

async function trainToEnd(
  options: RunTrainingOptions,
  stop: StopListener,
  progress: Progress | null,
): Promise<RunResult> {
  const { trainer, directory, checkpointEvery, evalEvery = null } = options;
  const startedAt = performance.now();
  let metrics: Record<string, number> = {};
  let saved = options.resumedFrom;
  tellStatus(directory, trainer, 'running');
  directory.log(`Training from step ${trainer.step} to ${trainer.totalSteps}.`);
  if (trainer.step === 0) {
    const remark = await options.beforeTraining?.();
    if (remark !== undefined) tell(remark, directory, progress);
  }

  while (trainer.step < trainer.totalSteps && !stop.asked()) {
    metrics = await timedStep(options, progress);
    const isLast = trainer.step >= trainer.totalSteps;
    if (options.evaluate && (isLast || isDue(trainer.step, evalEvery))) {
      const found = await options.evaluate();
      for (const [name, value] of Object.entries(found)) metrics[`eval/${name}`] = value;
    }
    for (const warning of directory.writeMetrics(trainer.step, metrics)) progress?.message(warning);
    if (isLast || isDue(trainer.step, options.logEvery)) {
      directory.log(`step ${trainer.step}/${trainer.totalSteps} ${headline(metrics, 5)}`);
      tellStatus(directory, trainer, 'running');
    }
    progress?.update(trainer.step, headline(metrics, 2));
    const remark = options.onStep?.(trainer.step, metrics);
    if (remark !== undefined) tell(remark, directory, progress);
    if (!isLast && isDue(trainer.step, checkpointEvery)) saved = await save(options);
    // A trainer whose rewards answer at once never waits, and signals are only heard while nothing runs.
    await new Promise((resolve) => setImmediate(resolve));
  }

  const state = trainer.step >= trainer.totalSteps ? 'finished' : 'stopped';
  if (saved?.step !== trainer.step) {
    if (state === 'finished') {
      const remark = await options.afterTraining?.();
      if (remark !== undefined) tell(remark, directory, progress);
    }
    saved = await save(options);
  }
  const savedModel = join(saved.path, 'model');
  const model = state === 'finished' ? await directory.publishModel(savedModel) : savedModel;
  tellStatus(directory, trainer, state);
  const by = stop.signal();
  directory.log(
    state === 'finished' ? 'Finished.' : `Stopped${by === undefined ? '' : ` by ${by}`}.`,
  );
  return {
    state,
    ...(state === 'stopped' && by !== undefined && { stoppedBy: by }),
    directory: directory.path,
    model,
    checkpoint: saved.path,
    step: trainer.step,
    totalSteps: trainer.totalSteps,
    seconds: (performance.now() - startedAt) / 1000,
    metrics,
  };
}

async function timedStep(
  { trainer, directory, device }: RunTrainingOptions,
  progress: Progress | null,
): Promise<Record<string, number>> {
  const startedAt = performance.now();
  const report = await trainer.trainStep();
  if (device !== undefined && device !== 'cpu') synchronize(device);
  const stepSeconds = (performance.now() - startedAt) / 1000;
  for (const warning of report.warnings) tell(warning, directory, progress);
  directory.writeSamples(trainer.step, [
    ...report.samples,
    ...(report.pairs ?? []),
    ...(report.given ?? []),
  ]);
  const { tokens } = report.metrics;
  return {
    ...report.metrics,
    stepSeconds,
    ...(tokens !== undefined && { tokensPerSecond: tokens / stepSeconds }),
    peakResidentBytes: process.resourceUsage().maxRSS * 1024,
  };
}

function tell(sentence: string, directory: RunDirectory, progress: Progress | null): void {
  directory.log(sentence);
  progress?.message(sentence);
}

function isDue(step: number, every: number | null): boolean {
  return every !== null && step % every === 0;
}

function save(options: RunTrainingOptions): Promise<Checkpoint> {
  const { trainer, directory, saveModel, keepCheckpoints } = options;
  return directory.saveCheckpoint(
    trainer.step,
    async (folder) => {
      await saveModel(join(folder, 'model'));
      await saveTrainer(trainer, folder);
    },
    keepCheckpoints,
  );
}
