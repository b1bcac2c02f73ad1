import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tensor } from '../torch/index.js';
import {
  constantWhere,
  countedEntries,
  countedWeights,
  floatingDtype,
  maskedLogRatio,
  rowMean,
  weightedSum,
} from './counted.js';

describe('what counts', () => {
  test('is above 0; 0, negative and NaN are not', () => {
    const mask = tensor([[2, 0, -1, NaN]]);
    assert.deepEqual(countedEntries(mask).toArray(), [[1, 0, 0, 0]]);
    const { counted, weights } = countedWeights(mask);
    assert.deepEqual(counted.toArray(), [[1, 0, 0, 0]]);
    assert.deepEqual(weights.toArray(), [[2, 0, 0, 0]]);
  });

  test('junk at masked entries reaches neither value nor gradient; the other side is a constant', () => {
    const logprobs = tensor([[-1, -2, NaN]], { dtype: 'float64', requiresGrad: true });
    const other = tensor([[-1.5, -1, Infinity]], { dtype: 'float64', requiresGrad: true });
    const counted = countedEntries(tensor([[1, 1, 0]]));
    const ratio = maskedLogRatio(logprobs, other, counted);
    assert.deepEqual(ratio.toArray(), [[0.5, -1, 0]]);
    const weights = tensor([[0.25, 0.5, 0]], { dtype: 'float64' });
    const sum = weightedSum(ratio, weights);
    assert.equal(sum.item(), 0.125 - 0.5);
    sum.backward();
    assert.deepEqual(logprobs.grad?.toArray(), [[0.25, 0.5, 0]]);
    assert.equal(other.grad, null);
    const constant = constantWhere(logprobs, counted);
    assert.deepEqual([constant.toArray(), constant.requiresGrad], [[[-1, -2, 0]], false]);
  });

  test('a row mean is over its counted entries, 0 for a row without any', () => {
    const values = tensor([
      [1, 4, NaN],
      [7, 8, 9],
      [7, 8, 9],
    ]);
    const counted = countedEntries(
      tensor([
        [1, 1, 0],
        [0, 0, 0],
        [0, 1, 0],
      ]),
    );
    assert.deepEqual(rowMean(values, counted).toArray(), [[2.5], [0], [8]]);
  });
});

test('a result has the widest floating dtype; two 16-bit ones meet in float32', () => {
  const of = (...dtypes: ('float64' | 'float32' | 'bfloat16' | 'float16' | 'int64')[]) =>
    floatingDtype(...dtypes.map((dtype) => tensor([1], { dtype })));
  assert.equal(of('float32', 'float64'), 'float64');
  assert.equal(of('bfloat16', 'int64'), 'bfloat16');
  assert.equal(of('bfloat16', 'float16'), 'float32');
  assert.equal(of('int64'), 'float32');
});
