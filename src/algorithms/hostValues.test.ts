import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tensor } from '../torch/index.js';
import {
  assertFraction,
  fromHost,
  hasNoVariance,
  hostRows,
  isScored,
  mean,
  rewardGroups,
  toHost,
  unbiasedStd,
} from './hostValues.js';

describe('host values', () => {
  test('rows go out in order and come back with shape and the widest dtype, without a gradient', () => {
    const values = tensor(
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      { dtype: 'float64', requiresGrad: true },
    );
    assert.deepEqual([...toHost(values)], [1, 2, 3, 4, 5, 6]);
    assert.deepEqual(
      hostRows(values).map((row) => [...row]),
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
    );
    const back = fromHost([6, 5, 4, 3, 2, 1], [3, 2], tensor([0]), values);
    assert.deepEqual(back.toArray(), [
      [6, 5],
      [4, 3],
      [2, 1],
    ]);
    assert.deepEqual([back.dtype, back.requiresGrad], ['float64', false]);
  });

  test('mean 4 and unbiased deviation 2 of 2, 4, 6; variance of what was scored', () => {
    assert.equal(mean([2, 4, 6]), 4);
    assert.equal(unbiasedStd([2, 4, 6]), 2);
    assert.deepEqual([unbiasedStd([3]), mean([])], [NaN, NaN]);
    assert.deepEqual([[], [1], [2, 2], [2, 3]].map(hasNoVariance), [true, true, true, false]);
    assert.deepEqual([isScored(0), isScored(NaN)], [true, false]);
  });

  test('groups are contiguous, NaN stays; other sizes and infinite rewards are refused', () => {
    assert.deepEqual(rewardGroups('f', tensor([1, 2, NaN, 4]), 2, 2), [
      [1, 2],
      [NaN, 4],
    ]);
    assert.throws(() => rewardGroups('f', tensor([1, 2, 3]), 2, 2), {
      code: 'E_SHAPE',
      message: 'f: expected B to be a multiple of groupSize 2, received 3 rewards.',
    });
    assert.throws(() => rewardGroups('f', tensor([1, -Infinity]), 2, 2), {
      code: 'E_RANGE',
      message:
        'f: expected finite rewards, or NaN for an unscored row, received -Infinity in row 1.',
    });
    assert.throws(() => rewardGroups('f', tensor([1, 2]), 1, 2), { code: 'E_RANGE' });
  });

  test('a fraction is from 0 to 1, and no NaN', () => {
    for (const value of [0, 0.5, 1]) assertFraction('f', 'λ', value);
    for (const value of [-0.1, 1.1, NaN])
      assert.throws(() => assertFraction('f', 'λ', value), {
        code: 'E_RANGE',
        message: `f: expected λ to be a number from 0 to 1, received ${value}.`,
      });
  });
});
