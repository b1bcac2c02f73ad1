/** From a model to one that people prefer: fine-tuning, preferences, a reward model, reinforcement. Resumable at every point. */
import {
  parseConfig,
  RlhfConfig,
  type ConfigSource,
  type RlhfConfigInput,
} from '../config/index.js';
import { validateRows, type DataFormatName } from '../data/index.js';
import { ConfigError, UsageError } from '../errors/index.js';
import { lastingName } from '../hub/index.js';
import { baseFolderOf, openModelFolder, tokenizerFolderOf } from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import type { TrackedEnd } from '../trackers/index.js';
import { listenForStop, reportFailure, tellStatus, type StopListener } from './ending.js';
import { readOnPolicyInputs, type OnPolicyInputs } from './onPolicyInputs.js';
import type { ProgressStream } from './progress.js';
import { rewardModelFolders } from './rewardSources.js';
import { measureModels } from './rlhfMeasure.js';
import {
  fingerprints,
  readRlhfRecord,
  requireSameStage,
  requireUntouched,
  withStage,
  writeRlhfRecord,
  type RlhfMeasurement,
  type RlhfRecord,
  type RlhfStageRecord,
} from './rlhfRecord.js';
import { describeNumbers } from './rlhfReport.js';
import {
  finalModel,
  requireSameTokenizer,
  rlhfStages,
  sftModel,
  type RlhfContext,
  type RlhfData,
  type RlhfSources,
  type RlhfStage,
} from './rlhfStages.js';
import { findStart, type TrainOptions } from './run.js';
import { RunDirectory } from './runDirectory.js';
import { readRunData, settingsOf, type RewardLike, type RunData } from './runInputs.js';
import type { RunResult } from './runTraining.js';
import type { Course } from './stage.js';
import { requireTrackers, trackersOf } from './tracking.js';

/** A reward as the pipeline takes it. */
export type RlhfReward = RewardLike<Readonly<Record<string, unknown>>>;

