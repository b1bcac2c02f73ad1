import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Series } from '../protocol.js';
import { curveOf, extent, positionOfStep, positive, smooth, stepsWithin, ticks } from './curves.js';

function series(facts: Partial<Series> = {}): Series {
  const mean = [1, 2, null, 4];
  return {
    run: 'a',
    revision: 0,
    from: 10,
    to: 40,
    exact: false,
    first: 0,
    cursor: '',
    buckets: { step: [10, 20, 30, 40], seconds: [1, 2, 4, 8], tokens: null },
    values: { loss: { min: [0, 1, null, 3], max: [2, 3, null, 5], mean } },
    ...facts,
  };
}

describe('a curve', () => {
  test('is the mean of its buckets between their extremes', () => {
    assert.deepEqual(curveOf(series(), 'loss', 'seconds'), {
      x: [1, 2, 4, 8],
      y: [1, 2, null, 4],
      low: [0, 1, null, 3],
      high: [2, 3, null, 5],
    });
  });
  test('has no extremes where each bucket is one line', () => {
    const values = { loss: { mean: [9, 9, null, 9] } };
    assert.deepEqual(curveOf(series({ exact: true, values }), 'loss', 'step'), {
      x: [10, 20, 30, 40],
      y: [9, 9, null, 9],
    });
  });
  test('is missing where the run has no such metric, or does not count tokens', () => {
    assert.equal(curveOf(series(), 'reward', 'step'), undefined);
    assert.equal(curveOf(series(), 'loss', 'tokens'), undefined);
  });
});

describe('smoothing', () => {
  test('leaves a constant as it is from its first value on, and gaps as gaps', () => {
    assert.deepEqual(smooth([3, null, 3, 3], 0.5), [3, null, 3, 3]); // halves are exact
  });
  test('weighs the latest value by 1 − s against what came before', () => {
    // m₂ = 0.5·0.5·1 + 0.5·3 = 1.75, divided by 1 − 0.5²
    assert.deepEqual(smooth([1, 3], 0.5), [1, 1.75 / 0.75]);
  });
  test('of 0 changes nothing', () => {
    const y = [1, null, 2];
    assert.equal(smooth(y, 0), y);
  });
});

describe('a stretch of the axis', () => {
  test('is asked for with one bucket more at each end', () => {
    assert.deepEqual(stepsWithin(series(), 'seconds', [3, 5]), { from: 20, to: 40 });
    assert.deepEqual(stepsWithin(series(), 'step', [15, 25]), { from: 10, to: 30 });
    assert.deepEqual(stepsWithin(series(), 'step', [0, 99]), { from: 10, to: 40 });
  });
  test('between two buckets holds both of them', () => {
    assert.deepEqual(stepsWithin(series(), 'step', [21, 22]), { from: 20, to: 30 });
  });
  test('of an axis that the run does not have is none', () => {
    assert.equal(stepsWithin(series(), 'tokens', [0, 1]), undefined);
  });
  test('a step lies where the first bucket ends that reaches it', () => {
    assert.equal(positionOfStep(series(), 'seconds', 21), 4);
    assert.equal(positionOfStep(series(), 'step', 21), 21);
    assert.equal(positionOfStep(series(), 'seconds', 41), undefined);
  });
});

describe('an axis', () => {
  test('has round ticks inside its range', () => {
    assert.deepEqual(ticks([0, 1], 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
    assert.deepEqual(ticks([-3, 12], 4), [0, 5, 10]);
    assert.deepEqual(ticks([2, 2], 4), [2]);
  });
  test('spans what all lines have', () => {
    assert.deepEqual(extent([[1, null], [-2]]), [-2, 1]);
    assert.equal(extent([[null]]), undefined);
  });
  test('with logarithms shows only what has one', () => {
    assert.deepEqual(positive([1, 0, -1, null]), [1, null, null, null]);
  });
});
