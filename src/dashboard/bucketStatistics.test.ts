import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BLOCK_LINES, BlockStatistics, statisticsOf } from './bucketStatistics.js';

describe('BlockStatistics', () => {
  test('says of any stretch of a growing column what reading it says', () => {
    const lines = 5 * BLOCK_LINES + 17;
    const values = Float64Array.from({ length: lines }, (_, at) =>
      at % 7 === 3 ? NaN : ((at * 37) % 101) - 50,
    );
    const blocks = new BlockStatistics();
    for (let end = 1; end <= lines; end += 13) {
      for (const from of [0, 1, BLOCK_LINES - 1, BLOCK_LINES, 2 * BLOCK_LINES + 5]) {
        if (from > end) continue;
        const known = values.subarray(0, end);
        assert.deepEqual(blocks.of(known, from, end), statisticsOf(values, from, end));
      }
    }
  });

  test('by hand: least, largest, sum and number of the finite values', () => {
    const values = Float64Array.of(4, NaN, -1, Infinity, 2);
    assert.deepEqual(statisticsOf(values, 0, 5), { min: -1, max: 4, sum: 5, count: 3 });
    const none = { min: Infinity, max: -Infinity, sum: 0, count: 0 };
    assert.deepEqual(statisticsOf(values, 1, 2), none);
  });
});
