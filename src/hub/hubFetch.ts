/**
 * Requests to the Hub: with the token, with patience, and with one message for each way to fail. What is asked for is
 * not known here; it is `subject` in messages.
 */
import { setTimeout as sleepMilliseconds } from 'node:timers/promises';
import { HubError } from '../errors/index.js';
import type { HubSettings } from './hubSettings.js';

/** Where it is told what is downloaded or uploaded. */
export interface HubStream {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
}

/** How the Hub is reached, and what a test may replace. */
export interface HubAccess extends HubSettings {
  /** Null tells nothing. */
  readonly progress: HubStream | null;
  readonly sleep: (seconds: number) => Promise<unknown>;
  /** Longest silence in the middle of a file; 60 unless set. */
  readonly silenceSeconds?: number | undefined;
}

/** Options of everything that reaches the Hub. */
export interface HubOptions {
  /** Where it is told what is downloaded or uploaded; null tells nothing. Standard error unless set. */
  readonly progress?: HubStream | null | undefined;
}

/** Requests of one kind before it is given up. */
export const MOST_ATTEMPTS = 5;
/** Longest wait that a server may ask for; what asks for more is given up at once. */
const MOST_WAIT_SECONDS = 300;
/** Longest silence before the headers of an answer. A large upload is answered late and has no limit. */
const ANSWER_SECONDS = 30;

/** What is asked for. */
export interface HubSubject {
  /** As it was given, `org/name@revision`, for messages. */
  readonly subject: string;
  /** Of the repository, relative to the endpoint. */
  readonly page: string;
}

/** Seconds to wait by the clock. */
export function sleepSeconds(seconds: number): Promise<unknown> {
  return sleepMilliseconds(seconds * 1000);
}

/**
 * A `fetch` for a repository of the Hub. Answers that ask for patience (429, 5xx) and connections that fail are tried
 * again, with growing waits or as Retry-After says. The token goes to the Hub alone and not to the storage that it
 * redirects to.
 *
 * @returns a function that only returns answers of success; it throws HubError instead of others
 */
export function hubFetch(access: HubAccess, about: HubSubject): typeof fetch {
  return async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    if (access.isOffline) {
      throw new HubError(
        `${about.subject}: expected to reach ${access.endpoint}, but HF_HUB_OFFLINE is set.`,
        { hint: 'Unset HF_HUB_OFFLINE, or give the path of a local folder.' },
      );
    }
    const request = { ...init, headers: headersFor(access, url, init?.headers) };
    for (let attempt = 1; ; attempt++) {
      const answer = await answerOf(url, request);
      if (answer instanceof Response && (answer.ok || answer.status === 416)) return answer;
      const wait = waitBefore(answer, attempt);
      // A body that streams can be sent once.
      if (wait === undefined || attempt === MOST_ATTEMPTS || init?.body instanceof ReadableStream)
        throw await asHubError(answer, { ...about, access, url, attempt });
      await answerBodyCancelled(answer);
      await access.sleep(wait);
    }
  };
}

function headersFor(
  { endpoint, token }: HubAccess,
  url: URL,
  given: RequestInit['headers'],
): Headers {
  const headers = new Headers(given);
  headers.delete('authorization');
  if (token !== undefined && url.origin === new URL(endpoint).origin)
    headers.set('authorization', `Bearer ${token}`);
  headers.set('user-agent', 'posttrain');
  return headers;
}

/** The answer, or why there is none. */
async function answerOf(url: URL, init: RequestInit): Promise<unknown> {
  const silence = new AbortController();
  const hasBody = init.body !== undefined && init.body !== null;
  const timer = hasBody
    ? undefined
    : setTimeout(() => silence.abort(new Error('no answer in time')), ANSWER_SECONDS * 1000);
  const signals = [silence.signal, init.signal].filter((signal) => signal instanceof AbortSignal);
  try {
    return await fetch(url, { ...init, signal: AbortSignal.any(signals) });
  } catch (error) {
    return error;
  } finally {
    clearTimeout(timer);
  }
}

/** Seconds before another attempt; undefined where it would be of no use. */
function waitBefore(answer: unknown, attempt: number): number | undefined {
  const growing = 2 ** (attempt - 1);
  if (!(answer instanceof Response)) return growing;
  if (answer.status !== 429 && answer.status < 500) return undefined;
  const asked = secondsAsked(answer.headers);
  if (asked === undefined) return growing;
  return asked <= MOST_WAIT_SECONDS ? asked : undefined;
}

