/** What a run works on: rows with a fingerprint, rewards with names, settings of an earlier run to go on with. */
import { createHash } from 'node:crypto';
import { configFromObject, mergedSettings, type ConfigSource } from '../config/index.js';
import {
  forVocabulary,
  readRows,
  rowsFromObjects,
  splitRows,
  type DataSelection,
  type Row,
  type SplitSize,
  type TextTokenizer,
} from '../data/index.js';
import { CheckpointError, ConfigError, counted } from '../errors/index.js';
import { hubIdOf, lastingName } from '../hub/index.js';
import { modelPositions, modelVocabulary, type ComputeSettings } from '../models/index.js';
import {
  loadReward,
  rewardColumn,
  withWeights,
  type NamedReward,
  type RewardFunction,
  type RewardInput,
} from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { cudaIsAvailable, deriveSeed, type Dtype } from '../torch/index.js';
import type { ProgressStream } from './progress.js';
import type { RunRecord } from './runDirectory.js';

/** Data of a run: paths of files, or rows that are objects already. */
export type RunData = string | readonly string[] | readonly Readonly<Record<string, unknown>>[];

/** What config.json tells of data, by which a resumed run sees that it is the same. */
export interface DataRecord {
  /** Absolute paths, `org/name@commit` for data sets of the Hub; null for rows in memory. */
  readonly files: readonly string[] | null;
  readonly rows: number;
  /** Of the rows' values in order. */
  readonly sha256: string;
}

/**
 * The rows of a run's data and its fingerprint.
 *
 * @throws DataError, IoError or ConfigError as `readRows` does
 */
export async function readRunData(
  data: RunData,
  selection: DataSelection = {},
): Promise<{ rows: Row[]; record: DataRecord }> {
  const files = filesOf(data);
  const rows = files === null ? rowsFromObjects(objectsOf(data)) : await readRows(files, selection);
  const hash = new DataHash();
  for (const row of rows) hash.add(row);
  return { rows, record: hash.record(files) };
}

/** The fingerprint of rows, taken one by one. */
export class DataHash {
  private readonly hash = createHash('sha256');
  private rows = 0;

  add({ values }: Row): void {
    this.hash.update(`${JSON.stringify(values)}\n`);
    this.rows++;
  }

  /**
   * @param paths as they were given; null for rows in memory. Which commit a name of the Hub stands for is known when its
   *   rows were read
   */
  record(paths: readonly string[] | null): DataRecord {
    const { rows } = this;
    const files = paths?.map((path) => lastingName(path, 'dataset')) ?? null;
    return { files, rows, sha256: this.hash.copy().digest('hex') };
  }
}

/** Settings that say which rows are trained on and which are held out; see the settings under `data`. */
export interface DataSettings {
  readonly seed: number;
  readonly data: {
    readonly split: string | null;
    readonly subset: string | null;
    readonly evalSplit: string | null;
    readonly holdOut: number | null;
    readonly weights: readonly number[] | null;
  };
}

/** The settings of data where a job has none: every row. */
export const ALL_ROWS: DataSettings['data'] = {
  ...{ split: null, subset: null, evalSplit: null, holdOut: null, weights: null },
};

/** Where the rows of a run come from. */
export interface DataInputs {
  readonly data: RunData;
  readonly evalData?: RunData | undefined;
}

/** Rows of a run with their fingerprint. */
export interface RunRows {
  readonly rows: Row[];
  readonly record: DataRecord;
}

/**
 * The rows that a run trains on, and those that it measures on: evaluation data, a split of the training data, or rows
 * of them that are held out at random. The fingerprint of the training data is that of all of them.
 *
 * @throws ConfigError where more than one kind of held-out rows is asked for, or weights do not fit the data
 * @throws DataError or IoError as `readRows` and `splitRows` do
 */
export async function readRunRows(
  inputs: DataInputs,
  settings: DataSettings,
): Promise<{ data: RunRows; held: RunRows | undefined }> {
  const { split, subset, holdOut } = checkDataSettings(inputs, settings);
  const selection = { split: split ?? undefined, subset: subset ?? undefined };
  const read = await readRunData(inputs.data, selection);
  if (holdOut === null) return { data: read, held: await readHeldRows(inputs, settings) };
  const { train, eval: held } = splitRows(read.rows, holdOutSize(settings));
  return { data: { ...read, rows: train }, held: { ...read, rows: held } };
}

