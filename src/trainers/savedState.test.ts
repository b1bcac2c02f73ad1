import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CheckpointError } from '../errors/index.js';
import { savedCount, savedOrder } from './savedState.js';

const rejects = (read: () => unknown, message: RegExp): void => {
  assert.throws(read, (error: Error) => {
    assert.ok(error instanceof CheckpointError);
    assert.match(error.message, message);
    return true;
  });
};

describe('savedCount', () => {
  test('reads non-negative integers', () => {
    assert.equal(savedCount('T', { step: 0 }, 'step'), 0);
    assert.equal(savedCount('T', { step: 41 }, 'step'), 41);
  });

  for (const value of [-1, 0.5, '5', null, undefined, NaN, [1]]) {
    test(`rejects ${JSON.stringify(value) ?? 'nothing'}`, () => {
      rejects(
        () => savedCount('T', { step: value }, 'step'),
        /^T: expected step of the saved state to be a non-negative integer, received /,
      );
    });
  }
});

describe('savedOrder', () => {
  test('reads a position below the number of rows', () => {
    const order = { epoch: 3, position: 4 };
    assert.deepEqual(savedOrder('T', { order }, 5), order);
  });

  test('rejects a position in other data', () => {
    rejects(
      () => savedOrder('T', { order: { epoch: 0, position: 5 } }, 5),
      /order\.position to be below the 5 rows of the data, received 5/,
    );
  });

  for (const order of [undefined, null, 7, 'here', {}, { epoch: 0 }, { epoch: '1', position: 0 }]) {
    test(`rejects ${JSON.stringify(order) ?? 'nothing'}`, () => {
      rejects(() => savedOrder('T', { order }, 5), /expected order\.(epoch|position)/);
    });
  }
});
