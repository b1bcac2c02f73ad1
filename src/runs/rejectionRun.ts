/** Rejection sampling as a job: sample, score, select, fine-tune, and again. Resumable at every point. */
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig, RejectionConfig, type RejectionConfigInput } from '../config/index.js';
import { BatchOrder } from '../data/index.js';
import { UsageError } from '../errors/index.js';
import { lastingName } from '../hub/index.js';
import { loadModel, tokenizerFolderOf, weightsSha256 } from '../models/index.js';
import {
  sampleMetrics,
  selectedRow,
  selectSamples,
  type Provenance,
  type Sample,
} from '../selection/index.js';
import type { TrackedEnd } from '../trackers/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import { checkRewardParts, describeFailures } from '../trainers/index.js';
import type { Checkpoint } from './checkpoints.js';
import { listenForStop, reportFailure, tellStatus, type StopListener } from './ending.js';
import { replaceFile } from './files.js';
import {
  heldOutEvaluation,
  readOnPolicyInputs,
  requireSameVocabulary,
  type OnPolicyInputs,
  type OnPolicyRunOptions,
} from './onPolicyInputs.js';
import { formatNumber, Progress, type ProgressStream } from './progress.js';
import {
  readIteration,
  requireSame,
  writeIteration,
  type IterationRecord,
} from './rejectionIteration.js';
import {
  cutToChunks,
  drawSamples,
  plannedSamples,
  readSamples,
  type SamplingPlan,
} from './rejectionSamples.js';
import { findStart, type TrainOptions } from './run.js';
import { longestOf, requireMemory } from './requireMemory.js';
import { linkTree, RunDirectory } from './runDirectory.js';
import { deviceOf, settingsOf } from './runInputs.js';
import type { RunResult } from './runTraining.js';
import { createSftRun } from './sftRun.js';
import { readMetrics, trainStage, type Course } from './stage.js';
import { requireTrackers, trackersOf } from './tracking.js';

/** What `createRejectionRun` needs. `Row` is what the rewards know of a row. */
export type RejectionRunOptions<Row = Readonly<Record<string, unknown>>> = Omit<
  OnPolicyRunOptions<RejectionConfigInput, Row>,
  'environment'
>;

/** How a job ended. Its steps are iterations; the model is the newest there is. */
export type RejectionResult = Omit<RunResult, 'checkpoint'>;

/**
 * A job of rejection sampling, ready to `train`. Data, rewards and settings are checked before anything is written.
 * Models are loaded when they are needed, one after the other.
 *
 * @throws ConfigError, DataError, RewardError, CheckpointError or IoError with what was expected and received
 */
export async function createRejectionRun<Row = Readonly<Record<string, unknown>>>(
  options: RejectionRunOptions<Row>,
): Promise<RejectionRun> {
  const start = await findStart('rejection', options);
  const given = settingsOf(options.config, start.record, 'createRejectionRun');
  const config = parseConfig(RejectionConfig, given);
  const tokenizer = await loadTokenizer(tokenizerFolderOf(options.model));
  const inputs = await readOnPolicyInputs(options, inputSettings(config), { start, tokenizer });
  const { base } = start;
  const record = { ...inputs.record, ...(base !== undefined && { base }) };
  requireTrackers(config.track);
  const description = { method: 'rejection', config, inputs: record };
  let done: Checkpoint | undefined;
  let directory: RunDirectory;
  if (start.record === undefined) directory = await RunDirectory.create(options.out, description);
  else {
    ({ directory, checkpoint: done } = await RunDirectory.resume(options.out, description));
  }
  return new RejectionRun({ directory, config, tokenizer, inputs, model: options.model, done });
}

/** What a job is built from. */
interface RejectionParts {
  readonly directory: RunDirectory;
  readonly config: RejectionConfig;
  readonly tokenizer: Tokenizer;
  readonly inputs: OnPolicyInputs;
  /** Folder of the model that the first iteration samples. */
  readonly model: string;
  /** The last iteration that is done. */
  readonly done: Checkpoint | undefined;
}

/** A job of rejection sampling. `train` does the work. */
export class RejectionRun {
  /** Path of the run directory. */
  readonly directory: string;
  /** Resolved settings. */
  readonly config: RejectionConfig;
  private readonly parts: RejectionParts;
  private hasStarted = false;
  private step: number;

