/** Reads the golden files of this folder, and makes the tensors that tests of `src/algorithms` share. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { tensor, type Tensor } from '../../../src/torch/index.js';
import { ROOT } from '../../root.js';

/** Numbers in nested arrays. */
export type Rows = number[] | number[][] | number[][][];

/** Golden values were computed in float64; what differs is the order of a few sums. */
export const EXACT = { rtol: 1e-9, atol: 1e-12 };

/** What may stand at a token that does not count. */
export const JUNK = [1e4, -1e4, Infinity, -Infinity, NaN] as const;

/** The cases of one golden file, with "NaN", "Infinity" and "-Infinity" as numbers. */
export function goldenCases<Case>(name: string): Case[] {
  const text = readFileSync(join(ROOT, 'test/golden/algorithms', name), 'utf8');
  const special = new Set(['NaN', 'Infinity', '-Infinity']);
  const file = JSON.parse(text, (_, value: unknown) =>
    typeof value === 'string' && special.has(value) ? Number(value) : value,
  ) as { cases: Case[] };
  return file.cases;
}

/** A float64 constant. */
export function f64(values: Rows): Tensor {
  return tensor(values, { dtype: 'float64' });
}

/** A float64 leaf that collects a gradient. */
export function leaf(values: Rows): Tensor {
  return tensor(values, { dtype: 'float64', requiresGrad: true });
}

/** The accumulated gradient as numbers; fails the test where there is none. */
export function gradientOf(values: Tensor): Tensor {
  const { grad } = values;
  assert.ok(grad, 'no gradient has reached this tensor');
  return grad;
}

/** `values` with `junk` at every position where `mask` is 0. */
export function junkWhere(
  values: readonly (readonly number[])[],
  mask: readonly (readonly number[])[],
  junk: number,
): number[][] {
  return values.map((row, i) => row.map((value, t) => ((mask[i]?.[t] ?? 0) > 0 ? value : junk)));
}

/** Fails unless both hold the same numbers in the same shape, to the last bit. */
export function expectSame(actual: Tensor, expected: Tensor): void {
  assert.deepEqual(actual.toArray(), expected.toArray());
}
