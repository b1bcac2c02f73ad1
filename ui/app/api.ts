/** Asking the server, and hearing from it. Nothing else in the page opens a connection. */
import { signal } from '@preact/signals';
import {
  PROTOCOL_VERSION,
  type DashboardEvent,
  type Failure,
  type RunSummary,
  type RunList,
} from '../../src/dashboard/protocol.js';
import { visibleText } from '../../src/dashboard/view/format.js';
import { followEvents } from './eventFeed.js';

/** What the server answered instead of what was asked for. */
export class ServerError extends Error {
  readonly status: number;
  readonly code: string;
  readonly hint: string | undefined;

  constructor(status: number, failure: Failure['error']) {
    super(failure.message);
    this.name = 'ServerError';
    this.status = status;
    this.code = failure.code;
    this.hint = failure.hint;
  }
}

/** `live`: events arrive; `lost`: the server does not answer, the page tries again. */
export type Connection = 'connecting' | 'live' | 'lost';

/** How the page stands with its server. */
export const connection = signal<Connection>('connecting');
/** Every run by id, as the latest event has it. */
export const runs = signal<ReadonlyMap<string, RunSummary>>(new Map());
/** Folders that cannot be read, with the reason. */
export const unreadable = signal<RunList['unreadable']>([]);
/** Whether the list of runs has arrived at all. */
export const runsLoaded = signal(false);

/** Milliseconds that the server's clock is ahead of the browser's: the times of runs are by the server's. */
export const clockAhead = signal(0);
/** The `Date` of an answer has whole seconds, and was on its way. */
const CLOCK_NOISE_MS = 2000;

interface Growth {
  readonly metrics: number;
  readonly samples: number;
  /** Of the samples, as the server told it. */
  readonly revision?: number;
}
const grown = signal<ReadonlyMap<string, Growth>>(new Map());
/** How often the stream of events has begun anew: what grew in between was not told. */
const beginnings = signal(0);

/**
 * Changes when a run’s metrics or samples may have grown, so that what shows them asks again. It names the run: as many events
 * of another one would look as if nothing had grown.
 */
export function growthOf(run: string, what: 'metrics' | 'samples'): string {
  return `${run} ${beginnings.value} ${grown.value.get(run)?.[what] ?? 0}`;
}

/** The revision of a run's samples, where the server has told one: with another one, places hold other samples. */
export function revisionOf(run: string): number | undefined {
  return grown.value.get(run)?.revision;
}

/** The address of an answer, with a query of whatever is defined. */
export function address(
  path: string,
  query: Readonly<Record<string, string | number | undefined>> = {},
): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query))
    if (value !== undefined && value !== '') search.set(name, String(value));
  const text = search.toString();
  return `api/${path}${text === '' ? '' : `?${text}`}`;
}

/**
 * Asks for an answer of the protocol. The server is the only one that this page can reach, so its word is taken for the
 * shape of it.
 *
 * @param question what is posted, where the address takes questions
 * @throws ServerError when it says no, or cannot be reached
 */
export async function ask<Answer>(
  path: string,
  abort?: AbortSignal,
  question?: object,
): Promise<Answer> {
  return (await (await answerTo(path, abort, question)).json()) as Answer;
}

/**
 * Asks a question whose answer comes line by line, each of them JSON.
 *
 * @throws ServerError when it says no, cannot be reached, or falls silent before the end
 */
export async function* askLines<Line>(
  path: string,
  abort: AbortSignal,
  question: object,
): AsyncGenerator<Line> {
  const { body } = await answerTo(path, abort, question, 'application/x-ndjson');
  const reader = body?.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    let read;
    try {
      read = await reader?.read();
    } catch (error) {
      throw abort.aborted ? error : silence();
    }
    if (read === undefined || read.done) return;
    const lines = (rest + read.value).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) yield JSON.parse(line) as Line;
  }
}

