/** What the `train` commands are given, and for a resumed run what it recorded. */
import type { ConfigSource } from '../config/index.js';
import { UsageError } from '../errors/index.js';
import type { RunRecord } from '../runs/index.js';

/** Options of every `train` command. */
export interface TrainOptions {
  readonly model?: string;
  readonly base?: string;
  readonly data?: readonly string[];
  readonly evalData?: readonly string[];
  readonly split?: string;
  readonly evalSplit?: string;
  readonly dataConfig?: string;
  readonly out?: string;
  readonly config?: string;
  readonly set?: readonly string[];
  readonly resume?: boolean;
  readonly json?: boolean;
}

/** Options of methods that sample and score. */
export interface OnPolicyOptions extends TrainOptions {
  readonly reward?: readonly string[];
  readonly rewardWeight?: readonly string[];
  readonly environment?: string;
  readonly evalReward?: readonly string[];
}

/** Options of online DPO. */
export interface OnlineDpoOptions extends OnPolicyOptions {
  readonly judge?: string;
}

/** Where a run starts and what it reads. */
export interface RunInputs {
  readonly model: string;
  readonly base?: string | undefined;
  readonly data: readonly string[];
  readonly evalData?: readonly string[] | undefined;
  readonly out: string;
  readonly resume: boolean;
}

/** Inputs as given, and for a resumed run those that it recorded where they are not. */
export async function readInputs(
  options: TrainOptions,
): Promise<{ inputs: RunInputs; config: ConfigSource; record: RunRecord | undefined }> {
  const { out, resume = false } = options;
  if (out === undefined) throw new UsageError('train: expected --out, the folder of the run.');
  const { readRunRecord } = await import('../runs/index.js');
  const record = resume ? readRunRecord(out) : undefined;
  const recordedModel = record?.inputs['model'];
  const model = options.model ?? (typeof recordedModel === 'string' ? recordedModel : undefined);
  const data = options.data ?? recordedFiles(record, 'data');
  if (model === undefined || data === undefined) {
    throw new UsageError('train: expected --model and --data.', {
      hint: 'They may be left out with --resume, where the run knows them.',
    });
  }
  const evalData = options.evalData ?? recordedFiles(record, 'evalData');
  return {
    inputs: { model, base: options.base, data, evalData, out, resume },
    config: await readSettings(options),
    record,
  };
}

async function readSettings({
  config,
  set = [],
  split,
  evalSplit,
  dataConfig,
}: TrainOptions): Promise<ConfigSource> {
  const { applyOverrides, configFromObject, readConfigFile } = await import('../config/index.js');
  const source =
    config === undefined ? configFromObject({}, '--set') : await readConfigFile(config);
  const selected = Object.entries({ split, evalSplit, subset: dataConfig }).flatMap(
    ([name, value]) => (value === undefined ? [] : [`data.${name}=${JSON.stringify(value)}`]),
  );
  return applyOverrides(source, [...selected, ...set]);
}

/** `--reward-weight name=0.5` is the setting `rewardWeights.name`; names may hold any character. */
export async function withRewardWeights(
  source: ConfigSource,
  texts: readonly string[],
): Promise<ConfigSource> {
  if (texts.length === 0) return source;
  const { parseRewardWeight } = await import('../rewards/index.js');
  const weights = Object.fromEntries(
    texts.map(parseRewardWeight).map(({ name, weight }) => [name, weight]),
  );
  const before = source.values['rewardWeights'];
  const rewardWeights = Object.assign({}, before, weights);
  return { values: { ...source.values, rewardWeights }, place: (path) => source.place(path) };
}

/** Paths of data that a run recorded under `key`; undefined where it has none, or had rows in memory. */
export function recordedFiles(record: RunRecord | undefined, key: string): string[] | undefined {
  const entry = record?.inputs[key];
  if (typeof entry !== 'object' || entry === null || !('files' in entry)) return undefined;
  return Array.isArray(entry.files) ? entry.files.map(String) : undefined;
}

/** The rewards that a run recorded. @throws UsageError where it recorded none */
export function recordedRewards(record: RunRecord | undefined): string[] {
  const specs = record?.inputs['rewardSpecs'];
  if (Array.isArray(specs)) return specs.map(String);
  throw new UsageError('train: expected --reward.', {
    hint: 'For example --reward exact-match, or --reward ./reward.ts.',
  });
}

/** What a run recorded that its held-out completions are scored by. @throws UsageError where it has functions */
export function recordedEvalRewards(record: RunRecord | undefined): string[] | undefined {
  const specs = record?.inputs['evalRewardSpecs'];
  if (Array.isArray(specs)) return specs.map(String);
  if (record?.inputs['evalRewards'] === undefined) return undefined;
  throw new UsageError('train: expected --eval-reward, because the run has one.', {
    hint: 'It was given as a function, which config.json cannot hold.',
  });
}

/** The judge that a run recorded. @throws UsageError where it was given as a function */
export function recordedJudge(record: RunRecord | undefined): string | undefined {
  const spec = record?.inputs['judgeSpec'];
  if (typeof spec === 'string') return spec;
  if (record?.inputs['judge'] === undefined) return undefined;
  throw new UsageError('train: expected --judge, because the run has one.', {
    hint: 'It was given as a function, which config.json cannot hold.',
  });
}

/** The environment that a run recorded. @throws UsageError where it was given as an object */
export function recordedEnvironment(record: RunRecord | undefined): string | undefined {
  const spec = record?.inputs['environmentSpec'];
  if (typeof spec === 'string') return spec;
  if (record?.inputs['environment'] === undefined) return undefined;
  throw new UsageError('train: expected --environment, because the run has one.', {
    hint: 'It was given as an object, which config.json cannot hold.',
  });
}