/** Retry-After in seconds or as a date, or the rest of a window as in `RateLimit: "api";r=0;t=55`. */
export function secondsAsked(headers: Headers): number | undefined {
  const after = headers.get('retry-after')?.trim();
  if (after !== undefined && after !== '') {
    if (/^\d+$/.test(after)) return Number(after);
    const until = Date.parse(after);
    return Number.isNaN(until) ? undefined : Math.max(0, (until - Date.now()) / 1000);
  }
  const [, rest] = /;\s*t=(\d+)/.exec(headers.get('ratelimit') ?? '') ?? [];
  return rest === undefined ? undefined : Number(rest);
}

async function answerBodyCancelled(answer: unknown): Promise<void> {
  if (answer instanceof Response) await answer.body?.cancel();
}

interface Failure extends HubSubject {
  readonly access: HubAccess;
  readonly url: URL;
  readonly attempt: number;
}

async function asHubError(answer: unknown, failure: Failure): Promise<HubError> {
  const { subject, url, attempt } = failure;
  if (!(answer instanceof Response)) {
    return new HubError(
      `${subject}: expected an answer of ${url.origin}, but ${reasonOf(answer)} (${attempt} attempts).`,
      {
        hint: 'Check the connection and HF_ENDPOINT. With HF_HUB_OFFLINE=1 only what was downloaded is read.',
        cause: answer,
      },
    );
  }
  const { status, headers } = answer;
  const told = (headers.get('x-error-message') ?? (await messageOf(answer))).replace(/\.?\s*$/, '');
  const code = headers.get('x-error-code');
  const { expected, hint } = explain(status, code, { ...failure, headers });
  const words = [String(status), told].filter((part) => part !== '').join(', ');
  const times = attempt > 1 ? ` (${attempt} attempts)` : '';
  return new HubError(`${subject}: expected ${expected}, received ${words}${times}.`, {
    status,
    hint,
  });
}

function explain(
  status: number,
  code: string | null,
  { access, page: path, headers }: Failure & { headers: Headers },
): { expected: string; hint: string } {
  const page = `${access.endpoint}/${path}`;
  const login =
    access.tokenSource === undefined
      ? 'set HF_TOKEN, or log in with `hf auth login`'
      : `use another token than that of ${access.tokenSource}`;
  if (code === 'GatedRepo')
    return {
      expected: 'access to a gated repository',
      hint: `Ask for access at ${page}. Where you have it: ${login}.`,
    };
  if (status === 404 && code === 'RevisionNotFound')
    return {
      expected: 'a branch, tag or commit of that name',
      hint: `Branches and tags are listed at ${page}/tree/main.`,
    };
  if (status === 404 && code === 'EntryNotFound')
    return { expected: 'a file of that name', hint: `Files are listed at ${page}/tree/main.` };
  if (status === 401 || status === 404)
    return {
      expected: `a folder of that name here, or a repository at ${access.endpoint}`,
      hint: `Check the path or the name. Where the repository is private: ${login}.`,
    };
  if (status === 403)
    return {
      expected: 'a token that allows this',
      hint: `Give the token the right to it at ${access.endpoint}/settings/tokens, or ${login}.`,
    };
  if (status === 429) {
    const seconds = secondsAsked(headers);
    const wait = seconds === undefined ? 'a few minutes' : `${Math.ceil(seconds)} seconds`;
    return {
      expected: 'fewer requests than the limit',
      hint: `Try again after ${wait}${access.token === undefined ? '. With a token the limit is higher' : ''}.`,
    };
  }
  return {
    expected: 'an answer of success',
    hint: status >= 500 ? 'The server has a fault. Try again later.' : `See ${page}.`,
  };
}

async function messageOf(answer: Response): Promise<string> {
  try {
    const value: unknown = await answer.json();
    if (typeof value === 'object' && value !== null && 'error' in value) return String(value.error);
  } catch {
    // Not JSON: the status says enough.
  }
  return '';
}

/** Why a request or a connection failed, in words. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  const inner = cause instanceof Error && cause.message !== '' ? `: ${cause.message}` : '';
  return `${error.message}${inner}`;
}