/** What `createRlhfRun` needs. Inputs may stand in the settings too, under `inputs`; what is given here is stronger. */
export interface RlhfRunOptions {
  /** Folder of the model that everything begins with, and its tokenizer. */
  readonly model?: string | undefined;
  /** Where `model` is an adapter: its base model, a folder or `org/name`, where it is not what adapter_config.json names. */
  readonly base?: string | undefined;
  /** Rows to fine-tune on. Not needed where `sft` is null. */
  readonly demonstrations?: RunData | undefined;
  /** Rows `{prompt}` that are sampled. Not needed by dpo on preferences of people. */
  readonly prompts?: RunData | undefined;
  /** Rows `{prompt, chosen, rejected}` that people made, in the place of an annotator. */
  readonly preferences?: RunData | undefined;
  /** Held-out rows `{prompt}`, on which the models are compared at the end. */
  readonly evalPrompts?: RunData | undefined;
  /** The reward by which completions are ranked: a function or a specification. */
  readonly annotator?: RlhfReward | undefined;
  /** The true reward where it is known, measured on `evalPrompts`. No stage trains on it. */
  readonly evalReward?: RlhfReward | undefined;
  /** The run directory; must be new, unless the run is resumed. It may hold a folder `inputs`. */
  readonly out: string;
  readonly config?: RlhfConfigInput | ConfigSource | undefined;
  /** Goes on at the first stage that is not finished. */
  readonly resume?: boolean | undefined;
  /** Where it is told what was read; null tells nothing. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
}

/** How a pipeline ended. Its steps are stages; the model is the newest there is. */
export interface RlhfResult extends Omit<RunResult, 'checkpoint' | 'metrics'> {
  /** The stages of this pipeline that were begun, in order. */
  readonly stages: readonly RlhfStageRecord[];
  /** The models side by side; null where there are no held-out prompts, or the pipeline is not finished. */
  readonly measurements: readonly RlhfMeasurement[] | null;
}

/**
 * A pipeline, ready to `train`. Inputs and settings are checked before anything is written, and of a pipeline that is
 * resumed the artefacts of finished stages too.
 *
 * @throws ConfigError, DataError, RewardError, CheckpointError or IoError with what was expected and received
 */
export async function createRlhfRun(options: RlhfRunOptions): Promise<RlhfRun> {
  const { out, progress = process.stderr } = options;
  const start = await findStart('rlhf', { ...options, model: '', base: undefined });
  const given = settingsOf(options.config, start.record, 'createRlhfRun');
  const config = parseConfig(RlhfConfig, given);
  const sources = await readSources(options, config, progress);
  const context = { out, config, sources };
  const stages = rlhfStages(context);
  const record = start.record === undefined ? { stages: [] } : readRlhfRecord(out);
  await requireSameBefore(out, stages, record);
  requireTrackers(config.track);
  const description = { method: 'rlhf', config, inputs: inputRecord(sources) };
  const directory =
    start.record === undefined
      ? await RunDirectory.create(out, description)
      : (await RunDirectory.resume(out, description)).directory;
  if (start.record === undefined) writeRlhfRecord(out, record);
  return new RlhfRun({ directory, context, stages, record });
}

/** Compares the stages that were begun with what they would be now, up to the first one that is not finished. */
async function requireSameBefore(
  out: string,
  stages: readonly RlhfStage[],
  record: RlhfRecord,
): Promise<void> {
  for (const stage of stages) {
    const before = record.stages.find(({ name }) => name === stage.name);
    if (before === undefined) return;
    const isFinished = before.state === 'finished';
    const now = { settings: stage.settings, inputs: await stage.inputs() };
    requireSameStage(before, now, isFinished || stage.isOfOnePiece);
    if (!isFinished) return;
    await requireUntouched(out, before);
  }
}

async function readSources(
  options: RlhfRunOptions,
  config: RlhfConfig,
  progress: ProgressStream | null,
): Promise<RlhfSources> {
  const { inputs } = config;
  const read = async (
    name: 'demonstrations' | 'prompts' | 'preferences' | 'evalPrompts',
    formats: readonly DataFormatName[],
  ): Promise<RlhfData | undefined> => {
    const from = options[name] ?? inputs[name] ?? undefined;
    if (from === undefined) return undefined;
    const { rows, record } = await readRunData(from);
    validateRows(rows, formats);
    return { from, rows, record };
  };
  const model = options.model ?? inputs.model ?? undefined;
  const annotator = options.annotator ?? inputs.annotator ?? undefined;
  const evalReward = options.evalReward ?? inputs.evalReward ?? undefined;
  const hasPreferences = (options.preferences ?? inputs.preferences) !== null;
  const base = options.base ?? inputs.base ?? undefined;
  requireInputs(config, {
    model: model !== undefined,
    base: base !== undefined,
    annotator: annotator !== undefined,
    evalReward: evalReward !== undefined,
    preferences: hasPreferences,
    demonstrations: (options.demonstrations ?? inputs.demonstrations) !== null,
    prompts: (options.prompts ?? inputs.prompts) !== null,
    evalPrompts: (options.evalPrompts ?? inputs.evalPrompts) !== null,
  });
  if (typeof evalReward === 'string' && evalReward.startsWith('model:')) {
    throw new ConfigError(
      `evalReward: expected a function, a file or a built-in reward, received ${evalReward}.`,
      { hint: 'A reward model is no true reward. Its own score is reported anyway.' },
    );
  }
  const folder = model ?? '';
  baseFolderOf(await openModelFolder('train', folder, base), 'train');
  const tokenizer = await loadTokenizer(tokenizerFolderOf(folder));
  const prompted = ['prompt-only', 'prompt-completion'] as const;
  const sources = {
    ...{ model: folder, base, tokenizer, annotator, evalReward },
    demonstrations: await read('demonstrations', ['language-modeling', 'prompt-completion']),
    prompts: await read('prompts', prompted),
    preferences: await read('preferences', ['preference']),
    evalPrompts: await read('evalPrompts', prompted),
    annotation: undefined,
  };
  if (annotator === undefined) return sources;
  for (const judge of rewardModelFolders([annotator]))
    await requireSameTokenizer('annotator', sources, judge);
  return { ...sources, annotation: await readAnnotation(options, config, sources, progress) };
}

/** Prompts and annotator, checked as those of an on-policy run are. */
async function readAnnotation(
  { out }: RlhfRunOptions,
  { preferences }: RlhfConfig,
  { model, prompts, annotator, tokenizer }: RlhfSources,
  progress: ProgressStream | null,
): Promise<OnPolicyInputs> {
  const rewards = annotator === undefined ? [] : [annotator];
  return readOnPolicyInputs(
    { model, out, progress, data: prompts?.from ?? [], rewards },
    { ...preferences, rewardWeights: {}, maxTurns: 1 },
    {
      start: {
        record: undefined,
        checkpoint: undefined,
        modelFolder: model,
        modelSha256: undefined,
        base: undefined,
      },
      tokenizer,
    },
  );
}

type InputName = keyof RlhfConfig['inputs'];

/** What a pipeline of these settings must be given, and what it must not. */
function requireInputs(
  { sft, method }: RlhfConfig,
  given: Readonly<Record<InputName, boolean>>,
): void {
  const demand = (name: InputName, why: string): void => {
    if (given[name]) return;
    throw new ConfigError(`inputs.${name}: expected ${why}, received nothing.`, {
      hint: `Set inputs.${name}, or give it as an option of the command.`,
    });
  };
  demand('model', 'the folder of a model with its tokenizer');
  if (sft !== null) demand('demonstrations', 'rows to fine-tune on, because sft is not null');
  if (given.annotator && given.preferences) {
    throw new ConfigError(
      'inputs.annotator: expected nothing beside inputs.preferences, received both.',
      { hint: 'Preferences are either made by people or by an annotator.' },
    );
  }
  if (!given.preferences) demand('annotator', 'a reward to rank by, or inputs.preferences');
  if (!given.preferences || method !== 'dpo') demand('prompts', 'rows {prompt} to sample from');
  if (given.evalReward) demand('evalPrompts', 'held-out rows {prompt} beside evalReward');
}

function inputRecord(sources: RlhfSources): Record<string, unknown> {
  const { model, base, demonstrations, prompts, preferences, evalPrompts } = sources;
  const named = (reward: RlhfReward | undefined): string | null => {
    if (reward === undefined) return null;
    return typeof reward === 'string' ? reward : reward.name;
  };
  return {
    model: lastingName(model),
    ...(base !== undefined && { base: lastingName(base) }),
    demonstrations: demonstrations?.record ?? null,
    prompts: prompts?.record ?? null,
    preferences: preferences?.record ?? null,
    evalPrompts: evalPrompts?.record ?? null,
    annotator: named(sources.annotator),
    evalReward: named(sources.evalReward),
  };
}

interface RlhfParts {
  readonly directory: RunDirectory;
  readonly context: RlhfContext;
  readonly stages: readonly RlhfStage[];
  readonly record: RlhfRecord;
}

/** A pipeline. `train` does the work. */
export class RlhfRun {
  /** Path of the run directory. */
  readonly directory: string;
  /** Resolved settings. */
  readonly config: RlhfConfig;
  private readonly parts: RlhfParts;
  private record: RlhfRecord;
  private hasStarted = false;

