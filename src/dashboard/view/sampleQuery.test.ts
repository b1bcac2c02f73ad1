import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { filterCount, pagesOf, sampleQueryOf } from './sampleQuery.js';

describe('filters in an address', () => {
  test('are read as what they are, and the newest samples come first', () => {
    assert.deepEqual(sampleQueryOf({ text: 'a b', rewardMin: '-0.5', stepTo: '10' }), {
      text: 'a b',
      rewardMin: -0.5,
      stepTo: 10,
      sort: '-step',
    });
  });
  test('that make no sense are left out', () => {
    assert.deepEqual(
      sampleQueryOf({
        rewardMin: 'x',
        lengthMax: ' ',
        sort: 'colour',
        finishReason: '',
        other: '1',
      }),
      { sort: '-step' },
    );
  });
  test('of 0 are filters too', () => {
    assert.deepEqual(sampleQueryOf({ rewardMax: '0', sort: 'length' }), {
      rewardMax: 0,
      sort: 'length',
    });
  });
  test('are counted without the order, and without which reward they are about', () => {
    assert.equal(filterCount(sampleQueryOf({ rewardName: 'r', rewardMin: '0', sort: 'step' })), 1);
  });
});

test('pages cover the rows that are on the screen', () => {
  assert.deepEqual(pagesOf(95, 205, 100), [0, 1, 2]);
  assert.deepEqual(pagesOf(100, 199, 100), [1]);
  assert.deepEqual(pagesOf(-3, 5, 100), [0]);
});
