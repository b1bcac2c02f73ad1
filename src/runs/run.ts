/** A run that is built and waits to be trained, and what building one needs whatever its method. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError, ConfigError, UsageError, counted } from '../errors/index.js';
import { hubIdOf, isCommit, lastingName } from '../hub/index.js';
import { isAdapterFolder, openModelFolder, weightsSha256, type Decoder } from '../models/index.js';
import { AdamW, decayGroups, type ParameterGroup } from '../optim/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { Tensor } from '../torch/index.js';
import type { Tracker } from '../trackers/index.js';
import type { Trainer } from '../trainers/index.js';
import { listCheckpoints, type Checkpoint } from './checkpoints.js';
import { type ProgressStream } from './progress.js';
import {
  readRunRecord,
  RunDirectory,
  type RunDescription,
  type RunRecord,
} from './runDirectory.js';
import { runTraining, type RunResult, type StepListener } from './runTraining.js';
import { requireTrackers, trackersOf, type TrackSettings } from './tracking.js';
import { restoreTrainer } from './trainerState.js';

/** Where a run starts: at the beginning, or where an earlier one ended. */
export interface RunStart {
  /** config.json of the earlier run; undefined for a new one. */
  readonly record: RunRecord | undefined;
  /** Its newest whole checkpoint, where it has one. */
  readonly checkpoint: Checkpoint | undefined;
  /** Folder that model and tokenizer are loaded from. */
  readonly modelFolder: string;
  /** Of the model that was given, for config.json; undefined for a job that has several, and where it is gone. */
  readonly modelSha256: string | undefined;
  /** The base that was given for the adapter that the run starts from, for config.json; undefined where none was. */
  readonly base: string | undefined;
}

/** What says where a run starts. */
export interface StartOptions {
  readonly out: string;
  /** Empty for a job that has several. */
  readonly model: string;
  /**
   * Where `model` is an adapter: its base model, a folder or `org/name` of the Hub, where it is not what
   * adapter_config.json names.
   */
  readonly base?: string | undefined;
  readonly resume?: boolean | undefined;
}

/**
 * Looks where a run starts, and changes nothing.
 *
 * @throws CheckpointError if a run is to be resumed and there is none, one of another method, or one of another model:
 *   the reference would be another
 * @throws IoError if a new run's folder holds something already
 */
export async function findStart(method: string, options: StartOptions): Promise<RunStart> {
  const { out, model, resume = false } = options;
  if (!resume) {
    RunDirectory.assertFree(out);
    const modelFolder = model === '' ? model : await openModelFolder('train', model, options.base);
    const modelSha256 = model === '' ? undefined : await weightsSha256(modelFolder, '--model');
    const base = options.base === undefined ? undefined : lastingName(options.base);
    return { record: undefined, checkpoint: undefined, modelFolder, modelSha256, base };
  }
  const record = readRunRecord(out);
  if (record.method !== method) {
    throw new CheckpointError(
      `Resuming ${out}: expected a run of ${method}, received one of ${record.method}.`,
      { hint: `Resume it with \`posttrain train ${record.method}\`.` },
    );
  }
  const checkpoint = (await listCheckpoints(join(out, 'checkpoints'))).whole.at(-1);
  // A job that has several models opens each itself, with its base.
  const recorded = model === '' ? undefined : record.inputs['base'];
  const base = options.base ?? (typeof recorded === 'string' ? recorded : undefined);
  const modelFolder =
    checkpoint === undefined
      ? await openModelFolder('train', model, base)
      : await openCheckpoint(checkpoint, model, base);
  const modelSha256 = await sameModel(out, model, record.inputs['modelSha256']);
  const named = base === undefined ? undefined : lastingName(base);
  return { record, checkpoint, modelFolder, modelSha256, base: named };
}

/** The model of a checkpoint. An adapter stands on what the run is given now, which may have moved since it was saved. */
async function openCheckpoint(
  { path }: Checkpoint,
  model: string,
  base: string | undefined,
): Promise<string> {
  const folder = join(path, 'model');
  if (!isAdapterFolder(folder)) return folder;
  // A checkpoint may outlive the model that it came from.
  const isThere = model !== '' && (hubIdOf(model) !== undefined || existsSync(model));
  if (!isThere) return await openModelFolder('train', folder, base);
  const given = await openModelFolder('train', model, base);
  return await openModelFolder('train', folder, isAdapterFolder(given) ? base : given);
}