  /** @internal Use `createRlhfRun`. */
  constructor(parts: RlhfParts) {
    this.parts = parts;
    this.directory = parts.directory.path;
    this.config = parts.context.config;
    this.record = parts.record;
  }

  /**
   * Works through the stages. SIGINT, SIGTERM or the given signal end it after the step or the completions in progress;
   * what was done is on the disk, and the pipeline goes on with `resume`. A pipeline trains once.
   *
   * @throws UsageError at a second call; and as the stages do
   */
  async train(options: TrainOptions = {}): Promise<RlhfResult> {
    if (this.hasStarted) {
      throw new UsageError(
        'RlhfRun.train: expected to be called once per run, received a second call.',
        { hint: 'Create the run again with resume: true to go on with it.' },
      );
    }
    this.hasStarted = true;
    const { directory } = this.parts;
    const stop = listenForStop(options.signal, 'soon; what was done is saved');
    const stream = options.progress === undefined ? process.stderr : options.progress;
    let end: TrackedEnd = 'failed';
    try {
      const trackers = trackersOf(this.config.track, options.trackers);
      directory.follow(trackers, this.position().totalSteps, (text) => this.tell(text, stream));
      const result = await this.work({ stop, stream }, options.onStep);
      end = result.state;
      return result;
    } catch (error) {
      reportFailure(directory, this.position(), error);
      throw error;
    } finally {
      stop.forget();
      await directory.endTracking(end);
      directory.close();
    }
  }

  /** Ends writing. Models were freed when they were no longer needed; what was written stays. */
  dispose(): void {
    this.parts.directory.close();
  }

  private recordOf(name: string): RlhfStageRecord | undefined {
    return this.record.stages.find((stage) => stage.name === name);
  }

  private isFinished({ name }: RlhfStage): boolean {
    return this.recordOf(name)?.state === 'finished';
  }

  private position(): { step: number; totalSteps: number } {
    const { stages } = this.parts;
    const open = stages.findIndex((stage) => !this.isFinished(stage));
    return { step: open === -1 ? stages.length : open, totalSteps: stages.length };
  }

