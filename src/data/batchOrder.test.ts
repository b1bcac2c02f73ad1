import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BatchOrder } from './index.js';

const take = (order: BatchOrder, batches: number): number[][] =>
  Array.from({ length: batches }, () => order.next());

describe('BatchOrder', () => {
  test('every epoch holds each row once, and every batch is full', () => {
    const order = new BatchOrder({ rowCount: 10, batchSize: 4, seed: 1 });
    const rows = take(order, 10).flat(); // 40 rows: four epochs exactly
    assert.equal(rows.length, 40);
    for (let epoch = 0; epoch < 4; epoch++) {
      const seen = rows.slice(epoch * 10, epoch * 10 + 10).sort((a, b) => a - b);
      assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
    assert.deepEqual(order.state(), { epoch: 4, position: 0 });
  });

  test('continues after every batch exactly as without the interruption, at epoch borders too', () => {
    const options = { rowCount: 7, batchSize: 3, seed: 5 };
    const whole = take(new BatchOrder(options), 14);
    for (let stop = 0; stop < 14; stop++) {
      const first = new BatchOrder(options);
      const before = take(first, stop);
      const state = JSON.parse(JSON.stringify(first.state())) as ReturnType<BatchOrder['state']>;
      const after = take(new BatchOrder(options, state), 14 - stop);
      assert.deepEqual([...before, ...after], whole, `stopped after ${stop} batches`);
    }
  });

  test('epochs and seeds differ in order', () => {
    const options = { rowCount: 50, batchSize: 50, seed: 0 };
    const [first, second] = take(new BatchOrder(options), 2);
    assert.notDeepEqual(first, second);
    assert.notDeepEqual(take(new BatchOrder({ ...options, seed: 1 }), 1)[0], first);
    assert.deepEqual(take(new BatchOrder(options), 2), [first, second]);
  });

  test('keeps the order of the file on request', () => {
    const order = new BatchOrder({ rowCount: 3, batchSize: 2, seed: 0, shuffle: false });
    assert.deepEqual(take(order, 3), [
      [0, 1],
      [2, 0],
      [1, 2],
    ]);
  });

  test('batches larger than the data repeat rows rather than shrink', () => {
    const order = new BatchOrder({ rowCount: 2, batchSize: 5, seed: 0, shuffle: false });
    assert.deepEqual(order.next(), [0, 1, 0, 1, 0]);
    assert.deepEqual(order.state(), { epoch: 2, position: 1 });
  });

  test('rejects counts and positions that do not fit', () => {
    assert.throws(() => new BatchOrder({ rowCount: 0, batchSize: 1, seed: 0 }), {
      code: 'E_RANGE',
      message: 'BatchOrder: expected rowCount to be a positive integer, received 0.',
    });
    assert.throws(() => new BatchOrder({ rowCount: 1, batchSize: 1.5, seed: 0 }), {
      message: 'BatchOrder: expected batchSize to be a positive integer, received 1.5.',
    });
    for (const [epoch, position] of [
      [0, 4],
      [-1, 0],
      [0, 0.5],
    ] as const) {
      assert.throws(
        () => new BatchOrder({ rowCount: 4, batchSize: 1, seed: 0 }, { epoch, position }),
        {
          code: 'E_RANGE',
          message: `BatchOrder: expected a position below 4 rows, received epoch ${epoch}, position ${position}.`,
        },
      );
    }
  });
});