/** @returns the fingerprint that the run was started with */
async function sameModel(out: string, model: string, before: unknown): Promise<string | undefined> {
  if (typeof before !== 'string') return undefined;
  // A checkpoint may outlive the model that it came from, and is all that some methods need.
  if (!mayDiffer(model) || (await weightsSha256(model)) === before) return before;
  throw new CheckpointError(
    `Resuming ${out}: expected the model that the run was started with, received other weights in ${model}.`,
    { hint: 'Leave --model out, or start a new run from the last checkpoint.' },
  );
}

/** Whether a model is there to be compared. A commit of the Hub is what it was, and need not be there. */
function mayDiffer(model: string): boolean {
  const id = hubIdOf(model);
  return id === undefined ? existsSync(model) : !isCommit(id.revision);
}

/** Something that holds tensors. */
interface Loaded {
  dispose(): void;
}

/** Takes whatever a run loads, and gives it back. */
export type Keep = <Kept extends Loaded>(loaded: Kept) => Kept;

/**
 * Builds a run around what it loads. Where that fails, nothing stays loaded.
 *
 * @param build is given `keep`, to which it hands whatever it loads, and which returns it
 */
export async function buildOrFree<Built>(build: (keep: Keep) => Promise<Built>): Promise<Built> {
  const kept: Loaded[] = [];
  try {
    return await build((loaded) => {
      kept.push(loaded);
      return loaded;
    });
  } catch (error) {
    for (const loaded of kept) loaded.dispose();
    throw error;
  }
}

/** Settings of AdamW as every method has them. */
export interface OptimizerConfig {
  readonly weightDecay: number;
  readonly adamBeta1: number;
  readonly adamBeta2: number;
  readonly adamEpsilon: number;
}

/** AdamW over a model's parameters, without decay of norms and biases. */
export function buildOptimizer(
  model: { namedParameters(): ReadonlyMap<string, Tensor> },
  config: OptimizerConfig,
  further: readonly ParameterGroup[] = [],
): AdamW {
  return new AdamW([...decayGroups(model, config.weightDecay), ...further], {
    beta1: config.adamBeta1,
    beta2: config.adamBeta2,
    eps: config.adamEpsilon,
  });
}

/** What `train` may be told. */
export interface TrainOptions {
  /** Where progress is shown; null shows none. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
  /** Ends the run after the step in progress. Without it, SIGINT and SIGTERM do while training goes on. */
  readonly signal?: AbortSignal | undefined;
  /** Called after each step. A sentence it returns is shown and logged. */
  readonly onStep?: StepListener | undefined;
  /**
   * Who is told of the run beside its directory and the trackers of its settings. Those of a job of several stages are
   * told of the job; its stages have the trackers of the settings.
   */
  readonly trackers?: readonly Tracker[] | undefined;
}

/** The settings of a run that its loop reads. */
interface LoopConfig {
  readonly checkpointEvery: number | null;
  readonly keepCheckpoints: number | null;
  readonly logEvery: number;
  readonly evalEvery: number | null;
  readonly track: TrackSettings;
}

/** What a run asks of the model that it trains and saves. */
export interface TrainedModel {
  readonly device: string;
  save(folder: string): Promise<void>;
  dispose(): void;
}

/** What a run is built from. */
export interface RunParts<Method extends Trainer, Config, Model extends TrainedModel = Decoder> {
  readonly directory: RunDirectory;
  readonly trainer: Method;
  readonly config: Config;
  readonly model: Model;
  /** What trains it. Its state is freed with the model. */
  readonly optimizer: AdamW;
  readonly tokenizer: Tokenizer;
  readonly resumedFrom: Checkpoint | undefined;
  readonly evaluate?: (() => Promise<Record<string, number>>) | undefined;
  /** Called before the first step of a new run. A sentence it returns is shown and logged. */
  readonly beforeTraining?: (() => Promise<string | undefined>) | undefined;
  /** Called after the last step, before the model is saved for good. A sentence it returns is shown and logged. */
  readonly afterTraining?: (() => Promise<string | undefined>) | undefined;
  /** Frees what the run loaded beside its model. */
  readonly disposeOthers?: (() => void) | undefined;
}