/** Evaluation data, or a split of the training data that is named; undefined where neither is asked for. */
export async function readHeldRows(
  { data, evalData }: DataInputs,
  { data: { subset, evalSplit } }: DataSettings,
): Promise<RunRows | undefined> {
  const from = evalData ?? (evalSplit === null ? undefined : data);
  if (from === undefined) return undefined;
  return readRunData(from, {
    subset: subset ?? undefined,
    split: evalSplit ?? undefined,
    defaultSplit: 'test',
  });
}

/** How many rows `data.holdOut` holds out, and by which seed. */
export function holdOutSize({
  seed,
  data: { holdOut },
}: DataSettings): SplitSize & { seed: number } {
  const size = holdOut ?? 0;
  const ownSeed = deriveSeed(seed, 'held-out rows');
  return size < 1 ? { evalFraction: size, seed: ownSeed } : { evalCount: size, seed: ownSeed };
}

/** @throws ConfigError as `readRunRows` */
export function checkDataSettings(
  { data, evalData }: DataInputs,
  { data: settings }: DataSettings,
): DataSettings['data'] {
  const { holdOut, evalSplit, weights, split, subset } = settings;
  if (holdOut !== null && (evalData !== undefined || evalSplit !== null)) {
    throw new ConfigError(
      `data.holdOut: expected null beside ${evalData === undefined ? 'data.evalSplit' : 'evaluation data'}, received ${holdOut}.`,
      { hint: 'Rows to measure on are given, or held out of the training data; not both.' },
    );
  }
  const files = filesOf(data);
  const sources = files?.length ?? 1;
  if (weights !== null && weights.length !== sources) {
    throw new ConfigError(
      `data.weights: expected a weight for each of ${sources} sources of training data, received ${weights.length}.`,
      {
        hint: 'Give one --data per weight: --data a.jsonl --data b.jsonl --set data.weights=[3,1].',
      },
    );
  }
  if (files === null && (split !== null || subset !== null)) {
    throw new ConfigError(
      `data.${split === null ? 'subset' : 'split'}: expected null for rows in memory, received ${JSON.stringify(split ?? subset)}.`,
    );
  }
  return settings;
}

/** A tokenizer for the rows of a model's training: what it makes of them must be tokens of the model. */
export function tokenizerFor(modelFolder: string, tokenizer: Tokenizer): TextTokenizer {
  return forVocabulary(tokenizer, modelVocabulary(modelFolder));
}

/**
 * Most tokens of a row that a model can be trained on: `maxLength`, or its positions where they are fewer, which is
 * told.
 *
 * @throws CheckpointError and IoError as `loadModel`
 */
export function fittingLength(
  folder: string,
  maxLength: number,
  progress: ProgressStream | null,
): number {
  const positions = modelPositions(folder);
  if (positions >= maxLength) return maxLength;
  progress?.write(
    `maxLength is ${maxLength}, but the model has ${positions} positions: rows of more tokens are too long.\n`,
  );
  return positions;
}

/** Paths of data that are given by paths; null for rows in memory. */
export function filesOf(data: RunData): string[] | null {
  if (typeof data === 'string') return [data];
  const paths = data.filter((entry) => typeof entry === 'string');
  return paths.length > 0 ? paths : null;
}

function objectsOf(data: RunData): Readonly<Record<string, unknown>>[] {
  return typeof data === 'string' ? [] : data.filter((entry) => typeof entry === 'object');
}

/**
 * Refuses to resume on other data than before: the order of rows would mean nothing.
 *
 * @throws CheckpointError
 */
export function requireSameData(
  record: RunRecord,
  data: DataRecord | undefined,
  name: 'data' | 'referenceData' = 'data',
): void {
  const before = record.inputs[name];
  if (typeof before !== 'object' || before === null || !('sha256' in before)) return;
  if (before.sha256 === data?.sha256) return;
  const rows = 'rows' in before ? counted(Number(before.rows), 'row') : 'other rows';
  const what = name === 'data' ? 'data' : 'reference data';
  const received = data === undefined ? 'none' : `${counted(data.rows, 'row')} with other contents`;
  throw new CheckpointError(
    `Resuming: expected the ${what} that the run was started with (${rows}), received ${received}.`,
    {
      hint: 'Give the same data, or start a new run from the last checkpoint: --model <run>/checkpoints/step-N/model.',
    },
  );
}

