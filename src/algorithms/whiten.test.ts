import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  EXACT,
  f64,
  goldenCases,
  gradientOf,
  JUNK,
  leaf,
} from '../../test/golden/algorithms/golden.js';
import { ShapeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import { whiten } from './index.js';

interface GoldenCase {
  name: string;
  values: number[][];
  mask: number[][];
  keepMean: boolean;
  upstream: number[][];
  expected: { values: number[][]; gradient: number[][] };
}

describe('whiten', () => {
  for (const { name, expected, keepMean, ...c } of goldenCases<GoldenCase>('whiten.json')) {
    test(`matches the reference implementation: ${name}, value and gradient`, () => {
      const values = leaf(c.values);
      const whitened = whiten({ values, mask: f64(c.mask), keepMean });
      whitened.mul(f64(c.upstream)).sum().backward();
      expectClose(whitened, expected.values, EXACT);
      expectClose(gradientOf(values), expected.gradient, EXACT);
    });
  }
  test('by hand: the variance divides by the number of counted entries', () => {
    // 1, 3, 5: mean 3, variance 8/3 (not 4).
    const values = f64([[1, 3, 9, 5]]);
    const mask = f64([[1, 1, 0, 1]]);
    const z = 2 / Math.sqrt(8 / 3 + 1e-8);
    expectClose(whiten({ values, mask }), [[-z, 0, 0, z]], EXACT);
    expectClose(whiten({ values, mask, keepMean: true }), [[3 - z, 3, 0, 3 + z]], EXACT);
  });
  test('a batch without variance is 0 up to rounding, one without a counted entry exactly 0', () => {
    const same = whiten({ values: f64([[0.1, 0.1, 0.1]]), mask: f64([[1, 1, 1]]) });
    expectClose(same, [[0, 0, 0]], { atol: 1e-9 });
    for (const keepMean of [false, true]) {
      const none = whiten({ values: f64([[1, 2]]), mask: f64([[0, 0]]), keepMean });
      assert.deepEqual(none.toArray(), [[0, 0]]);
    }
  });
  test('extra padding changes nothing', () => {
    const narrow = whiten({ values: f64([[1, 2, 4]]), mask: f64([[1, 1, 1]]) });
    const wide = whiten({ values: f64([[1, 2, 4, 50, 60]]), mask: f64([[1, 1, 1, 0, 0]]) });
    assert.deepEqual(wide.slice(1, 0, 3).toArray(), narrow.toArray());
  });
  test('uncounted entries are never read, forward or backward, and give exactly 0', () => {
    for (const junk of JUNK) {
      for (const dtype of ['bool', 'int64', 'float32'] as const) {
        for (const keepMean of [false, true]) {
          const values = leaf([[1, junk, 4]]);
          const whitened = whiten({ values, mask: tensor([[1, 0, 1]], { dtype }), keepMean });
          whitened.select(1, 2).sum().backward();
          assert.equal(whitened.select(1, 1).item(), 0);
          assert.equal(gradientOf(values).select(1, 1).item(), 0);
          const z = 1.5 / Math.sqrt(2.25 + 1e-8);
          expectClose(whitened.select(1, 0), [(keepMean ? 2.5 : 0) - z], EXACT);
        }
      }
    }
  });
  test('keeps the floating dtype, and a mean that bfloat16 cannot hold is not rounded', () => {
    // 100, 101, 101: the mean 100.67 would be 100.5 in bfloat16, and the results −1, 1, 1.
    const values = tensor([[100, 101, 101]], { dtype: 'bfloat16' });
    const whitened = whiten({ values, mask: values });
    assert.equal(whitened.dtype, 'bfloat16');
    expectClose(whitened, [[-Math.SQRT2, Math.SQRT1_2, Math.SQRT1_2]], { rtol: 4e-3 });
  });
  test('rejects shapes that differ', () => {
    assert.throws(
      () => whiten({ values: f64([[1]]), mask: f64([1]) }),
      new ShapeError(
        'whiten: expected mask to have shape [B, T] = [1, 1] like values, received [1].',
      ),
    );
  });
});
