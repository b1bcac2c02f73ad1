import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ValueRangeError } from '../errors/index.js';
import { SeededRandom } from '../data/index.js';
import { bootstrapInterval, wilsonInterval } from './index.js';

describe('wilsonInterval', () => {
  // statsmodels 0.15.0, proportion_confint(c, n, method='wilson').
  const cases: [number, number, number, number][] = [
    [8, 10, 0.49016247153664183, 0.9433178485456247],
    [0, 10, 0, 0.27753279986288926],
    [10, 10, 0.7224672001371106, 1],
    [250, 500, 0.4563412653024843, 0.5436587346975157],
  ];
  for (const [successes, trials, low, high] of cases) {
    test(`of ${successes} of ${trials} is that of statsmodels`, () => {
      const found = wilsonInterval(successes, trials);
      expectClose(found.value, successes / trials);
      expectClose([found.low, found.high], [low, high]);
    });
  }
  test('refuses no trials and more successes than trials', () => {
    assert.throws(() => wilsonInterval(0, 0), ValueRangeError);
    assert.throws(() => wilsonInterval(3, 2), /received 3 of 2/);
  });
});

describe('bootstrapInterval', () => {
  test('is the same for the same seed, and the point for problems that are all equal', () => {
    assert.deepEqual(bootstrapInterval([0, 1, 1, 0.5], 3), bootstrapInterval([0, 1, 1, 0.5], 3));
    assert.deepEqual(bootstrapInterval([0.25, 0.25], 0), { value: 0.25, low: 0.25, high: 0.25 });
  });
  test('is close to the normal interval for many problems', () => {
    const random = new SeededRandom(1);
    const values = Array.from({ length: 400 }, () => random.nextFloat());
    const { value, low, high } = bootstrapInterval(values, 2);
    const variance = values.reduce((sum, x) => sum + (x - value) ** 2, 0) / values.length;
    const half = 1.96 * Math.sqrt(variance / values.length);
    // 2,000 resamples put a 2.5 % quantile within about 4 standard errors of itself: 0.2 of a standard error of the mean.
    assert.ok(Math.abs(value - half - low) < 0.2 * half, `${low} against ${value - half}`);
    assert.ok(Math.abs(value + half - high) < 0.2 * half, `${high} against ${value + half}`);
  });
  test('refuses no problems', () => {
    assert.throws(() => bootstrapInterval([], 0), ValueRangeError);
  });
});