/** A reward as it may be given: a function, a function with name and weight, or a specification as after `--reward`. */
export type RewardLike<Row> = RewardFunction<Row> | NamedReward<Row> | string;

/**
 * Rewards with names and weights. A function without a name is called `reward`, or `reward1`, `reward2`, … where there
 * are several.
 *
 * @throws RewardError if a specification cannot be loaded, or a weight names no reward
 */
export async function namedRewards<Row>(
  rewards: readonly RewardLike<Row>[],
  weights: Readonly<Record<string, number>>,
): Promise<NamedReward[]> {
  const named: NamedReward[] = [];
  for (const [index, reward] of rewards.entries()) {
    if (typeof reward === 'string') named.push(...(await loadReward(reward)));
    else if (typeof reward !== 'function') named.push({ ...reward, fn: forRows(reward.fn) });
    else {
      const unnamed = rewards.length === 1 ? 'reward' : `reward${index + 1}`;
      const name = reward.name === '' ? unnamed : reward.name;
      named.push({ name, weight: 1, fn: forRows(reward) });
    }
  }
  return withWeights(named, weights);
}

/** A user's row type is a promise of theirs about their file: at run time a reward gets the row as it was read. */
function forRows<Row>(fn: RewardFunction<Row>): RewardFunction {
  return (input) => fn(input as RewardInput<Row>);
}

/** Columns that built-in rewards read, so that rows without them are refused before anything is sampled. */
export function requiredColumns(rewards: readonly unknown[]): string[] {
  return rewards.flatMap((reward) =>
    typeof reward === 'string' ? (rewardColumn(reward) ?? []) : [],
  );
}

/** What config.json tells of rewards. */
export function rewardRecord(
  given: readonly unknown[],
  named: readonly { readonly name: string; readonly weight: number }[],
): Record<string, unknown> {
  const specs = given.filter((reward) => typeof reward === 'string');
  return {
    rewards: named.map(({ name, weight }) => ({ name, weight })),
    // All of them, or the run cannot be resumed from these alone.
    ...(specs.length === given.length && { rewardSpecs: specs.map(lastingSpec) }),
  };
}

/** A specification whose model of the Hub, where it has one, is named by its commit. */
function lastingSpec(spec: string): string {
  const [, kind = '', model = ''] = /^((?:model|prm[a-z-]*):)(.*)$/.exec(spec) ?? [];
  return hubIdOf(model) === undefined ? spec : `${kind}${lastingName(model)}`;
}

/**
 * The settings that a run is given. A resumed run keeps those it had; the given ones replace them one by one (settings
 * with a `kind` as a whole).
 */
export function settingsOf(
  given: ConfigSource | object | undefined,
  record: RunRecord | undefined,
  name: string,
): ConfigSource {
  const source = asSource(given ?? {}, name);
  if (record === undefined) return source;
  return {
    values: mergedSettings(record.config, source.values),
    place: (path) => source.place(path),
  };
}

function asSource(given: ConfigSource | object, name: string): ConfigSource {
  return 'place' in given && typeof given.place === 'function'
    ? given
    : configFromObject(Object.fromEntries(Object.entries(given)), name);
}

/** Where a method's settings say that a model computes, and in which numbers. */
export interface PlacementConfig {
  readonly dtype: Dtype;
  readonly device: 'auto' | 'cpu' | 'cuda';
  readonly precision: 'full' | 'bf16-mixed';
  readonly float32Head: boolean;
  readonly gradientCheckpointing: boolean;
}

/** Where and how models of a run are loaded. */
export interface Placement {
  readonly dtype: Dtype;
  readonly device: string;
  readonly compute: ComputeSettings;
}

/** @throws ConfigError for mixed precision over weights that are not float32 */
export function placementOf({ dtype, device, ...compute }: PlacementConfig): Placement {
  const { precision, float32Head, gradientCheckpointing } = compute;
  if (precision === 'bf16-mixed' && dtype !== 'float32')
    throw new ConfigError(
      `precision: expected full with dtype ${dtype}, received bf16-mixed, which keeps the weights in float32.`,
      { hint: 'Leave dtype out, or set precision to full.' },
    );
  return {
    dtype,
    device: deviceOf(device),
    compute: { precision, float32Head, gradientCheckpointing },
  };
}

/** The device that a setting stands for. */
export function deviceOf(setting: 'auto' | 'cpu' | 'cuda'): string {
  if (setting !== 'auto') return setting;
  return cudaIsAvailable() ? 'cuda' : 'cpu';
}
