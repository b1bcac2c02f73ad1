/**
 * The one place that decides when two numbers are close enough, for every test.
 */
import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import type { Tensor } from '../src/torch/index.js';

/** Loosest tolerance a test may ask for. Anything larger is a typo (1e6 for 1e-6) or a broken kernel. */
const MAX_TOLERANCE = 1e-2;

/** Numbers in nested arrays; every array of one level has the same length. */
export type Nested = number | readonly Nested[] | ArrayLike<number>;

/** How close is close. */
export interface Tolerance {
  /** Relative to the expected value. */
  readonly rtol?: number;
  /** Absolute. */
  readonly atol?: number;
  /** Whether NaN is the right answer where the expected value is NaN. */
  readonly nanIsEqual?: boolean;
}

/**
 * Fails unless |actual − expected| ≤ atol + rtol·|expected| for every element and the nesting is the same. Infinities
 * are equal only to themselves; NaN equals nothing unless `nanIsEqual`. The failure names the worst element.
 *
 * @throws AssertionError when the values differ, when their shapes differ, or when a tolerance exceeds 1e-2.
 */
export function expectClose(
  actual: Tensor | Nested,
  expected: Tensor | Nested,
  { rtol = 1e-6, atol = 1e-9, nanIsEqual = false }: Tolerance = {},
): void {
  assert.ok(
    rtol >= 0 && rtol <= MAX_TOLERANCE && atol >= 0 && atol <= MAX_TOLERANCE,
    `expectClose: rtol=${rtol}, atol=${atol} are too loose to test anything (at most ${MAX_TOLERANCE}).`,
  );
  const got = flatten(actual);
  const want = flatten(expected);
  assert.deepEqual(got.shape, want.shape, 'expectClose: the shapes differ (actual, expected)');
  let worst = { index: -1, excess: 0 };
  let count = 0;
  want.values.forEach((value, index) => {
    const excess = excessOf(got.values[index] ?? NaN, value, { rtol, atol, nanIsEqual });
    if (excess > 1) count += 1;
    if (excess > 1 && excess > worst.excess) worst = { index, excess };
  });
  if (count === 0) return;
  const [a, e] = [got.values[worst.index] ?? NaN, want.values[worst.index] ?? NaN];
  assert.fail(
    `expectClose: ${count} of ${want.values.length} elements differ. Worst at ${position(worst.index, want.shape)}: ` +
      `expected ${e}, received ${a}, difference ${Math.abs(a - e)} (rtol=${rtol}, atol=${atol}).`,
  );
}

/** How many times the allowed difference the difference is; 1 and less is close enough. */
function excessOf(actual: number, expected: number, tolerance: Required<Tolerance>): number {
  if (Number.isNaN(actual) && Number.isNaN(expected))
    return tolerance.nanIsEqual ? 0 : Number.POSITIVE_INFINITY;
  if (actual === expected) return 0;
  if (!Number.isFinite(actual) || !Number.isFinite(expected)) return Number.POSITIVE_INFINITY;
  const allowed = tolerance.atol + tolerance.rtol * Math.abs(expected);
  const difference = Math.abs(actual - expected);
  return allowed === 0 ? Number.POSITIVE_INFINITY : difference / allowed;
}

interface Flat {
  readonly shape: number[];
  readonly values: number[];
}

function flatten(value: Tensor | Nested): Flat {
  const nested: unknown = isTensor(value) ? value.toArray() : value;
  const values: number[] = [];
  return { shape: collect(nested, values), values };
}

function isTensor(value: Tensor | Nested): value is Tensor {
  return typeof value === 'object' && 'toArray' in value && typeof value.toArray === 'function';
}

/** Appends the numbers of `value` to `into` and gives its shape. */
function collect(value: unknown, into: number[]): number[] {
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') {
    into.push(Number(value));
    return [];
  }
  const elements: unknown[] | undefined = Array.isArray(value)
    ? value
    : ArrayBuffer.isView(value) && Symbol.iterator in value
      ? Array.from(value as unknown as Iterable<unknown>)
      : undefined;
  assert.ok(
    elements,
    `expectClose: expected numbers in nested arrays, received ${inspect(value)}.`,
  );
  const shapes = elements.map((element) => collect(element, into));
  const [first = []] = shapes;
  for (const shape of shapes)
    assert.deepEqual(shape, first, 'expectClose: rows of different lengths in one value');
  return [elements.length, ...first];
}

function position(index: number, shape: readonly number[]): string {
  const coordinates: number[] = [];
  let rest = index;
  for (const size of shape.toReversed()) {
    coordinates.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return `[${coordinates.join(', ')}]`;
}
