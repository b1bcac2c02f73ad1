import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { overSeeds, percents, spread } from './verdict.js';

describe('overSeeds', () => {
  test('by hand: all, some, none', () => {
    assert.equal(overSeeds([true, true, true]), 'yes');
    assert.equal(overSeeds([true, false, true]), 'partly');
    assert.equal(overSeeds([false, false]), 'no');
  });
  test('without a seed nothing was seen', () => assert.equal(overSeeds([]), 'no'));
});

describe('spread', () => {
  test('by hand: the mean, and the range where the seeds differ in what is shown', () => {
    assert.equal(spread([1, 2, 4.5], 1), '2.5 (1.0–4.5)');
    assert.equal(spread([2.01, 2.02], 1), '2.0');
    assert.equal(spread([3], 0), '3');
    assert.equal(spread([], 1), '–');
  });
  test('percents are a hundred times the shares', () => {
    assert.equal(percents([0.5, 0.25]), '37.5 (25.0–50.0)');
  });
});