async function answerTo(
  path: string,
  abort?: AbortSignal,
  question?: object,
  accepted = 'application/json',
): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, {
      credentials: 'same-origin',
      ...(abort && { signal: abort }),
      ...(question && {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', Accept: accepted },
        body: JSON.stringify(question),
      }),
    });
  } catch (error) {
    if (abort?.aborted) throw error;
    throw silence();
  }
  const ahead = Date.parse(response.headers.get('Date') ?? '') - Date.now();
  if (Math.abs(ahead - clockAhead.peek()) > CLOCK_NOISE_MS) clockAhead.value = ahead;
  if (response.ok) return response;
  throw new ServerError(response.status, await failureOf(response));
}

function silence(): ServerError {
  return new ServerError(0, {
    code: 'E_CONNECTION',
    message: 'The dashboard’s server does not answer.',
    hint: 'Is `posttrain dashboard` still running?',
  });
}

async function failureOf(response: Response): Promise<Failure['error']> {
  try {
    const body = (await response.json()) as Partial<Failure>;
    if (body.error !== undefined) return body.error;
  } catch {
    // No JSON: something between the page and the server answered.
  }
  return { code: 'E_HTTP', message: `The server answered with status ${response.status}.` };
}

let isGreeted = false;

/** Keeps `runs` and `grown` up to date until the page is closed. */
export function listen(): void {
  followEvents({
    onOpen: () => {
      connection.value = 'live';
    },
    onLost: () => {
      connection.value = 'lost';
    },
    onEvent: (data) => receive(JSON.parse(data) as DashboardEvent),
  });
}

/** Fetches the whole list; events change it from then on. */
export async function loadRuns(): Promise<void> {
  try {
    const list = await ask<RunList>(address('runs'));
    runs.value = new Map(list.runs.map((run) => [run.id, withVisibleTexts(run)]));
    unreadable.value = list.unreadable.map(({ name, reason }) => ({
      name: visibleText(name),
      reason: visibleText(reason),
    }));
    runsLoaded.value = true;
  } catch {
    connection.value = 'lost'; // the next hello asks again
  }
}

/** A folder may have any name: one that turns the direction of what follows could be taken for another. */
function withVisibleTexts(run: RunSummary): RunSummary {
  const shown = (text: string | null): string | null => (text === null ? null : visibleText(text));
  return {
    ...run,
    name: visibleText(run.name),
    method: visibleText(run.method),
    model: shown(run.model),
    data: shown(run.data),
    message: shown(run.message),
  };
}

function receive(event: DashboardEvent): void {
  switch (event.type) {
    case 'hello':
      // The server is of another version than this page: it was started anew, and has a page of its own.
      if (event.protocol !== PROTOCOL_VERSION && isFirstReload(event.protocol))
        return location.reload();
      connection.value = 'live';
      void loadRuns();
      // At the first one nothing is older than it.
      if (isGreeted) beginnings.value += 1;
      isGreeted = true;
      return;
    case 'run':
      runs.value = new Map(runs.value).set(event.run.id, withVisibleTexts(event.run));
      return;
    case 'removed': {
      const left = new Map(runs.value);
      left.delete(event.id);
      runs.value = left;
      return;
    }
    case 'metrics':
    case 'samples': {
      const before: Growth = grown.value.get(event.id) ?? { metrics: 0, samples: 0 };
      const revision = event.type === 'samples' ? event.revision : before.revision;
      const after = {
        ...{ ...before, [event.type]: before[event.type] + 1 },
        ...(revision !== undefined && { revision }),
      };
      grown.value = new Map(grown.value).set(event.id, after);
      return;
    }
  }
}

/** Whether the page has not been loaded again for this version before: where that did not help it would go on for ever. */
function isFirstReload(protocol: number): boolean {
  const key = 'posttrain-reloaded';
  try {
    if (sessionStorage.getItem(key) === String(protocol)) return false;
    sessionStorage.setItem(key, String(protocol));
    return true;
  } catch {
    return false; // storage is forbidden in some browsers
  }
}