/** A run: its directory, trainer, model and tokenizer. `train` does the work. */
export class Run<
  Method extends Trainer,
  Config extends LoopConfig,
  Model extends TrainedModel = Decoder,
> {
  /** Path of the run directory. */
  readonly directory: string;
  readonly trainer: Method;
  /** Resolved settings. */
  readonly config: Config;
  /** The model that is trained. */
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  private readonly parts: RunParts<Method, Config, Model>;
  private hasStarted = false;

  /** @internal Use `createSftRun`, `createGrpoRun`. */
  constructor(parts: RunParts<Method, Config, Model>) {
    this.parts = parts;
    this.directory = parts.directory.path;
    this.trainer = parts.trainer;
    this.config = parts.config;
    this.model = parts.model;
    this.tokenizer = parts.tokenizer;
  }

  /**
   * Trains to the last step; see `runTraining`. A run trains once: to go on after it was stopped, create it again with
   * `resume`.
   *
   * @throws UsageError at a second call; NumericsError when something is not finite; IoError when the disk fails
   */
  async train(options: TrainOptions = {}): Promise<RunResult> {
    if (this.hasStarted) {
      throw new UsageError(
        'Run.train: expected to be called once per run, received a second call.',
        {
          hint: 'Create the run again with resume: true to go on with it.',
        },
      );
    }
    this.hasStarted = true;
    const { directory, trainer, config, model, tokenizer, evaluate, resumedFrom } = this.parts;
    const { beforeTraining, afterTraining } = this.parts;
    return await runTraining({
      directory,
      trainer,
      ...config,
      evaluate,
      resumedFrom,
      device: model.device,
      progress: options.progress,
      signal: options.signal,
      saveModel: async (folder) => {
        await model.save(folder);
        await tokenizer.save(folder);
      },
      beforeTraining,
      afterTraining,
      onStep: options.onStep,
      trackers: trackersOf(config.track, options.trackers),
    });
  }

  /** Frees the models and the state of the optimizer. What was written stays. */
  dispose(): void {
    this.parts.directory.close();
    this.parts.optimizer.dispose();
    this.model.dispose();
    this.parts.disposeOthers?.();
  }
}

/**
 * Makes the directory of a new run, or opens that of an earlier one and takes its trainer back to its checkpoint.
 *
 * @throws as `RunDirectory.create`, `RunDirectory.resume`, `requireTrackers` and `restoreTrainer` do; ConfigError where a finished run is
 *   given other settings, which no step of it would use
 */
export async function openDirectory(
  out: string,
  start: RunStart,
  { inputs: given, ...method }: RunDescription & { readonly config: { track: TrackSettings } },
  trainer: Trainer,
): Promise<{ directory: RunDirectory; resumedFrom: Checkpoint | undefined }> {
  const { modelSha256, base } = start;
  const inputs = {
    ...given,
    ...(base !== undefined && { base }),
    ...(modelSha256 !== undefined && { modelSha256 }),
  };
  const description = { ...method, inputs };
  requireTrackers(method.config.track);
  if (start.record === undefined) {
    return { directory: await RunDirectory.create(out, description), resumedFrom: undefined };
  }
  // First, because a trainer that does not fit must leave the directory as it is.
  if (start.checkpoint !== undefined) restoreTrainer(trainer, start.checkpoint.path);
  requireWork(out, start.record, description, trainer);
  const { directory } = await RunDirectory.resume(out, description);
  return { directory, resumedFrom: start.checkpoint };
}

/** A finished run may be resumed: nothing happens. config.json must not tell then of settings that no step has used. */
function requireWork(
  out: string,
  record: RunRecord,
  { config }: RunDescription,
  { step, totalSteps }: Trainer,
): void {
  if (step < totalSteps) return;
  const changed = Object.entries(config).find(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(record.config[name]),
  );
  if (changed === undefined) return;
  throw new ConfigError(
    `Resuming ${out}: expected the settings of the run, which is finished after ${counted(totalSteps, 'step')}, received another ${changed[0]}.`,
    {
      hint: `Nothing is left to train with it. More steps make a run go on; for other settings start a new one from ${join(out, 'model')}.`,
    },
  );
}
