import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ValueRangeError } from '../errors/index.js';
import { packBestFit } from './packing.js';
import { SeededRandom } from './random.js';

describe('packBestFit', () => {
  test('takes the longest first and the fullest bin that has room, by hand', () => {
    // 7 | 6 | 5; 3 fits beside 7 exactly; 3 beside 6 leaves 1; 2 beside 5 leaves 3; 1 goes beside 6, which is fuller.
    assert.deepEqual(packBestFit([3, 5, 7, 1, 6, 2, 3], 10), [
      [2, 0],
      [4, 6, 3],
      [1, 5],
    ]);
  });
  test('the first bin with room is not taken where a fuller one fits', () => {
    // First fit would put 2 beside 6.
    assert.deepEqual(packBestFit([6, 8, 2], 10), [[1, 2], [0]]);
    assert.deepEqual(packBestFit([5, 7, 6, 3], 11), [
      [1, 3],
      [2, 0],
    ]);
  });
  test('lengths of the capacity have bins of their own, and equal ones keep their order', () => {
    assert.deepEqual(packBestFit([4, 4, 4], 4), [[0], [1], [2]]);
    assert.deepEqual(packBestFit([2, 2, 2, 2], 4), [
      [0, 1],
      [2, 3],
    ]);
    assert.deepEqual(packBestFit([], 4), []);
  });
  test('every index is in one bin, no bin is too full, and there are at most 11/9 of the fewest and one', () => {
    const random = new SeededRandom(3);
    for (let round = 0; round < 20; round++) {
      const lengths = Array.from({ length: 200 }, () => 1 + random.nextInt(40));
      const bins = packBestFit(lengths, 50);
      assert.deepEqual(
        bins.flat().sort((a, b) => a - b),
        lengths.map((_, index) => index),
      );
      const sums = bins.map((bin) => bin.reduce((sum, at) => sum + (lengths[at] ?? NaN), 0));
      assert.ok(Math.max(...sums) <= 50, 'a bin is too full');
      const total = lengths.reduce((sum, length) => sum + length, 0);
      assert.ok(bins.length <= (11 / 9) * Math.ceil(total / 50) + 1, `${bins.length} bins`);
    }
  });
  test('a length that fits nowhere is refused', () => {
    for (const [lengths, message] of [
      [[3, 11], 'packBestFit: expected lengths[1] to be an integer from 1 to 10, received 11.'],
      [[0], 'packBestFit: expected lengths[0] to be an integer from 1 to 10, received 0.'],
      [[1.5], 'packBestFit: expected lengths[0] to be an integer from 1 to 10, received 1.5.'],
    ] as const) {
      assert.throws(
        () => packBestFit(lengths, 10),
        (error) => error instanceof ValueRangeError && error.message === message,
      );
    }
  });
});
