/**
 * Who frees a tensor. Each `Tensor` object owns one slot of the addon's table. A slot is freed by the `tidy` its tensor
 * was made in, by `dispose`, or, as a net under both, by the garbage collector.
 */
import { native, type Slot } from './native.js';
import { assertNotPromise, type NotPromise } from './synchronous.js';
import type { Tensor } from './tensor.js';

let current: Tensor[] | null = null;

// What tensors outside of every scope hold: V8 must feel their size, and they are freed when V8 collects them.
interface Escaped {
  slot: Slot;
  bytes: number;
}
const escaped = new WeakMap<Tensor, Escaped>();
const registry = new FinalizationRegistry<Escaped>(({ slot, bytes }) => {
  native().releaseOne(slot);
  if (bytes > 0) native().adjustExternalMemory(-bytes);
});

/** Gives a new tensor to the current scope, or to the garbage collector where there is none. @internal */
export function adopt(tensor: Tensor): void {
  if (current !== null) current.push(tensor);
  else leaveToCollector(tensor);
}

function leaveToCollector(
  tensor: Tensor,
  bytes: number = native().storageBytes(tensor.slot),
): void {
  const held = { slot: tensor.slot, bytes };
  if (bytes > 0) native().adjustExternalMemory(bytes);
  escaped.set(tensor, held);
  registry.register(tensor, held, tensor);
}

/** Frees the slot of `tensor` now. A second call does nothing. @internal */
export function release(tensor: Tensor): void {
  const { slot } = tensor;
  if (slot === 0) return;
  tensor.slot = 0;
  const held = escaped.get(tensor);
  if (held) {
    escaped.delete(tensor);
    registry.unregister(tensor);
    if (held.bytes > 0) native().adjustExternalMemory(-held.bytes);
  }
  native().releaseOne(slot);
}

/**
 * Takes a tensor out of the scope it was made in: no `tidy` frees it, `dispose` or the garbage collector does.
 * Parameters of models are kept this way.
 */
export function keep<Kept extends Tensor>(tensor: Kept): Kept {
  if (!escaped.has(tensor) && tensor.slot !== 0) leaveToCollector(tensor);
  return tensor;
}

/**
 * `keep` for tensors whose maker surely disposes of them: the garbage collector frees what was forgotten all the same, but
 * is not told their size, by which it would begin to look for garbage while there is none. @internal
 */
export function keepOwned<Kept extends Tensor>(tensor: Kept): Kept {
  if (!escaped.has(tensor) && tensor.slot !== 0) leaveToCollector(tensor, 0);
  return tensor;
}

let buffer = new Int32Array(1024);

/**
 * Runs `callback` and frees every tensor made in it, except those in its result: a tensor, or an array, map, set or
 * object that holds tensors at any depth. Nested calls hand their results to the outer one. The callback is synchronous.
 * When it throws, everything made in it is freed.
 */
export function tidy<Result>(callback: () => NotPromise<Result>): Result {
  const outer = current;
  const scope: Tensor[] = [];
  current = scope;
  let result: Result;
  try {
    result = callback();
    assertNotPromise('tidy', result);
  } catch (error) {
    current = outer;
    freeAll(scope, null);
    if (outer === null) afterOutermost?.(new Set());
    throw error;
  }
  current = outer;
  const kept = new Set<Tensor>();
  collect(result, kept);
  freeAll(scope, kept);
  if (outer === null) afterOutermost?.(kept);
  for (const tensor of scope) {
    if (kept.has(tensor) && tensor.slot !== 0 && !escaped.has(tensor)) adopt(tensor);
  }
  return result;
}

let afterOutermost: ((kept: ReadonlySet<Tensor>) => void) | undefined;

/** What is done when an outermost scope has ended, given what it returned: ./checkpoint.ts imports this module. @internal */
export function onScopeEnd(callback: typeof afterOutermost): void {
  afterOutermost = callback;
}

function freeAll(scope: readonly Tensor[], kept: ReadonlySet<Tensor> | null): void {
  if (scope.length > buffer.length) buffer = new Int32Array(scope.length * 2);
  let count = 0;
  for (const tensor of scope) {
    if (tensor.slot === 0 || kept?.has(tensor) === true || escaped.has(tensor)) continue;
    buffer[count++] = tensor.slot;
    tensor.slot = 0;
  }
  if (count > 0) native().release(buffer, count);
}

let isTensor: (value: object) => value is Tensor;

/** Tells this module how to recognise a tensor; the class itself would be a circular import. @internal */
export function recognise(test: typeof isTensor): void {
  isTensor = test;
}

// A stack and not recursion: results may be deep, and may refer to themselves.
function collect(result: unknown, into: Set<Tensor>): void {
  if (typeof result !== 'object' || result === null) return;
  if (isTensor(result)) {
    into.add(result);
    return;
  }
  const seen = new Set<object>();
  const pending: Iterable<unknown>[] = [[result]];
  for (let values = pending.pop(); values !== undefined; values = pending.pop()) {
    for (const value of values) {
      if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) continue;
      if (isTensor(value)) {
        into.add(value);
      } else if (!seen.has(value)) {
        seen.add(value);
        pending.push(elementsOf(value));
      }
    }
  }
}

function elementsOf(value: object): Iterable<unknown> {
  if (Array.isArray(value)) return value as unknown[];
  if (value instanceof Map) return entriesOf(value as Map<unknown, unknown>);
  return value instanceof Set ? value : Object.values(value);
}

function* entriesOf(map: ReadonlyMap<unknown, unknown>): Iterable<unknown> {
  yield* map.keys();
  yield* map.values();
}
