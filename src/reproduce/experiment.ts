/** What every experiment shares: its folder, its seeds, a model made on the spot, runs, and an end by a signal. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { rowsFromObjects, tokenizePrompts, type PromptExample } from '../data/index.js';
import { IoError } from '../errors/index.js';
import { makeFolder } from '../hub/index.js';
import type { Environment } from '../environments/index.js';
import type { Decoder, DecoderOptions } from '../models/index.js';
import {
  writeStartingPoint,
  type MadeTask,
  type StartingPaths,
} from '../quickstart/startingPoint.js';
import {
  createGrpoRun,
  createSftRun,
  type ProgressStream,
  type RewardLike,
  type RunResult,
} from '../runs/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { exampleConfig } from './packageFiles.js';
import { writeReproduction, type Findings } from './report.js';
import type { Verdict } from './verdict.js';

/** What an experiment may be told. */
export interface ReproduceOptions {
  /** A new folder. */
  readonly out: string;
  /** 0, 1, 2 unless set. */
  readonly seeds?: readonly number[] | undefined;
  /** Where progress is shown; null shows none. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
}

/** What came of an experiment. Everything is in the folder too. */
export interface Reproduction {
  readonly name: string;
  readonly directory: string;
  readonly verdicts: readonly Verdict[];
  readonly seconds: number;
  /** report.md */
  readonly report: string;
}

/** An experiment as its file describes it. `Sizes` is what a test makes small. */
export interface Experiment<Sizes> {
  readonly name: string;
  readonly title: string;
  readonly sizes: Sizes;
  run(context: ExperimentContext<Sizes>): Promise<Findings>;
}

/** What an experiment runs with. */
export interface ExperimentContext<Sizes> {
  readonly out: string;
  readonly seeds: readonly number[];
  readonly sizes: Sizes;
  readonly progress: ProgressStream | null;
}

/** Thrown through an experiment that a signal stopped, and caught by `runExperiment`. */
export class Stopped extends IoError {
  readonly signal: NodeJS.Signals;
  constructor(signal: NodeJS.Signals) {
    super(`reproduce: stopped by ${signal}.`);
    this.signal = signal;
  }
}

/**
 * Runs an experiment in a new folder.
 *
 * @param sizes smaller ones for tests
 * @returns what was found; the signal's name where one stopped it: the runs until then are in the folder
 * @throws IoError where `out` exists; what the runs throw
 */
export async function runExperiment<Sizes>(
  experiment: Experiment<Sizes>,
  options: ReproduceOptions,
  sizes: Sizes = experiment.sizes,
): Promise<Reproduction | NodeJS.Signals> {
  const { out, seeds = [0, 1, 2], progress = process.stderr } = options;
  const { name, title } = experiment;
  if (existsSync(out)) {
    throw new IoError(`reproduce: expected a new folder, but ${out} exists.`, {
      hint: 'Name another folder with --out.',
    });
  }
  makeFolder(out);
  const started = performance.now();
  try {
    const found = await experiment.run({ out, seeds, sizes, progress });
    const seconds = (performance.now() - started) / 1000;
    const report = await writeReproduction(out, found, { name, title, seeds, seconds, sizes });
    return { name, directory: out, verdicts: found.verdicts, seconds, report };
  } catch (error) {
    if (error instanceof Stopped) return error.signal;
    throw error;
  }
}

/** A task with a model that was fine-tuned on its demonstrations. */
export interface Start {
  readonly seed: number;
  readonly folder: string;
  readonly paths: StartingPaths;
  /** Folder of the fine-tuned model. */
  readonly model: string;
  readonly heldOut: readonly PromptExample[];
  readonly seconds: number;
}

/** What `prepareStart` makes it from. */
export interface StartOptions {
  readonly seed: number;
  readonly task: MadeTask;
  readonly model: Omit<DecoderOptions, 'vocabSize'>;
  /** Committed settings of the fine-tuning, and what replaces some of them. */
  readonly example: string;
  readonly overrides?: readonly string[] | undefined;
}

/** Writes task and model into `seed-N` of the experiment's folder and fine-tunes, once for all methods of the seed. */
export async function prepareStart(
  { out, progress }: Pick<ExperimentContext<unknown>, 'out' | 'progress'>,
  { seed, task, model, example, overrides = [] }: StartOptions,
): Promise<Start> {
  const folder = join(out, `seed-${seed}`);
  progress?.write(`Seed ${seed}: fine-tuning on ${task.demonstrations.length} demonstrations\n`);
  const { paths } = await writeStartingPoint(folder, task, { model, seed });
  const sft = await createSftRun({
    model: paths.model,
    data: paths.demonstrations,
    out: join(folder, 'sft'),
    config: await exampleConfig(example, [...overrides, `seed=${seed}`]),
    progress,
  });
  try {
    const result = await trainToEnd(sft, progress);
    const rows = rowsFromObjects(task.heldOut.map((row) => ({ ...row })));
    const maxPromptLength = sft.model.config.maxPositionEmbeddings;
    const { prompts } = tokenizePrompts(rows, sft.tokenizer, { maxPromptLength });
    return { seed, folder, paths, model: result.model, heldOut: prompts, seconds: result.seconds };
  } finally {
    sft.dispose();
  }
}

/** What `trainVariant` trains. */
export interface VariantOptions<Measured> {
  /** As the tables call it. */
  readonly name: string;
  readonly seed: number;
  readonly start: Start;
  /** Committed settings of the method, and what replaces some of them. */
  readonly example: string;
  readonly overrides?: readonly string[] | undefined;
  readonly rewards: readonly RewardLike<Readonly<Record<string, unknown>>>[];
  readonly environment?: Environment | undefined;
  /** Measures the trained model before it is freed. */
  readonly measure: (model: Decoder, tokenizer: Tokenizer) => Promise<Measured>;
}

/** One run of one method. */
export interface VariantRun<Measured> {
  readonly name: string;
  readonly seed: number;
  /** Of training alone, without the measurements between. */
  readonly seconds: number;
  /** metrics.jsonl, a step each. */
  readonly metrics: readonly Readonly<Record<string, number>>[];
  readonly measured: Measured;
}

/** Trains one variant from a start, and measures it. */
export async function trainVariant<Measured>(
  { progress }: Pick<ExperimentContext<unknown>, 'progress'>,
  options: VariantOptions<Measured>,
): Promise<VariantRun<Measured>> {
  const { name, seed, start, example, overrides = [], measure } = options;
  progress?.write(`Seed ${seed}: ${name}\n`);
  const run = await createGrpoRun({
    model: start.model,
    data: start.paths.problems,
    evalData: start.paths.heldOut,
    rewards: options.rewards,
    environment: options.environment,
    out: join(start.folder, name.replaceAll(/[^\w.-]+/g, '-')),
    config: await exampleConfig(example, [...overrides, `seed=${seed}`]),
    progress,
  });
  try {
    await trainToEnd(run, progress);
    const metrics = await readMetrics(run.directory);
    const seconds = metrics.reduce((sum, { stepSeconds = 0 }) => sum + stepSeconds, 0);
    const measured = await measure(run.model, run.tokenizer);
    return { name, seed, seconds, metrics, measured };
  } finally {
    run.dispose();
  }
}

/** Trains a run to its last step. @throws what ends the experiment where a signal stopped it */
export async function trainToEnd(
  run: { train(options: { progress: ProgressStream | null }): Promise<RunResult> },
  progress: ProgressStream | null,
): Promise<RunResult> {
  return finished(await run.train({ progress }));
}

function finished(result: RunResult): RunResult {
  if (result.state === 'stopped') throw new Stopped(result.stoppedBy ?? 'SIGINT');
  return result;
}

/** metrics.jsonl of a run directory. */
export async function readMetrics(directory: string): Promise<Record<string, number>[]> {
  const lines = (await readFile(join(directory, 'metrics.jsonl'), 'utf8')).trim().split('\n');
  return lines.map((line) => JSON.parse(line) as Record<string, number>);
}

/** The values of one metric where it was measured, by step. */
export function seriesOf(
  metrics: readonly Readonly<Record<string, number>>[],
  name: string,
): { readonly step: number; readonly value: number }[] {
  return metrics.flatMap((row) => {
    const value = row[name];
    return value === undefined ? [] : [{ step: row['step'] ?? 0, value }];
  });
}