  private async work(course: Course, onStep: TrainOptions['onStep']): Promise<RlhfResult> {
    const { directory, stages, context } = this.parts;
    const { stop, stream } = course;
    const startedAt = performance.now();
    tellStatus(directory, this.position(), 'running');
    for (const [index, stage] of stages.entries()) {
      if (this.isFinished(stage)) {
        // Resuming cut the lines of all stages off.
        directory.writeMetrics(index + 1, this.metricsOf(stage));
        continue;
      }
      if (stop.asked()) break;
      this.tell(`Stage ${index + 1} of ${stages.length}: ${stage.folder}`, stream);
      if (!(await this.workOn(stage, course))) break;
      const metrics = this.metricsOf(stage);
      directory.writeMetrics(index + 1, metrics);
      this.tell(
        `${stage.folder} finished: ${describeNumbers(this.recordOf(stage.name)?.numbers ?? {})}`,
        stream,
      );
      for (const warning of this.recordOf(stage.name)?.warnings ?? []) this.tell(warning, stream);
      const remark = onStep?.(index + 1, metrics);
      if (remark !== undefined) this.tell(remark, stream);
      tellStatus(directory, this.position(), 'running');
    }
    const { step, totalSteps } = this.position();
    if (step === totalSteps && !stop.asked()) {
      const measurements = await measureModels(context, () => stop.asked());
      if (measurements) this.save({ ...this.record, measurements });
    }
    return await this.end(stop, (performance.now() - startedAt) / 1000);
  }

  private async workOn(stage: RlhfStage, course: Course): Promise<boolean> {
    const { name, folder, settings } = stage;
    const before = this.recordOf(name);
    const startedAt = performance.now();
    const begun: RlhfStageRecord = {
      ...{ name, folder, state: 'begun', settings },
      inputs: await stage.inputs(),
      ...{ outputs: {}, numbers: {}, warnings: [], seconds: before?.seconds ?? 0 },
    };
    this.save(withStage(this.record, begun));
    const outcome = await stage.work(course, (other) => this.recordOf(other)?.numbers ?? {});
    const seconds = begun.seconds + (performance.now() - startedAt) / 1000;
    if (outcome === undefined) {
      this.save(withStage(this.record, { ...begun, seconds }));
      return false;
    }
    const outputs = await fingerprints(`${this.directory}/${folder}`, stage.outputs);
    const finished = { ...begun, ...outcome, outputs, seconds, state: 'finished' } as const;
    this.save(withStage(this.record, finished));
    return true;
  }

  private metricsOf({ name }: RlhfStage): Record<string, number> {
    const numbers = Object.entries(this.recordOf(name)?.numbers ?? {});
    return Object.fromEntries(numbers.map(([key, value]) => [`${name}/${key}`, value]));
  }

  private save(record: RlhfRecord): void {
    this.record = record;
    writeRlhfRecord(this.directory, record);
  }

  private async end(stop: StopListener, seconds: number): Promise<RlhfResult> {
    const { directory, stages, context } = this.parts;
    const { evalPrompts } = context.sources;
    const { measurements } = this.record;
    const { step, totalSteps } = this.position();
    const isMeasured = evalPrompts === undefined || measurements !== undefined;
    const state = step === totalSteps && isMeasured ? 'finished' : 'stopped';
    const model =
      state === 'finished' ? await directory.publishModel(finalModel(context)) : this.newest();
    tellStatus(directory, this.position(), state);
    const by = stop.signal();
    directory.log(
      state === 'finished' ? 'Finished.' : `Stopped${by === undefined ? '' : ` by ${by}`}.`,
    );
    return {
      state,
      ...(state === 'stopped' && by !== undefined && { stoppedBy: by }),
      ...{ directory: directory.path, model, step, totalSteps, seconds },
      stages: stages.flatMap(({ name }) => this.recordOf(name) ?? []),
      measurements: state === 'finished' ? (measurements ?? null) : null,
    };
  }

  /** Folder of the newest language model of a pipeline that is not finished. */
  private newest(): string {
    const { context } = this.parts;
    if (this.recordOf(context.config.method)?.state === 'finished') return finalModel(context);
    const hasSft = context.config.sft === null || this.recordOf('sft')?.state === 'finished';
    return hasSft ? sftModel(context) : context.sources.model;
  }

  private tell(sentence: string, stream: ProgressStream | null): void {
    this.parts.directory.log(sentence);
    stream?.write(`${sentence}\n`);
  }
}
