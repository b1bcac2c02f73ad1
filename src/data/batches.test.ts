import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { padRight, SeededRandom, splitRows, tokenBudgetBatches } from './index.js';

describe('padRight', () => {
  test('fills shorter rows at the right and keeps their lengths', () => {
    assert.deepEqual(padRight([[5, 6, 7], [8], []], 9), {
      ids: Int32Array.from([5, 6, 7, 8, 9, 9, 9, 9, 9]),
      rows: 3,
      columns: 3,
      lengths: [3, 1, 0],
    });
  });

  test('lengths tell real tokens from padding even where both have the same id', () => {
    const padded = padRight([[1, 9], [1]], 9);
    assert.deepEqual([...padded.ids], [1, 9, 1, 9]);
    assert.deepEqual(padded.lengths, [2, 1]);
  });

  test('rejects nothing', () => {
    for (const sequences of [[], [[]]]) {
      assert.throws(() => padRight(sequences, 0), {
        code: 'E_RANGE',
        message: 'padRight: expected at least one token, received none.',
      });
    }
  });
});

describe('tokenBudgetBatches', () => {
  test('by hand: longest first, padding counted', () => {
    // 4+4 fit 8; a third row of 3 would cost 3·4 = 12. Then 3+2 (2·3 = 6), then 1.
    assert.deepEqual(tokenBudgetBatches([1, 4, 2, 4, 3], 8), [[1, 3], [4, 2], [0]]);
  });

  test('keeps every row once and within the limits', () => {
    const random = new SeededRandom(0);
    const lengths = Array.from({ length: 300 }, () => 1 + random.nextInt(50));
    const batches = tokenBudgetBatches(lengths, 120, 7);
    assert.deepEqual(
      batches.flat().sort((a, b) => a - b),
      lengths.map((_, index) => index),
    );
    for (const batch of batches) {
      const longest = Math.max(...batch.map((index) => lengths[index] ?? 0));
      assert.ok(batch.length <= 7 && batch.length * longest <= 120);
    }
  });

  test('a row longer than the budget stands alone', () => {
    assert.deepEqual(tokenBudgetBatches([2, 20, 2], 5), [[1], [0, 2]]);
  });

  test('rejects limits that are not positive integers', () => {
    for (const limit of [0, -1, 1.5, Number.NaN]) {
      assert.throws(() => tokenBudgetBatches([1], limit), {
        code: 'E_RANGE',
        message: `tokenBudgetBatches: expected maxTokens to be a positive integer, received ${limit}.`,
      });
    }
    assert.throws(() => tokenBudgetBatches([1], 5, 0), {
      message: 'tokenBudgetBatches: expected maxRows to be a positive integer, received 0.',
    });
    assert.deepEqual(tokenBudgetBatches([1, 1], Infinity), [[0, 1]]);
  });
});

describe('splitRows', () => {
  const rows = Array.from({ length: 20 }, (_, index) => index);

  test('the sides are disjoint, complete, in order, and of the asked size', () => {
    for (const size of [{ evalFraction: 0.25 }, { evalCount: 5 }]) {
      const split = splitRows(rows, { ...size, seed: 3 });
      assert.equal(split.eval.length, 5);
      assert.deepEqual(
        [...split.train, ...split.eval].sort((a, b) => a - b),
        rows,
      );
      assert.deepEqual(
        split.eval,
        [...split.eval].sort((a, b) => a - b),
      );
      assert.deepEqual(
        split.train,
        [...split.train].sort((a, b) => a - b),
      );
    }
  });

  test('depends on the seed and on nothing else', () => {
    const once = splitRows(rows, { evalCount: 5, seed: 1 });
    assert.deepEqual(splitRows(rows, { evalCount: 5, seed: 1 }), once);
    assert.notDeepEqual(splitRows(rows, { evalCount: 5, seed: 2 }).eval, once.eval);
  });

  test('a small share of few rows still holds one out', () => {
    assert.equal(splitRows([1, 2, 3], { evalFraction: 0.01, seed: 0 }).eval.length, 1);
  });

  test('rejects splits with an empty side and sizes without meaning', () => {
    assert.throws(() => splitRows([1, 2], { evalCount: 2, seed: 0 }), {
      code: 'E_DATA',
      message:
        'splitRows: expected at least one row on each side, received 2 rows of which 2 would be held out.',
    });
    assert.throws(() => splitRows([1], { evalFraction: 0.5, seed: 0 }), { code: 'E_DATA' });
    for (const evalFraction of [0, 1, Number.NaN]) {
      assert.throws(() => splitRows(rows, { evalFraction, seed: 0 }), {
        code: 'E_RANGE',
        message: `splitRows: expected evalFraction to be between 0 and 1, received ${evalFraction}.`,
      });
    }
    assert.throws(() => splitRows(rows, { evalCount: 0.5, seed: 0 }), {
      code: 'E_RANGE',
      message: 'splitRows: expected evalCount to be a positive integer, received 0.5.',
    });
  });
});
