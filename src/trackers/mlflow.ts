/**
 * Follows a run at an MLflow server. A run is one run there, also when it is resumed; settings are its parameters, every
 * metric of a step is one of its metrics, by the same name as far as MLflow allows it.
 *
 * Source: MLflow's REST API 2.0: experiments/get-by-name, experiments/create, runs/create, runs/update, runs/log-batch,
 * with the limits of the latter: 1000 metrics, 100 parameters and 100 tags, 1000 of all together; names of 250 characters,
 * values of parameters of 6000, of tags of 5000.
 */
import { MlflowRefusal, type MlflowCall } from './mlflowServer.js';
import { TrackerError } from '../errors/index.js';
import type { TrackedEnd, TrackedRun, TrackedStep, Tracker } from './tracker.js';

const MOST_METRICS = 1000;
const MOST_PARAMS = 100;
const MOST_NAME = 250;
const MOST_PARAM_VALUE = 6000;
/** MLflow before 2.8 takes no longer ones. */
const MOST_PARAM_VALUE_BEFORE = 500;
const MOST_TAG_VALUE = 5000;

/** MLflow's words for how a run ended: it calls KILLED what was ended from outside. */
const STATUS: Readonly<Record<TrackedEnd, string>> = {
  finished: 'FINISHED',
  stopped: 'KILLED',
  failed: 'FAILED',
};

/** What is needed to follow runs. */
export interface MlflowOptions {
  readonly call: MlflowCall;
  /** Of the server, by which a resumed run knows that it is the same. */
  readonly address: string;
  /** Name of the experiment; it is made where there is none. */
  readonly experiment: string;
}

/** What is kept in the run directory. */
interface Remembered {
  readonly address: string;
  readonly experiment: string;
  readonly runId: string;
  /** Whether the parameters have arrived, which never change. */
  readonly hasParams: boolean;
}

interface Pair {
  readonly key: string;
  readonly value: string;
}

interface Metric {
  readonly key: string;
  readonly value: number | string;
  /** Milliseconds since 1970. */
  readonly timestamp: number;
  readonly step: number;
}

/** A tracker for one run. */
export class MlflowTracker implements Tracker {
  readonly name = 'mlflow';
  private readonly options: MlflowOptions;
  private readonly metricNames = new MlflowNames();
  /** Once there is one: `begin` may be called again after a failure. */
  private known: Remembered | undefined;

  constructor(options: MlflowOptions) {
    this.options = options;
  }

  async begin(run: TrackedRun, signal: AbortSignal): Promise<void> {
    const before = this.known ?? this.earlier(run.remembered);
    const isThere = before !== undefined && (await this.reopen(before.runId, signal));
    const known = isThere ? before : await this.create(run, signal);
    this.known = known;
    if (!isThere) run.remember(known);
    if (isThere && run.resumedFrom !== undefined) await this.tellResumed(run, signal);
    if (known.hasParams) return;
    await this.logParams(paramsOf(run), signal);
    this.known = { ...known, hasParams: true };
    run.remember(this.known);
  }

  async log(steps: readonly TrackedStep[], signal: AbortSignal): Promise<void> {
    const metrics = steps.flatMap((step) => this.metricsOf(step));
    // What is sent again after a failure is the same to the millisecond, and the same row of MLflow's.
    for (let at = 0; at < metrics.length; at += MOST_METRICS)
      await this.logBatch({ metrics: metrics.slice(at, at + MOST_METRICS) }, signal);
  }

  async end(state: TrackedEnd, signal: AbortSignal): Promise<void> {
    const fields = { run_id: this.known?.runId, status: STATUS[state], end_time: Date.now() };
    await this.options.call('POST', 'runs/update', fields, signal);
  }

  /** The run of an earlier process, where it was at the same place. */
  private earlier(value: unknown): Remembered | undefined {
    const { address, experiment } = this.options;
    if (typeof value !== 'object' || value === null) return undefined;
    const { runId, hasParams, ...place } = value as Readonly<Record<string, unknown>>;
    if (typeof runId !== 'string') return undefined;
    if (place['address'] !== address || place['experiment'] !== experiment) return undefined;
    return { address, experiment, runId, hasParams: hasParams === true };
  }

