/** Callbacks that must be over when they return: scopes and modes end with the call. */
import { ValueRangeError } from '../errors/index.js';

/** What a synchronous callback may return: anything but a promise, which becomes a type error. */
export type NotPromise<T> = T extends PromiseLike<unknown> ? never : T;

/**
 * For callers without types: refuses the promise that an async callback returned. Its rest would run after the scope
 * has ended.
 *
 * @throws ValueRangeError when `result` can be awaited
 */
export function assertNotPromise(where: string, result: unknown): void {
  const then: unknown =
    typeof result === 'object' && result !== null && 'then' in result ? result.then : undefined;
  if (typeof then !== 'function') return;
  // What the callback does after its first await fails in its own way; the error below says why.
  if (result instanceof Promise) result.catch(() => undefined);
  throw new ValueRangeError(
    `${where}: expected a synchronous callback, received one that returns a promise.`,
    { hint: `Await first and call ${where} with what was awaited.` },
  );
}
