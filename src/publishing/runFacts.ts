/** What a run's folder tells of its model, without anything of the machine it was made on. */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { METHOD_CONFIGS } from '../config/index.js';
import { isCommit, parseHubId } from '../hub/index.js';
import { formatNumber, readMetrics, readRunStatus, type RunRecord } from '../runs/index.js';

/** A model or data set that a run was given. */
export interface RunInput {
  /** `org/name`; undefined for what is not of the Hub. */
  readonly hubId: string | undefined;
  /** How a command names it: with its commit, or the last part of its path. */
  readonly name: string;
}

/** Data of a run. */
export interface RunDataFacts {
  /** Training, evaluation, reference: as config.json calls it. */
  readonly role: string;
  readonly files: readonly RunInput[];
  readonly rows: number;
  readonly sha256: string;
}

/** One metric over a run. */
export interface MetricFacts {
  readonly name: string;
  readonly first: string;
  readonly last: string;
}

/** What the card of a run's model says of the run. */
export interface RunFacts {
  readonly method: string;
  readonly base: RunInput | undefined;
  readonly data: readonly RunDataFacts[];
  /** Specifications of rewards, in order. */
  readonly rewards: readonly string[];
  readonly environment: string | undefined;
  /** Steps that were done, and of how many. */
  readonly steps: { readonly done: number; readonly total: number } | undefined;
  readonly metrics: readonly MetricFacts[];
  /** Resolved settings. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Names of the settings that are not the method's defaults. */
  readonly changed: readonly string[];
  readonly versions: RunRecord['versions'];
  readonly seed: number;
  readonly commit: string | null;
}

/** Metrics that tell of the machine and not of the model. */
const OF_THE_MACHINE: ReadonlySet<string> = new Set([
  ...['step', 'stepSeconds', 'tokensPerSecond', 'peakResidentBytes', 'tokens'],
]);

/**
 * Reads a run's folder.
 *
 * @throws IoError if its metrics cannot be read
 */
export function runFacts(folder: string, record: RunRecord): RunFacts {
  const { method, inputs, versions, seed, commit } = record;
  const { inputs: _, ...settings } = record.config; // A pipeline names its inputs among its settings.
  const status = readRunStatus(folder);
  const model = inputs['model'];
  const environment = inputs['environmentSpec'] ?? inputs['environment'];
  return {
    ...{ method, settings, versions, seed, commit },
    base: typeof model === 'string' ? asInput(model) : undefined,
    data: Object.entries(inputs).flatMap(([role, value]) => dataFacts(role, value)),
    rewards: rewardsOf(inputs),
    environment: typeof environment === 'string' ? lastPart(environment) : undefined,
    steps: status && { done: status.step, total: status.totalSteps },
    metrics: metricFacts(join(folder, 'metrics.jsonl')),
    changed: changedSettings(method, settings),
  };
}

/** A name of the Hub as it is; of a path its last part, or that of the run whose `model` it is. */
function asInput(name: string): RunInput {
  const id = name.startsWith('/') ? undefined : parseHubId(name);
  if (id === undefined) return { hubId: undefined, name: lastPart(name) };
  return { hubId: id.name, name };
}

function lastPart(path: string): string {
  const name = basename(path);
  return name === 'model' ? basename(dirname(path)) : name;
}

function dataFacts(role: string, value: unknown): RunDataFacts[] {
  if (typeof value !== 'object' || value === null || !('sha256' in value)) return [];
  const files = 'files' in value && Array.isArray(value.files) ? value.files.map(String) : [];
  return [
    {
      role,
      files: files.map(asInput),
      rows: 'rows' in value ? Number(value.rows) : 0,
      sha256: String(value.sha256),
    },
  ];
}

function rewardsOf(inputs: RunRecord['inputs']): string[] {
  const specs = inputs['rewardSpecs'];
  if (Array.isArray(specs)) return specs.map((spec) => withoutFolders(String(spec)));
  const named = inputs['rewards'];
  return Array.isArray(named)
    ? named.map((reward: { name?: unknown }) => String(reward.name ?? 'reward'))
    : [];
}

/** A specification of a reward whose path, if it has one, has lost its folders. */
function withoutFolders(spec: string): string {
  const [, kind = '', path = spec] = /^((?:model|prm[a-z-]*):)?(.*)$/.exec(spec) ?? [];
  if (kind === '' && !/\.[cm]?[jt]s(#\w+)?$/.test(path)) return spec; // A built-in reward.
  return `${kind}${asInput(path).name}`;
}

/** The first and last value of each metric; those on held-out data come first. */
function metricFacts(path: string): MetricFacts[] {
  if (!existsSync(path)) return [];
  const lines = readMetrics(path);
  const names = [...new Set(lines.flatMap((line) => Object.keys(line)))].filter(
    (name) => !OF_THE_MACHINE.has(name),
  );
  const isHeldOut = (name: string): boolean => name.startsWith('eval/');
  return [...names.filter(isHeldOut), ...names.filter((name) => !isHeldOut(name))].map((name) => {
    const values = lines.flatMap((line) => line[name] ?? []);
    const shown = (value: number | undefined): string =>
      value === undefined ? '' : formatNumber(value);
    return { name, first: shown(values[0]), last: shown(values.at(-1)) };
  });
}

/** All of them where a method has settings without a default. */
function changedSettings(method: string, settings: Readonly<Record<string, unknown>>): string[] {
  const schema = Object.entries(METHOD_CONFIGS).find(([name]) => name === method)?.[1];
  const defaults: Readonly<Record<string, unknown>> = schema?.safeParse({}).data ?? {};
  return Object.keys(settings).filter(
    (name) => JSON.stringify(settings[name]) !== JSON.stringify(defaults[name]),
  );
}

/** Whether a command that names this input finds the same again. */
export function isPinned({ name }: RunInput): boolean {
  const id = parseHubId(name);
  return id !== undefined && isCommit(id.revision);
}
