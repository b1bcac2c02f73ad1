import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { CheckpointError } from '../errors/index.js';
import { RunningMoments } from './runningMoments.js';

describe('RunningMoments', () => {
  test('by hand: 1, 2, 6 have mean 3 and the unbiased variance (4 + 1 + 9)/2', () => {
    const moments = new RunningMoments();
    moments.add([1, 2, 6]);
    expectClose(moments.mean, 3);
    expectClose(moments.std, Math.sqrt(7));
  });
  test('batches give what all numbers at once give', () => {
    const [whole, parts] = [new RunningMoments(), new RunningMoments()];
    whole.add([4, -1, 0.5, 7, 7, 2]);
    for (const part of [[4], [-1, 0.5, 7], [], [7, 2]]) parts.add(part);
    expectClose(parts.mean, whole.mean, { rtol: 1e-12 });
    expectClose(parts.std, whole.std, { rtol: 1e-12 });
  });
  test('NaN is left out', () => {
    const moments = new RunningMoments();
    moments.add([NaN, 1, 2, NaN, 6]);
    moments.add([NaN]);
    expectClose(moments.mean, 3);
    expectClose(moments.std, Math.sqrt(7));
  });
  test('divides by 1 where there is no spread to divide by', () => {
    const moments = new RunningMoments();
    assert.equal(moments.std, 1);
    moments.add([5]);
    assert.equal(moments.std, 1);
    moments.add([5, 5]);
    assert.deepEqual([moments.mean, moments.std], [5, 1]);
  });
  test('goes on from its state', () => {
    const first = new RunningMoments();
    first.add([1, 2]);
    const second = new RunningMoments();
    second.restore('x', JSON.parse(JSON.stringify(first.state())) as Record<string, unknown>);
    second.add([6]);
    expectClose(second.mean, 3);
    expectClose(second.std, Math.sqrt(7));
  });
  test('refuses what is no state', () => {
    const sound = { count: 2, mean: 1, squares: 1 };
    for (const wrong of [{ count: -1 }, { count: 1.5 }, { squares: -1 }, { mean: null }]) {
      assert.throws(
        () => new RunningMoments().restore('x', { ...sound, ...wrong }),
        CheckpointError,
        JSON.stringify(wrong),
      );
    }
  });
});
