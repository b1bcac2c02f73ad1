/** Requests to an MLflow server: one attempt each, every way to fail as a TrackerError. Knows nothing of runs. */
import { reasonOf, secondsAsked } from '../hub/index.js';
import { ConfigError, TrackerError } from '../errors/index.js';

/** Where the server is and who asks. Secrets are in none of the messages. */
export interface MlflowAccess {
  /** `http://host:5000`, without user and password, and without a slash at its end. */
  readonly address: string;
  /** The header `authorization`; undefined where nobody is named. */
  readonly authorization: string | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads what MLflow's own client reads: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,
 * and for the address `env` MLFLOW_TRACKING_URI, which may hold user and password too.
 *
 * Source: MLflow, mlflow/tracking/_tracking_service/utils.py and environment_variables.py. We differ in that only servers
 * are followed: no folders and databases, which MLflow opens itself.
 *
 * @param address a server's, or `env`
 * @throws ConfigError where `env` is asked for and MLFLOW_TRACKING_URI is no address of a server
 */
export function mlflowAccess(
  address: string,
  environment: Environment = process.env,
): MlflowAccess {
  const value = (name: string): string | undefined => {
    const text = environment[name]?.trim();
    return text === '' ? undefined : text;
  };
  const uri = address === 'env' ? value('MLFLOW_TRACKING_URI') : address;
  const url = uri !== undefined && URL.canParse(uri) ? new URL(uri) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    // What stands there is not shown: it may hold a password.
    const received = uri === undefined ? 'nothing' : `an address that begins with ${scheme(uri)}`;
    throw new ConfigError(
      `track.mlflow: expected MLFLOW_TRACKING_URI to be the address of a server, http://host:5000, received ${received}.`,
      { hint: 'Set it, or give the address: --set track.mlflow=http://localhost:5000.' },
    );
  }
  if (address !== 'env' && `${url.username}${url.password}` !== '') {
    throw new ConfigError(
      `track.mlflow: expected an address without user and password, which config.json would hold, received one with them for ${url.host}.`,
      { hint: 'Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.' },
    );
  }
  const user = value('MLFLOW_TRACKING_USERNAME') ?? decodeURIComponent(url.username);
  const password = value('MLFLOW_TRACKING_PASSWORD') ?? decodeURIComponent(url.password);
  const token = value('MLFLOW_TRACKING_TOKEN');
  return {
    address: `${url.origin}${url.pathname.replace(/\/+$/, '')}`,
    authorization:
      user !== ''
        ? `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
        : token && `Bearer ${token}`,
  };
}

function scheme(uri: string): string {
  return /^[a-z][a-z0-9+.-]*:/i.exec(uri)?.[0] ?? 'no scheme';
}

/** Longest wait for an answer, as MLflow's client has it (MLFLOW_HTTP_REQUEST_TIMEOUT). */
const ANSWER_SECONDS = 120;
/** Longest text of a server that a message repeats. */
const MOST_WORDS = 300;

/** An answer that is no success: what MLflow calls its error. */
export class MlflowRefusal extends TrackerError {
  /** `RESOURCE_DOES_NOT_EXIST`; undefined where the answer is not of MLflow. */
  readonly errorCode: string | undefined;

  constructor(
    message: string,
    options: ConstructorParameters<typeof TrackerError>[1] & {
      readonly errorCode: string | undefined;
    },
  ) {
    super(message, options);
    this.errorCode = options.errorCode;
  }
}

/** Calls an endpoint below `/api/2.0/mlflow/`. A test may replace it. */
export type MlflowCall = (
  method: 'GET' | 'POST',
  endpoint: string,
  fields: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
) => Promise<Readonly<Record<string, unknown>>>;

/**
 * What calls a server.
 *
 * @returns a function that throws `MlflowRefusal` for an answer that is no success, and `TrackerError` where there is none
 */
export function mlflowCall(access: MlflowAccess, answerSeconds = ANSWER_SECONDS): MlflowCall {
  return async (method, endpoint, fields, signal) => {
    const url = new URL(`${access.address}/api/2.0/mlflow/${endpoint}`);
    if (method === 'GET')
      for (const [name, value] of Object.entries(fields)) url.searchParams.set(name, String(value));
    const silence = patience(answerSeconds);
    let answer: Response;
    let text: string;
    try {
      answer = await fetch(url, {
        method,
        headers: {
          'user-agent': 'posttrain',
          ...(access.authorization !== undefined && { authorization: access.authorization }),
          ...(method === 'POST' && { 'content-type': 'application/json' }),
        },
        ...(method === 'POST' && { body: JSON.stringify(fields) }),
        // The token must not follow to another place, nor a POST become a GET.
        redirect: 'manual',
        signal: AbortSignal.any([silence.signal, signal]),
      });
      text = await answer.text();
    } catch (error) {
      throw new TrackerError(`expected an answer of ${access.address}, but ${reasonOf(error)}.`, {
        ...{ again: true, cause: error },
        hint: 'Check that the server runs, and its address.',
      });
    } finally {
      silence.end();
    }
    if (!answer.ok) throw refusal(answer, text, access);
    return asObject(text) ?? {};
  };
}

/**
 * A limit of time that only runs while answers can be read: while a step computes, nothing is read, and a timer that
 * ran through it would give up on an answer that is there.
 */
function patience(seconds: number): { readonly signal: AbortSignal; readonly end: () => void } {
  const controller = new AbortController();
  const ticks = 20;
  let left = ticks;
  const timer = setInterval(
    () => {
      if (--left === 0) controller.abort(new Error(`there was none within ${seconds} seconds`));
    },
    (1000 * seconds) / ticks,
  );
  return { signal: controller.signal, end: () => clearInterval(timer) };
}

function refusal(
  { status, headers }: Response,
  text: string,
  { address, authorization }: MlflowAccess,
): MlflowRefusal {
  const { error_code: code, message } = asObject(text) ?? {};
  const errorCode = typeof code === 'string' ? code : undefined;
  const words = typeof message === 'string' ? message : '';
  const told = [String(status), errorCode, words.slice(0, MOST_WORDS).replaceAll(/\s+/g, ' ')]
    .filter((part) => part !== undefined && part !== '')
    .join(', ');
  const hints: Readonly<Record<number, string>> = {
    401: `${authorization === undefined ? 'Set' : 'Check'} MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.`,
    403: 'The user may not write to this experiment.',
    404: 'Check that the address is that of an MLflow server.',
  };
  return new MlflowRefusal(
    `expected an answer of success of ${address}, received ${told.replace(/\.$/, '')}.`,
    {
      errorCode,
      again: status === 408 || status === 429 || status >= 500,
      waitSeconds: secondsAsked(headers),
      hint:
        hints[status] ??
        (status >= 300 && status < 400 ? 'It leads elsewhere: give that address.' : undefined),
    },
  );
}

function asObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}
