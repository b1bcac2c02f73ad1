import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { collateLines, rowBatches } from './packedRows.js';
import type { TokenRow } from './tokenRows.js';

const rowOf = (promptIds: number[], completionIds: number[]): TokenRow => ({
  promptIds,
  completionIds,
});
const [a, b, c] = [rowOf([1, 2], [3, 4, 5]), rowOf([6], [7]), rowOf([8, 9], [10])];

describe('collateLines', () => {
  test('rows stand side by side with numbers of their own, and padding has 0', () => {
    const batch = collateLines([[b, c], [a]], 'cpu');
    assert.deepEqual(batch.inputIds.toArray(), [
      [6, 7, 8, 9, 10],
      [1, 2, 3, 4, 5],
    ]);
    assert.deepEqual(batch.packed?.sequenceIds.toArray(), [
      [1, 1, 2, 2, 2],
      [1, 1, 1, 1, 1],
    ]);
    assert.deepEqual(batch.packed?.places, [
      { line: 0, start: 0 },
      { line: 0, start: 2 },
      { line: 1, start: 0 },
    ]);
    assert.deepEqual(batch.promptLengths, [1, 2, 2]);
    assert.deepEqual(batch.lengths, [2, 3, 5]);
    assert.equal(batch.columns, 3);
  });
  test('a shorter line is padded at its end', () => {
    const { inputIds, packed } = collateLines([[b], [c]], 'cpu');
    assert.deepEqual(inputIds.toArray(), [
      [6, 7, 0],
      [8, 9, 10],
    ]);
    assert.deepEqual(packed?.sequenceIds.toArray(), [
      [1, 1, 0],
      [1, 1, 1],
    ]);
  });
});

describe('rowBatches', () => {
  test('packed lines are as long as the longest row, and a pass has as many as fit', () => {
    const rows = [a, b, c];
    assert.deepEqual(
      rowBatches(rows, 10, { packing: true }).map((batch) => batch.rows),
      [[a, c, b]],
    );
    assert.deepEqual(
      rowBatches(rows, 9, { packing: true }).map((batch) => batch.rows),
      [[a], [c, b]],
    );
    assert.equal(rowBatches(rows, 10, { packing: true })[0]?.collate('cpu').inputIds.numel, 10);
  });
  test('without packing every row has a line of its own', () => {
    const [batch, ...others] = rowBatches([a, b, c], 100, { packing: false });
    assert.deepEqual(others, []);
    assert.deepEqual(batch?.rows, [a, c, b]);
    const collated = batch?.collate('cpu');
    assert.equal(collated?.packed, undefined);
    assert.deepEqual(collated?.inputIds.shape, [3, 5]);
  });
});
