/** Checks of arguments that many functions share, with one wording. */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import type { Tensor } from './tensor.js';

/** A shape as it is written in messages: [2, 3]. */
export function showShape(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

/**
 * Every tensor has the shape of the first one, and that has as many dimensions as `layout` names.
 *
 * @param where the function whose arguments these are
 * @param layout the shape in letters, for example `[B, T]`
 * @param tensors by argument name, in order
 * @throws ShapeError naming the argument, what was expected and what was received
 */
export function assertSameShape(
  where: string,
  layout: string,
  tensors: Readonly<Record<string, Tensor>>,
): void {
  const [first, ...rest] = Object.entries(tensors);
  if (first === undefined) return;
  const [firstName, reference] = first;
  assertRank(where, layout, { [firstName]: reference });
  const expected = showShape(reference.shape);
  for (const [name, { shape }] of rest) {
    const received = showShape(shape);
    if (received !== expected) {
      throw new ShapeError(
        `${where}: expected ${name} to have shape ${layout} = ${expected} like ${firstName}, received ${received}.`,
      );
    }
  }
}

/** Every tensor has as many dimensions as `layout` names. @throws ShapeError */
export function assertRank(
  where: string,
  layout: string,
  tensors: Readonly<Record<string, Tensor>>,
): void {
  const inner = layout.slice(1, -1).trim();
  const rank = inner === '' ? 0 : inner.split(',').length;
  for (const [name, { shape }] of Object.entries(tensors)) {
    if (shape.length !== rank) {
      throw new ShapeError(
        `${where}: expected ${name} to have shape ${layout}, received ${showShape(shape)}.`,
      );
    }
  }
}

/** `value` is a finite number above 0. @throws ValueRangeError */
export function assertPositive(where: string, name: string, value: number): void {
  if (!(value > 0 && Number.isFinite(value))) {
    throw new ValueRangeError(
      `${where}: expected ${name} to be a positive number, received ${value}.`,
    );
  }
}

/** `value` is an integer of at least `minimum`. @throws ValueRangeError */
export function assertIntegerAtLeast(
  where: string,
  name: string,
  value: number,
  minimum: number,
): void {
  if (!Number.isInteger(value) || value < minimum) {
    throw new ValueRangeError(
      `${where}: expected ${name} to be an integer of at least ${minimum}, received ${value}.`,
    );
  }
}
