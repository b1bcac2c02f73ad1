import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { rowsFromObjects, validateRows } from '../data/index.js';
import { preferencePairs } from './index.js';

const ranking = {
  ...{ prompt: 'p', completions: ['a', 'b', 'c', 'd'], ranks: [2, 4, 1, 2], comparison: 'x' },
};
const shown = (pairs: readonly { chosen: string; rejected: string }[]): string[] =>
  pairs.map(({ chosen, rejected }) => `${chosen}>${rejected}`);

describe('preferencePairs', () => {
  test('by hand: all pairs of unequal rank, from the best to the worst; ties give none', () => {
    assert.deepEqual(shown(preferencePairs(ranking)), ['c>a', 'c>d', 'c>b', 'a>b', 'd>b']);
  });
  test('every row carries the prompt and the name of the ranking', () => {
    for (const pair of preferencePairs(ranking)) {
      assert.deepEqual(Object.keys(pair), ['prompt', 'chosen', 'rejected', 'comparison']);
      assert.equal(pair.prompt, 'p');
      assert.equal(pair.comparison, 'x');
    }
  });
  test('K completions without a tie give K·(K − 1)/2 rows', () => {
    const completions = Array.from({ length: 7 }, (_, index) => `completion ${index}`);
    const ranks = [3, 1, 7, 2, 6, 5, 4];
    assert.equal(preferencePairs({ ...ranking, completions, ranks }).length, 21);
  });
  test('all tied, one alone and none give no row', () => {
    assert.deepEqual(preferencePairs({ ...ranking, ranks: [1, 1, 1, 1] }), []);
    assert.deepEqual(preferencePairs({ ...ranking, completions: ['a'], ranks: [1] }), []);
    assert.deepEqual(preferencePairs({ ...ranking, completions: [], ranks: [] }), []);
  });
  test('a completion is not preferred to itself, whatever its ranks', () => {
    const pairs = preferencePairs({ ...ranking, completions: ['a', 'b', 'a', 'c'] });
    assert.deepEqual(shown(pairs), ['a>c', 'a>b', 'a>b', 'c>b']);
  });
  test('conversations stay conversations, and equal ones are the same completion', () => {
    const said = (content: string) => [{ role: 'assistant', content }];
    const prompt = [{ role: 'user', content: 'p' }];
    const completions = [said('a'), said('b'), said('a')];
    const pairs = preferencePairs({ prompt, completions, ranks: [1, 2, 3], comparison: 'x' });
    assert.deepEqual(pairs, [
      { prompt, chosen: said('a'), rejected: said('b'), comparison: 'x' },
      { prompt, chosen: said('b'), rejected: said('a'), comparison: 'x' },
    ]);
    const format = validateRows(rowsFromObjects(pairs), ['preference']);
    assert.deepEqual(format, { name: 'preference', conversational: true });
  });
  test('rows of texts are preference data', () => {
    const format = validateRows(rowsFromObjects(preferencePairs(ranking)), ['preference']);
    assert.deepEqual(format, { name: 'preference', conversational: false });
  });
  test('rejects ranks that do not belong to the completions', () => {
    assert.throws(() => preferencePairs({ ...ranking, ranks: [1, 2] }), {
      name: 'ValueRangeError',
      message:
        'preferencePairs: expected one rank per completion, received 2 ranks of 4 completions.',
    });
    assert.throws(() => preferencePairs({ ...ranking, ranks: [1, 2, NaN, 3] }), {
      name: 'ValueRangeError',
      message:
        'preferencePairs: expected every rank to be a number, received NaN for completion 2.',
    });
  });
});
