/** config.json and status.json of a run, as far as they can be believed. Knows no files. */
import { hostname } from 'node:os';
import { parseObject } from './metricTable.js';
import type { DashboardState, RunDetail } from './protocol.js';

/** Contents of config.json. */
export interface RunConfig extends Pick<
  RunDetail,
  | 'method'
  | 'config'
  | 'inputs'
  | 'versions'
  | 'seed'
  | 'commit'
  | 'command'
  | 'started'
  | 'resumed'
  | 'preset'
  | 'model'
  | 'data'
  | 'formatVersion'
> {}

/** Contents of status.json. */
export interface RunStatusFile {
  readonly state: string;
  readonly step: number;
  readonly totalSteps: number | null;
  readonly message: string | null;
  /** Of the error that ended the run. */
  readonly code: string | null;
  readonly pid: number | null;
  readonly host: string | null;
  readonly updated: string | null;
}

/** A run on another machine that has not been heard of for so long is taken for gone. */
const SILENT_MS = 24 * 3600 * 1000;

/** The record of a run; undefined where the text is none: models have a config.json, too. */
export function parseRunConfig(text: string): RunConfig | undefined {
  const record = parseObject(text);
  const { method, seed, commit, started } = record ?? {};
  const [config, inputs] = [objectOf(record?.['config']), objectOf(record?.['inputs'])];
  if (typeof method !== 'string' || config === undefined || inputs === undefined) return undefined;
  const command = textsOf(record?.['command']);
  const formatVersion = record?.['formatVersion'];
  return {
    method: method.slice(0, 60),
    config,
    inputs,
    versions: objectOf(record?.['versions']) ?? {},
    seed: typeof seed === 'number' ? seed : null,
    commit: typeof commit === 'string' ? commit : null,
    command,
    started: timeOf(started),
    resumed: listOf(record?.['resumed']).flatMap((each) => {
      const again = objectOf(each);
      const { time, fromStep } = again ?? {};
      return typeof time === 'string' && typeof fromStep === 'number'
        ? [{ time, fromStep, changed: textsOf(again?.['changed']) }]
        : [];
    }),
    preset: presetOf(command, method),
    model: nameOf(inputs['model']),
    data: nameOf(inputs['data']) ?? nameOf(inputs['prompts']),
    formatVersion: typeof formatVersion === 'number' ? formatVersion : 1,
  };
}

/** How a run stands by its own words; undefined where the text is no status. */
export function parseRunStatus(text: string): RunStatusFile | undefined {
  const record = parseObject(text);
  if (record === undefined || typeof record['state'] !== 'string') return undefined;
  const { state, step, totalSteps, message, code, pid, host, updated } = record;
  return {
    state,
    step: typeof step === 'number' ? step : 0,
    totalSteps: typeof totalSteps === 'number' ? totalSteps : null,
    message: typeof message === 'string' ? message.slice(0, 4000) : null,
    code: typeof code === 'string' ? code : null,
    pid: Number.isSafeInteger(pid) && Number(pid) > 0 ? Number(pid) : null,
    host: typeof host === 'string' ? host : null,
    updated: timeOf(updated),
  };
}

/**
 * How a run stands.
 *
 * @param lastSign ISO 8601 of its last line, or null
 * @param isAlive whether a process of this machine is there
 */
export function stateOf(
  status: RunStatusFile | undefined,
  { lines, lastSign, now }: { lines: number; lastSign: string | null; now: number },
  isAlive: (pid: number) => boolean = processExists,
): DashboardState {
  if (status === undefined) return 'starting';
  switch (status.state) {
    case 'finished':
    case 'stopped':
      return status.state;
    case 'failed':
      // Sampler and trainer that disagree are a failure of numbers, too, but nothing has diverged.
      return status.code === 'E_NUMERICS' && !/disagree/.test(status.message ?? '')
        ? 'diverged'
        : 'failed';
    case 'running': {
      const isHere = status.host === hostname() && status.pid !== null;
      if (isHere && !isAlive(status.pid)) return 'lost';
      const signs = [status.updated, lastSign].filter((time) => time !== null);
      const latest = Math.max(...signs.map((time) => Date.parse(time)));
      if (!isHere && now - latest > SILENT_MS) return 'lost';
      return lines === 0 ? 'starting' : 'running';
    }
    default:
      return 'starting';
  }
}

/** Whether there is a process of this number on this machine. */
function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // It is there, and somebody else's.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** Settings as `path: JSON`, `config.clip.high`, deepest level first to last. */
export function flatSettings(
  value: unknown,
  path: string,
  into = new Map<string, string>(),
  depth = 0,
): Map<string, string> {
  const object = objectOf(value);
  const entries = Object.entries(object ?? {});
  if (object === undefined || entries.length === 0 || depth > 8) {
    if (into.size < 5000) into.set(path, (JSON.stringify(value) ?? 'null').slice(0, 2000));
    return into;
  }
  for (const [key, each] of entries) flatSettings(each, `${path}.${key}`, into, depth + 1);
  return into;
}

/** `train dapo`, or `--preset dapo`: the name of a preset, where it is another one than the method's. */
function presetOf(command: readonly string[], method: string): string | null {
  const option = command.findIndex((word) => word === '--preset');
  const joined = command.find((word) => word.startsWith('--preset='));
  const trained = command.indexOf('train');
  const name =
    joined?.slice('--preset='.length) ??
    (option === -1 ? (trained === -1 ? undefined : command[trained + 1]) : command[option + 1]);
  return name !== undefined && name !== method && /^[\w+-]{1,40}$/.test(name) ? name : null;
}

/** A file or a model as one text. */
function nameOf(value: unknown): string | null {
  if (typeof value === 'string') return value.slice(0, 1000);
  const files = textsOf(objectOf(value)?.['files']);
  return files.length === 0 ? null : files.join(', ').slice(0, 1000);
}

function timeOf(value: unknown): string | null {
  const time = typeof value === 'string' ? Date.parse(value) : NaN;
  return Number.isNaN(time) ? null : new Date(time).toISOString();
}

/** The texts among the items of a list; none where it is no list. */
export function textsOf(value: unknown): string[] {
  return listOf(value).filter((each) => typeof each === 'string');
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : [];
}

function objectOf(value: unknown): Record<string, unknown> | undefined {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  return isObject ? (value as Record<string, unknown>) : undefined;
}