  /** @returns whether the run is still there */
  private async reopen(runId: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.options.call('POST', 'runs/update', { run_id: runId, status: 'RUNNING' }, signal);
      return true;
    } catch (error) {
      // It was deleted: the second is what MLflow says where it can still be restored.
      const gone = ['RESOURCE_DOES_NOT_EXIST', 'INVALID_PARAMETER_VALUE'];
      if (error instanceof MlflowRefusal && gone.includes(error.errorCode ?? '')) return false;
      throw error;
    }
  }

  private async create(run: TrackedRun, signal: AbortSignal): Promise<Remembered> {
    const { address, experiment, call } = this.options;
    const answer = await call(
      'POST',
      'runs/create',
      {
        experiment_id: await this.experimentId(signal),
        run_name: run.name,
        start_time: Date.parse(run.started),
        tags: tagsOf(run),
      },
      signal,
    );
    const runId = textAt(answer, 'run', 'info', 'run_id');
    return { address, experiment, runId, hasParams: false };
  }

  private async experimentId(signal: AbortSignal): Promise<string> {
    const { call, experiment } = this.options;
    const find = async (): Promise<string> => {
      const query = { experiment_name: experiment };
      const answer = await call('GET', 'experiments/get-by-name', query, signal);
      return textAt(answer, 'experiment', 'experiment_id');
    };
    try {
      return await find();
    } catch (error) {
      if (!isRefused(error, 'RESOURCE_DOES_NOT_EXIST')) throw error;
    }
    try {
      const made = await call('POST', 'experiments/create', { name: experiment }, signal);
      return textAt(made, 'experiment_id');
    } catch (error) {
      // Another run was first.
      if (!isRefused(error, 'RESOURCE_ALREADY_EXISTS')) throw error;
      return await find();
    }
  }

  private async tellResumed(
    { resumedFrom = 0, changed }: TrackedRun,
    signal: AbortSignal,
  ): Promise<void> {
    const what = changed.length === 0 ? '' : `; changed ${changed.join(', ')}`;
    const value = `from step ${resumedFrom}${what}`.slice(0, MOST_TAG_VALUE);
    await this.logBatch({ tags: [{ key: 'posttrain.resumed', value }] }, signal);
  }

  private async logParams(params: readonly Pair[], signal: AbortSignal): Promise<void> {
    for (let at = 0; at < params.length; at += MOST_PARAMS) {
      const some = params.slice(at, at + MOST_PARAMS);
      try {
        await this.logBatch({ params: some }, signal);
      } catch (error) {
        const isLong = some.some(({ value }) => value.length > MOST_PARAM_VALUE_BEFORE);
        if (!isLong || !isRefused(error, 'INVALID_PARAMETER_VALUE')) throw error;
        const shorter = some.map(({ key, value }) => ({
          key,
          value: value.slice(0, MOST_PARAM_VALUE_BEFORE),
        }));
        await this.logBatch({ params: shorter }, signal);
      }
    }
  }

  private async logBatch(
    batch: {
      readonly metrics?: readonly Metric[];
      readonly params?: readonly Pair[];
      readonly tags?: readonly Pair[];
    },
    signal: AbortSignal,
  ): Promise<void> {
    await this.options.call(
      'POST',
      'runs/log-batch',
      { run_id: this.known?.runId, ...batch },
      signal,
    );
  }

  private metricsOf({ step, time, metrics }: TrackedStep): Metric[] {
    return Object.entries(metrics).map(([name, value]) => ({
      key: this.metricNames.of(name),
      // JSON has no NaN; MLflow reads protocol buffers as JSON, where these are its names.
      value: Number.isFinite(value) ? value : String(value),
      timestamp: time.getTime(),
      step,
    }));
  }
}

/** Names as MLflow takes them. Two that it could not tell apart get numbers. */
export class MlflowNames {
  private readonly known = new Map<string, string>();

  of(name: string): string {
    const before = this.known.get(name);
    if (before !== undefined) return before;
    const taken = new Set(this.known.values());
    const plain = mlflowName(name);
    let key = plain;
    for (let number = 2; taken.has(key); number++)
      key = `${plain.slice(0, MOST_NAME - 6)}_${number}`;
    this.known.set(name, key);
    return key;
  }
}

/** A name as MLflow takes it: letters, digits, `_ - . : /` and spaces; as a path it must be in its shortest form. */
function mlflowName(name: string): string {
  const path = name
    .replaceAll(/[^\w\-. :/]/g, '_')
    .split('/')
    .filter((part) => part !== '' && part !== '.' && part !== '..')
    .join('/');
  return path.slice(0, MOST_NAME).replace(/\/+$/, '') || '_';
}

/** Settings with their path as name. */
function paramsOf({ config }: TrackedRun): Pair[] {
  const names = new MlflowNames();
  return flat(config).map(([name, value]) => ({
    key: names.of(name),
    value: value.slice(0, MOST_PARAM_VALUE),
  }));
}

function flat(settings: object, above = ''): (readonly [string, string])[] {
  return Object.entries(settings).flatMap(([name, value]: [string, unknown]) => {
    const path = `${above}${name}`;
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return flat(value, `${path}.`);
    return [[path, typeof value === 'string' ? value : JSON.stringify(value)] as const];
  });
}

function tagsOf({ directory, method, seed, commit, inputs }: TrackedRun): Pair[] {
  const tags: readonly (readonly [string, string | null])[] = [
    ['mlflow.source.name', 'posttrain'],
    ['mlflow.source.type', 'LOCAL'],
    ['mlflow.source.git.commit', commit],
    ['posttrain.method', method],
    ['posttrain.seed', String(seed)],
    ['posttrain.directory', directory],
    ['posttrain.inputs', JSON.stringify(inputs)],
  ];
  return tags.flatMap(([key, value]) =>
    value === null ? [] : [{ key, value: value.slice(0, MOST_TAG_VALUE) }],
  );
}

function isRefused(error: unknown, errorCode: string): boolean {
  return error instanceof MlflowRefusal && error.errorCode === errorCode;
}

/** @throws TrackerError where an answer has it not: then it is not of MLflow */
function textAt(answer: Readonly<Record<string, unknown>>, ...path: readonly string[]): string {
  let at: unknown = answer;
  for (const name of path)
    at =
      typeof at === 'object' && at !== null
        ? Object.entries(at).find(([key]) => key === name)?.[1]
        : undefined;
  if (typeof at === 'string' && at !== '') return at;
  throw new TrackerError(
    `expected ${path.join('.')} in an answer of MLflow, received ${JSON.stringify(answer).slice(0, 100)}.`,
    { hint: 'Check that the address is that of an MLflow server.' },
  );
}
