/**
 * A stand-in for an MLflow server: an HTTP server of this process that keeps what it is sent and refuses what the
 * documentation of MLflow's REST API 2.0 does not allow. tools/interop/trackers.py asks a real one.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A run as the server keeps it. */
export interface StandInRun {
  readonly experiment: string;
  readonly name: unknown;
  status: unknown;
  readonly tags: Map<string, string>;
  readonly params: Map<string, string>;
  /** By name, as `[step, value]`; what is sent twice is kept once. */
  readonly metrics: Map<string, [number, unknown][]>;
}

type Fields = Readonly<Record<string, unknown>>;
/** Answers in another way than the server would. @returns whether it did */
type Interception = (request: IncomingMessage, response: ServerResponse) => boolean;

/** The server. */
export class MlflowStandIn {
  readonly experiments: string[] = [];
  readonly runs: StandInRun[] = [];
  /** Endpoints in the order in which they were called. */
  readonly calls: string[] = [];
  /** Headers `authorization`. */
  readonly authorizations: (string | undefined)[] = [];
  /** How many metrics, parameters and tags each batch had. */
  readonly batches: [number, number, number][] = [];
  /** Most characters of a parameter's value: 500 before MLflow 2.8. */
  mostParamValue = 6000;
  intercept: Interception = () => false;
  url = '';
  private readonly server: Server;

  private constructor() {
    this.server = createServer((request, response) => void this.receive(request, response));
  }

  static async start(): Promise<MlflowStandIn> {
    const standIn = new MlflowStandIn();
    await new Promise<void>((resolve) => standIn.server.listen(0, '127.0.0.1', resolve));
    standIn.url = `http://127.0.0.1:${(standIn.server.address() as AddressInfo).port}`;
    return standIn;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private async receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '', 'http://localhost');
    const endpoint = url.pathname.replace('/api/2.0/mlflow/', '');
    this.calls.push(endpoint);
    this.authorizations.push(request.headers.authorization);
    let body = '';
    for await (const piece of request) body += String(piece);
    if (this.intercept(request, response)) return;
    response.setHeader('content-type', 'application/json');
    try {
      const isGet = endpoint === 'experiments/get-by-name';
      if (request.method !== (isGet ? 'GET' : 'POST')) throw new Refusal('wrong method');
      if (!isGet && request.headers['content-type'] !== 'application/json')
        throw new Refusal('expected application/json');
      const fields = isGet ? Object.fromEntries(url.searchParams) : (JSON.parse(body) as Fields);
      response.end(JSON.stringify(this.answer(endpoint, fields)));
    } catch (error) {
      const { code, message } = error instanceof Refusal ? error : new Refusal(String(error));
      response.statusCode = code === 'RESOURCE_DOES_NOT_EXIST' ? 404 : 400;
      response.end(JSON.stringify({ error_code: code, message }));
    }
  }

  private answer(endpoint: string, fields: Fields): object {
    switch (endpoint) {
      case 'experiments/get-by-name': {
        const index = this.experiments.indexOf(text(fields['experiment_name']));
        if (index === -1) throw new Refusal('no such experiment', 'RESOURCE_DOES_NOT_EXIST');
        return { experiment: { experiment_id: String(index), name: this.experiments[index] } };
      }
      case 'experiments/create': {
        const name = text(fields['name']);
        if (this.experiments.includes(name)) throw new Refusal(name, 'RESOURCE_ALREADY_EXISTS');
        return { experiment_id: String(this.experiments.push(name) - 1) };
      }
      case 'runs/create': {
        const experiment = this.experiments[Number(text(fields['experiment_id']))];
        if (experiment === undefined) throw new Refusal('no such experiment');
        const run: StandInRun = {
          ...{ experiment, name: text(fields['run_name']), status: 'RUNNING', params: new Map() },
          ...{ tags: new Map(), metrics: new Map() },
        };
        whole(fields['start_time']);
        for (const { key, value } of pairs(fields['tags'], 5000)) run.tags.set(key, value);
        return { run: { info: { run_id: `run-${this.runs.push(run) - 1}` } } };
      }
      case 'runs/update': {
        const states = ['RUNNING', 'SCHEDULED', 'FINISHED', 'FAILED', 'KILLED'];
        const status = text(fields['status']);
        if (!states.includes(status)) throw new Refusal(`status ${status}`);
        if (fields['end_time'] !== undefined) whole(fields['end_time']);
        this.runOf(fields).status = status;
        return { run_info: {} };
      }
      case 'runs/log-batch':
        this.logBatch(this.runOf(fields), fields);
        return {};
      default:
        throw new Refusal(`no endpoint ${endpoint}`, 'ENDPOINT_NOT_FOUND');
    }
  }

  private runOf(fields: Fields): StandInRun {
    const run = this.runs[Number(text(fields['run_id']).replace('run-', ''))];
    if (run === undefined) throw new Refusal('no such run', 'RESOURCE_DOES_NOT_EXIST');
    return run;
  }

  private logBatch(run: StandInRun, fields: Fields): void {
    const params = pairs(fields['params'], this.mostParamValue);
    const tags = pairs(fields['tags'], 5000);
    const metrics = list(fields['metrics']);
    this.batches.push([metrics.length, params.length, tags.length]);
    if (metrics.length > 1000 || params.length > 100 || tags.length > 100)
      throw new Refusal('too many in one batch');
    for (const { key, value } of params) {
      if ((run.params.get(key) ?? value) !== value)
        throw new Refusal(`Changing param values is not allowed: ${key}`);
      run.params.set(key, value);
    }
    for (const { key, value } of tags) run.tags.set(key, value);
    for (const { key, value, step, timestamp } of metrics) {
      if (typeof value !== 'number' && !['NaN', 'Infinity', '-Infinity'].includes(String(value)))
        throw new Refusal(`value ${String(value)}`);
      whole(timestamp);
      const name = nameOf(key);
      const history = run.metrics.get(name) ?? [];
      run.metrics.set(name, history);
      if (!history.some(([at, before]) => at === step && before === value))
        history.push([whole(step), value]);
    }
  }
}

class Refusal extends Error {
  readonly code: string;
  constructor(message: string, code = 'INVALID_PARAMETER_VALUE') {
    super(message);
    this.code = code;
  }
}

function list(value: unknown): Fields[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new Refusal('expected a list');
  return value as Fields[];
}

function pairs(value: unknown, mostValue: number): { key: string; value: string }[] {
  const found = list(value).map((pair) => ({
    key: nameOf(pair['key']),
    value: text(pair['value']),
  }));
  if (new Set(found.map(({ key }) => key)).size < found.length) throw new Refusal('a key twice');
  if (found.some(({ value: long }) => long.length > mostValue)) throw new Refusal('value too long');
  return found;
}

/** As MLflow's _validate_metric_name and path_not_unique have it. */
function nameOf(value: unknown): string {
  const name = text(value);
  const parts = name.split('/');
  const isPath = !parts.some((part) => part === '' || part === '.' || part === '..');
  if (!/^[\w\-. :/]+$/.test(name) || !isPath || name.length > 250)
    throw new Refusal(`Invalid name ${name}`);
  return name;
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new Refusal(`expected text, received ${String(value)}`);
  return value;
}

function whole(value: unknown): number {
  if (!Number.isSafeInteger(value))
    throw new Refusal(`expected an integer, received ${String(value)}`);
  return Number(value);
}
