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
import { sequenceLogprob } from './index.js';

interface GoldenCase {
  average: boolean;
  logprobs: number[][];
  mask: number[][];
  upstream: number[];
  expected: { values: number[]; gradient: number[][] };
}

describe('sequenceLogprob', () => {
  for (const { average, expected, ...c } of goldenCases<GoldenCase>('sequence_logprob.json')) {
    test(`matches the reference implementation: average ${average}, value and gradient`, () => {
      const logprobs = leaf(c.logprobs);
      const sums = sequenceLogprob({ logprobs, mask: f64(c.mask), average });
      sums.mul(f64(c.upstream)).sum().backward();
      expectClose(sums, expected.values, EXACT);
      expectClose(gradientOf(logprobs), expected.gradient, EXACT);
    });
  }
  test('by hand: the sum, and the mean over counted tokens; an empty row is 0', () => {
    const logprobs = f64([
      [-1, -7, -3],
      [-4, -4, -4],
    ]);
    const mask = f64([
      [1, 0, 1],
      [0, 0, 0],
    ]);
    expectClose(sequenceLogprob({ logprobs, mask }), [-4, 0], EXACT);
    expectClose(sequenceLogprob({ logprobs, mask, average: true }), [-2, 0], EXACT);
  });
  test('uncounted tokens are never read, forward or backward', () => {
    for (const junk of JUNK) {
      for (const dtype of ['bool', 'int64', 'float32'] as const) {
        for (const average of [false, true]) {
          const logprobs = leaf([[-2, junk]]);
          const result = sequenceLogprob({ logprobs, mask: tensor([[1, 0]], { dtype }), average });
          result.sum().backward();
          assert.deepEqual(result.toArray(), [-2]);
          assert.deepEqual(gradientOf(logprobs).toArray(), [[1, 0]]);
          assert.equal(result.dtype, 'float64');
        }
      }
    }
  });
  test('rejects shapes that differ', () => {
    assert.throws(
      () => sequenceLogprob({ logprobs: f64([[1]]), mask: f64([[1, 1]]) }),
      new ShapeError(
        'sequenceLogprob: expected mask to have shape [B, T] = [1, 1] like logprobs, received [1, 2].',
      ),
    );
  });
});