  /** @internal Use `createRejectionRun`. */
  constructor(parts: RejectionParts) {
    this.parts = parts;
    this.directory = parts.directory.path;
    this.config = parts.config;
    this.step = parts.done?.step ?? 0;
  }

  /**
   * Works to the last iteration. SIGINT, SIGTERM or the given signal end it after the samples or the step of fine-tuning
   * in progress; what was done is on the disk, and the job goes on with `resume`. A job trains once.
   *
   * @throws UsageError at a second call; RewardError where nothing can be kept; CheckpointError where an iteration in
   *   progress was begun with other settings; and as the fine-tuning does
   */
  async train(options: TrainOptions = {}): Promise<RejectionResult> {
    if (this.hasStarted) {
      throw new UsageError(
        'RejectionRun.train: expected to be called once per run, received a second call.',
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

  private position(): { step: number; totalSteps: number } {
    return { step: this.step, totalSteps: Math.max(this.step, this.config.iterations) };
  }

  private async work(course: Course, onStep: TrainOptions['onStep']): Promise<RejectionResult> {
    const { directory } = this.parts;
    const { stop, stream } = course;
    const startedAt = performance.now();
    let metrics: Record<string, number> = {};
    tellStatus(directory, this.position(), 'running');
    while (this.step < this.config.iterations && !stop.asked()) {
      const found = await this.iterate(this.step + 1, course);
      if (found === undefined) break;
      metrics = found;
      const iteration = this.step + 1;
      directory.writeMetrics(iteration, metrics);
      await directory.saveCheckpoint(
        iteration,
        (folder) => linkTree(join(this.folderOf(iteration), 'sft', 'model'), join(folder, 'model')),
        null,
      );
      this.step = iteration;
      this.tell(
        `Iteration ${iteration} of ${this.position().totalSteps}: ${inWords(metrics)}`,
        stream,
      );
      const remark = onStep?.(iteration, metrics);
      if (remark !== undefined) this.tell(remark, stream);
      tellStatus(directory, this.position(), 'running');
    }
    return await this.end(stop, { metrics, seconds: (performance.now() - startedAt) / 1000 });
  }

  private async end(
    stop: StopListener,
    rest: Pick<RejectionResult, 'metrics' | 'seconds'>,
  ): Promise<RejectionResult> {
    const { directory } = this.parts;
    const { step, totalSteps } = this.position();
    const state = step >= totalSteps ? 'finished' : 'stopped';
    const newest = this.modelAfter(step);
    const model = state === 'finished' ? await directory.publishModel(newest) : newest;
    tellStatus(directory, this.position(), state);
    const by = stop.signal();
    directory.log(
      state === 'finished' ? 'Finished.' : `Stopped${by === undefined ? '' : ` by ${by}`}.`,
    );
    return {
      state,
      ...(state === 'stopped' && by !== undefined && { stoppedBy: by }),
      ...{ directory: directory.path, model, step, totalSteps },
      ...rest,
    };
  }

  private tell(sentence: string, stream: ProgressStream | null): void {
    this.parts.directory.log(sentence);
    stream?.write(`${sentence}\n`);
  }

  private folderOf(iteration: number): string {
    return join(this.directory, `iteration-${iteration}`);
  }

  /** Folder of the model after so many iterations. */
  private modelAfter(iterations: number): string {
    return iterations === 0 ? this.parts.model : join(this.folderOf(iterations), 'sft', 'model');
  }

  /** @returns its metrics; undefined where the job was asked to end before it was done */
  private async iterate(
    iteration: number,
    course: Course,
  ): Promise<Record<string, number> | undefined> {
    const folder = this.folderOf(iteration);
    mkdirSync(folder, { recursive: true });
    const plan = this.planOf(iteration);
    const record = await this.openIteration(iteration);
    if (!(await this.sample(plan, course))) return undefined;
    const groups = readSamples(plan);
    const kept = this.select(iteration, groups);
    if (course.stop.asked()) return undefined;
    const trained = await this.fineTune(iteration, course);
    if (trained === undefined) return undefined;
    const before = Object.entries(record.evalBefore ?? {});
    const after = Object.entries((await this.measure(this.modelAfter(iteration))) ?? {});
    return {
      ...sampleMetrics(groups, kept, this.config.keep),
      ...trained,
      ...Object.fromEntries(before.map(([name, value]) => [`evalBefore/${name}`, value])),
      ...Object.fromEntries(after.map(([name, value]) => [`eval/${name}`, value])),
    };
  }

  private planOf(iteration: number): SamplingPlan {
    const { prompts } = this.parts.inputs;
    const { promptsPerIteration, seed, samplesPerPrompt } = this.config;
    const path = join(this.folderOf(iteration), 'samples.jsonl');
    const all = [...prompts.keys()];
    const base = { path, iteration, seed, samplesPerPrompt, prompts };
    if (promptsPerIteration === null || promptsPerIteration >= all.length)
      return { ...base, chosen: all };
    const order = new BatchOrder({
      rowCount: all.length,
      batchSize: promptsPerIteration,
      seed: deriveSeed(seed, 'rejection prompts'),
    });
    let chosen: number[] = [];
    for (let at = 0; at < iteration; at++) chosen = order.next();
    // Where one pass over the prompts ends and the next begins, a prompt may come twice.
    return { ...base, chosen: [...new Set(chosen)] };
  }

  /** Begins an iteration, or checks that it was begun with the same settings. */
  private async openIteration(iteration: number): Promise<IterationRecord> {
    const path = join(this.folderOf(iteration), 'iteration.json');
    const model = lastingName(this.modelAfter(iteration - 1));
    const { inputs } = this.parts;
    const { samplesPerPrompt, sampling, seed, dtype, promptsPerIteration } = this.config;
    const now = {
      weightsSha256: await weightsSha256(model),
      ...{ seed, samplesPerPrompt, sampling, dtype, promptsPerIteration },
      prompts: inputs.prompts.length,
      rewards: inputs.record['rewards'],
      rewardModels: inputs.record['rewardModels'],
      rewardWeights: this.config.rewardWeights,
    };
    const before = readIteration(path);
    if (before !== undefined) {
      requireSame('sampled', iteration, before.sampling, now);
      return before;
    }
    const evalBefore = iteration === 1 ? await this.measure(model) : undefined;
    const record = { model, sampling: now, ...(evalBefore && { evalBefore }) };
    writeIteration(path, record);
    return record;
  }

  /** What is measured of a model on held-out prompts; undefined where there are none. */
  private async measure(folder: string): Promise<Record<string, number> | undefined> {
    const { inputs, tokenizer } = this.parts;
    if (inputs.held === undefined) return undefined;
    const { config } = this;
    const placed = { dtype: config.dtype, device: deviceOf(config.device) };
    const policy = await loadModel(folder, placed);
    try {
      return await heldOutEvaluation(inputs, inputSettings(config), { policy, tokenizer })?.();
    } finally {
      policy.dispose();
    }
  }

  /** @returns whether all samples of the iteration are there */
  private async sample(plan: SamplingPlan, { stop, stream }: Course): Promise<boolean> {
    const total = plannedSamples(plan);
    const before = cutToChunks(plan);
    if (before >= total) return true;
    const { inputs, tokenizer, directory } = this.parts;
    const { config } = this;
    const placed = { dtype: config.dtype, device: deviceOf(config.device) };
    const tokens =
      longestOf(inputs.prompts, ({ inputIds }) => inputIds.length) + config.sampling.maxNewTokens;
    const frozen = { isTrained: false, hasLmHead: false };
    await requireMemory(
      { ...config, memoryCheck: config.sft.memoryCheck },
      {
        models: [
          { ...frozen, from: this.modelAfter(plan.iteration - 1), hasLmHead: true },
          ...inputs.rewardModelFolders.map((from) => ({ ...frozen, from })),
        ],
        ...{ device: placed.device, update: null },
        rollout: { rows: total - before, tokens },
      },
      stream,
    );
    const rewardModels = await inputs.loadRewardModels(placed);
    const policy = await loadModel(this.modelAfter(plan.iteration - 1), placed);
    const progress =
      stream &&
      new Progress(stream, {
        label: `iteration ${plan.iteration}/${config.iterations} sampling`,
        ...{ total, start: before, unit: 'completion' },
      });
    directory.log(
      `Iteration ${plan.iteration}: sampling ${total - before} of ${total} completions.`,
    );
    try {
      requireSameVocabulary(policy, rewardModels);
      checkRewardParts('createRejectionRun', inputs.rewards, rewardModels);
      return await drawSamples(
        plan,
        {
          ...{ policy, tokenizer, rewardModels },
          rewards: inputs.rewards,
          sampling: config.sampling,
          timeoutSeconds: config.rewardTimeoutSeconds,
          concurrency: config.rewardConcurrency,
          microBatchTokens: config.microBatchTokens,
        },
        ({ written, failures }) => {
          for (const sentence of describeFailures(failures)) {
            directory.log(sentence);
            progress?.message(sentence);
          }
          progress?.update(written);
          return !stop.asked();
        },
      );
    } finally {
      progress?.end();
      policy.dispose();
      inputs.disposeRewards();
      for (const { model } of rewardModels) model.dispose();
    }
  }

  /** Writes selected.jsonl. What was selected before must have been selected by the same settings. */
  private select(iteration: number, groups: readonly (readonly Sample[])[]): Sample[][] {
    const { keep, distinct, keepTruncated, seed, sampling, samplesPerPrompt } = this.config;
    const folder = this.folderOf(iteration);
    const recordPath = join(folder, 'iteration.json');
    const record = readIteration(recordPath) as IterationRecord; // opened before
    const settings = { keep, distinct, keepTruncated };
    if (record.selection) requireSame('selected', iteration, record.selection, settings);
    const kept = selectSamples(groups, settings);
    const path = join(folder, 'selected.jsonl');
    if (existsSync(path)) return kept;
    writeIteration(recordPath, { ...record, selection: settings });
    const provenance: Provenance = {
      model: record.model,
      weightsSha256: String(record.sampling['weightsSha256']),
      ...{ iteration, seed, sampling, n: samplesPerPrompt },
    };
    const { prompts } = this.parts.inputs;
    const rows = kept
      .flat()
      .map((sample) =>
        selectedRow(sample, prompts[sample.promptIndex]?.row.values ?? {}, provenance),
      );
    replaceFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    return kept;
  }

  /** @returns the last metrics of the fine-tuning; undefined where it was stopped */
  private async fineTune(
    iteration: number,
    { stop, stream }: Course,
  ): Promise<Record<string, number> | undefined> {
    const folder = this.folderOf(iteration);
    const out = join(folder, 'sft');
    const { sft, seed, device, dtype, microBatchTokens, trainFrom, track } = this.config;
    const state = await trainStage(out, { stop, stream }, (resume) =>
      createSftRun({
        model: trainFrom === 'base' ? this.parts.model : this.modelAfter(iteration - 1),
        data: join(folder, 'selected.jsonl'),
        out,
        config: {
          ...sft,
          seed: deriveSeed(seed, 'rejection sft', iteration),
          ...{ device, dtype, microBatchTokens, track },
        },
        resume,
        progress: stream,
      }),
    );
    if (state === 'stopped') return undefined;
    return lastMetrics(join(out, 'metrics.jsonl'));
  }
}

/** Settings as on-policy methods have them: there is one turn, and every prompt is taken once. */
function inputSettings(config: RejectionConfig) {
  return { ...config, data: { ...config.data, weights: null }, maxTurns: 1 };
}

/** Steps and loss at the end of a fine-tuning, from its file, so that a resumed job tells the same. */
function lastMetrics(path: string): Record<string, number> {
  const { step = NaN, loss = NaN } = readMetrics(path).at(-1) ?? {};
  return { 'sft/steps': step, 'sft/loss': loss };
}

/** What an iteration came to. */
function inWords(metrics: Readonly<Record<string, number>>): string {
  const names = ['reward', 'rewardKept', 'acceptanceRate', 'eval/accuracy', 'eval/reward'];
  return names
    .flatMap((name) => {
      const value = metrics[name];
      return value === undefined ? [] : [`${name} ${formatNumber(value)}`];
    })
    .join(', ');
}
