import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { groupMinibatches, updatesPerStep } from './minibatches.js';

describe('groupMinibatches', () => {
  const rows = Array.from({ length: 24 }, (_, index) => index);
  const minibatches = (partSize: number, seed = 1): number[][] =>
    groupMinibatches(rows, { groupSize: 3, partSize, seed });

  test('every row once, groups whole and in order', () => {
    for (const partSize of [3, 6, 12]) {
      const parts = minibatches(partSize);
      assert.ok(parts.every((part) => part.length === partSize));
      assert.deepEqual(
        parts.flat().sort((a, b) => a - b),
        rows,
      );
      const all = parts.flat();
      for (let start = 0; start < 24; start += 3) {
        const first = all[start] ?? NaN;
        assert.equal(first % 3, 0);
        assert.deepEqual(all.slice(start, start + 3), [first, first + 1, first + 2]);
      }
    }
  });

  test('groups are shuffled by the seed', () => {
    assert.notDeepEqual(minibatches(6).flat(), rows);
    assert.notDeepEqual(minibatches(6, 1), minibatches(6, 2));
    assert.deepEqual(minibatches(6, 1), minibatches(6, 1));
  });

  test('a single part is the batch as it is', () => {
    assert.deepEqual(minibatches(24), [rows]);
  });
});

describe('updatesPerStep', () => {
  const config = { updatesPerRollout: 3, promptsPerStep: 4, groupSize: 2, minibatchSize: null };

  test('by hand: passes, times minibatches of a pass', () => {
    assert.equal(updatesPerStep(config), 3);
    assert.equal(updatesPerStep({ ...config, minibatchSize: 8 }), 3);
    assert.equal(updatesPerStep({ ...config, minibatchSize: 2 }), 12);
  });
});
