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

describe('BatchOrder with a mixture', () => {
  // Rows 0 to 5 are of the first source, 6 to 9 of the second one.
  const sources = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1];
  const mixture = { sources, weights: [3, 1] };
  const draw = (count: number, options: object = {}): number[] => {
    const order = new BatchOrder({ rowCount: 10, batchSize: 1, seed: 7, mixture, ...options });
    return Array.from({ length: count }, () => order.next()[0] ?? NaN);
  };
  const epochsOf = (rows: number[]): number[][] =>
    Array.from({ length: rows.length / 10 }, (_, epoch) => rows.slice(epoch * 10, epoch * 10 + 10));

  test('an epoch is as long as the rows, and each source makes its share of it', () => {
    for (const epoch of epochsOf(draw(50))) {
      assert.equal(epoch.filter((row) => row < 6).length, 8); // 10 · 3/4, rounded
      assert.equal(epoch.filter((row) => row >= 6).length, 2);
    }
  });
  test('no row of a source comes twice before all of them have come once', () => {
    const rows = draw(60);
    const [first, second] = [rows.filter((row) => row < 6), rows.filter((row) => row >= 6)];
    for (let pass = 0; pass < 2; pass++) {
      assert.equal(new Set(second.slice(pass * 4, pass * 4 + 4)).size, 4);
    }
    // A pass that ends within an epoch stands there in any order, so that epochs are counted together.
    const counts = [0, 1, 2, 3, 4, 5].map((row) => first.filter((drawn) => drawn === row).length);
    assert.deepEqual(counts, [8, 8, 8, 8, 8, 8]);
  });
  test('the order is of the seed, differs from epoch to epoch, and does not go source by source', () => {
    assert.deepEqual(draw(30), draw(30));
    assert.notDeepEqual(draw(30), draw(30, { seed: 8 }));
    const [one, two] = epochsOf(draw(20));
    assert.notDeepEqual(one, two);
    const turns = (one ?? []).filter(
      (row, at) => at > 0 && sources[row] !== sources[one?.[at - 1] ?? 0],
    );
    assert.ok(turns.length > 1, 'the sources stand one after the other');
  });
  test('it goes on where it was left, in the middle of an epoch too', () => {
    const all = draw(40);
    const order = new BatchOrder({ rowCount: 10, batchSize: 1, seed: 7, mixture });
    for (let at = 0; at < 17; at++) order.next();
    const again = new BatchOrder({ rowCount: 10, batchSize: 1, seed: 7, mixture }, order.state());
    assert.deepEqual(
      Array.from({ length: 23 }, () => again.next()[0]),
      all.slice(17),
    );
  });
  test('without shuffling, the sources go through their rows in order', () => {
    assert.deepEqual(draw(20, { shuffle: false }), [
      ...[0, 1, 2, 3, 4, 5, 0, 1, 6, 7],
      ...[2, 3, 4, 5, 0, 1, 2, 3, 8, 9],
    ]);
  });
  test('sources of equal size do not give their rows in the same order', () => {
    const three = Array.from({ length: 14 }, (_, row) => (row < 6 ? 0 : row < 12 ? 1 : 2));
    const rows = draw(14, { rowCount: 14, mixture: { sources: three, weights: [1, 1, 3] } });
    const places = (from: number): number[] =>
      rows
        .flatMap((row) => (row >= from && row < from + 6 ? [row - from] : []))
        .sort((a, b) => a - b);
    assert.equal(places(0).length, 3);
    assert.equal(places(6).length, 3);
    assert.notDeepEqual(places(0), places(6));
  });
  test('weights that fit no source, or none, are refused', () => {
    for (const [weights, received] of [
      [[3, 1, 1], '6, 4, 0 of 10 rows'],
      [[1], '6 of 10 rows'],
    ] as const) {
      assert.throws(() => draw(1, { mixture: { sources, weights } }), {
        code: 'E_RANGE',
        message: `BatchOrder: expected a row of each of ${weights.length} sources and a weight for each row's source, received ${received}.`,
      });
    }
    assert.throws(() => draw(1, { mixture: { sources, weights: [1, 0] } }), {
      message: 'BatchOrder: expected weights that are positive, received 1, 0.',
    });
  });
});
