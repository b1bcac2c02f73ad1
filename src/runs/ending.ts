/** How a run ends: what asks it to, and what its folder says of it. */
import { PosttrainError } from '../errors/index.js';
import type { RunDirectory, RunState } from './runDirectory.js';

/** How far a run is. */
export interface Position {
  readonly step: number;
  readonly totalSteps: number;
}

/** Writes status.json. */
export function tellStatus(
  directory: RunDirectory,
  { step, totalSteps }: Position,
  state: RunState,
  failure?: { readonly message: string; readonly code?: string | undefined },
): void {
  directory.writeStatus({ state, step, totalSteps, ...failure });
}

/** Says in the folder what happened, as far as the disk lets us; the error itself is thrown on. */
export function reportFailure(directory: RunDirectory, at: Position, error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  const stack =
    error instanceof PosttrainError || !(error instanceof Error) ? '' : `\n${error.stack ?? ''}`;
  try {
    const code = error instanceof PosttrainError ? error.code : undefined;
    tellStatus(directory, at, 'failed', { message, code });
    directory.log(`Failed after step ${at.step}: ${message}${stack}`);
  } catch {
    // The disk may be what failed; the first error says more than this one.
  }
}

/** Hears whether a run shall end. */
export interface StopListener {
  asked(): boolean;
  /** The signal of the system that asked, where one did. */
  signal(): NodeJS.Signals | undefined;
  /** Aborted once the run shall end. */
  readonly abort: AbortSignal;
  forget(): void;
}

const STOP_SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/**
 * Listens to the given signal, or without one to SIGINT and SIGTERM. The first of these asks, the second one kills the
 * process as it would without us.
 *
 * @param after what is finished first, for the message: `the run ends …`
 */
export function listenForStop(signal: AbortSignal | undefined, after: string): StopListener {
  if (signal !== undefined) {
    return {
      asked: () => signal.aborted,
      signal: () => undefined,
      abort: signal,
      forget: () => undefined,
    };
  }
  let received: NodeJS.Signals | undefined;
  const controller = new AbortController();
  const forget = (): void => {
    for (const name of STOP_SIGNALS) process.off(name, listen);
  };
  const listen = (name: NodeJS.Signals): void => {
    received = name;
    process.stderr.write(`\n${name}: the run ends ${after}. Once more kills it.\n`);
    // Without a listener the next signal has its usual effect, even in the middle of native code.
    forget();
    controller.abort();
  };
  for (const name of STOP_SIGNALS) process.on(name, listen);
  return {
    asked: () => received !== undefined,
    signal: () => received,
    abort: controller.signal,
    forget,
  };
}
