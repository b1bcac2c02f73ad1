/** Calls functions that a user wrote, many at a time, and survives what they do. */

/** What a call gave, or what happened instead (`threw TypeError: …`, `did not answer within 30 s`). */
export type Called<Value> = { readonly value: Value } | { readonly reason: string };

/** How calls are made. */
export interface CallEachOptions {
  /** How long an asynchronous call may take. */
  readonly timeoutSeconds: number;
  /** How many calls may wait at the same time. */
  readonly concurrency: number;
}

/**
 * Makes every call. One that throws, rejects or answers too late has a reason instead of a value; the others are not
 * touched.
 *
 * A call that timed out is no longer waited for, but what it started goes on. A synchronous endless loop cannot be
 * interrupted inside a process: only calls that wait (network, files, timers) can time out.
 *
 * @returns one outcome per call, in the order of the calls
 */
export async function callEach<Value>(
  calls: readonly (() => Value | PromiseLike<Value>)[],
  { timeoutSeconds, concurrency }: CallEachOptions,
): Promise<Called<Value>[]> {
  const outcomes: Called<Value>[] = [];
  let started = 0;
  const work = async (): Promise<void> => {
    while (started < calls.length) {
      const index = started++;
      const call = calls[index];
      if (call === undefined) return;
      // Only what is a promise is waited for: plain functions run through without a turn of the event loop.
      const outcome = callOne(call, timeoutSeconds);
      outcomes[index] = outcome instanceof Promise ? await outcome : outcome;
    }
  };
  await Promise.all(Array.from({ length: Math.min(Math.ceil(concurrency), calls.length) }, work));
  return outcomes;
}

function callOne<Value>(
  call: () => Value | PromiseLike<Value>,
  timeoutSeconds: number,
): Called<Value> | Promise<Called<Value>> {
  try {
    const value = call();
    return isThenable(value) ? settle(value, timeoutSeconds) : { value };
  } catch (error) {
    return { reason: `threw ${describeError(error)}` };
  }
}

async function settle<Value>(
  value: PromiseLike<Value>,
  timeoutSeconds: number,
): Promise<Called<Value>> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Called<Value>>((resolve) => {
    // Node's timers hold at most 2^31 − 1 milliseconds and treat more as 1.
    const milliseconds = Math.min(timeoutSeconds * 1000, 2 ** 31 - 1);
    timer = setTimeout(
      () => resolve({ reason: `did not answer within ${timeoutSeconds} s` }),
      milliseconds,
    );
  });
  const answer = Promise.resolve(value).then(
    (settled): Called<Value> => ({ value: settled }),
    (error: unknown): Called<Value> => ({ reason: `rejected with ${describeError(error)}` }),
  );
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

function isThenable<Value>(value: Value | PromiseLike<Value>): value is PromiseLike<Value> {
  return (
    typeof value === 'object' &&
    value !== null &&
    'then' in value &&
    typeof value.then === 'function'
  );
}

function describeError(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
