import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { describePreferences } from './preferenceReport.js';

const NO_FAULTS = {
  ...{ equal: 0, empty: 0, tooLong: 0, margin: 0, noPrompt: 0, comparison: 0, unreadable: 0 },
};

describe('describePreferences', () => {
  const one = {
    ...{ examples: 1, tokens: 1, withoutEos: 0, boundaryMerges: 0 },
    faults: NO_FAULTS,
  };
  test('one is in the singular', () => {
    const pair = { ...one, comparisons: 1, margins: 0, circles: [] };
    assert.equal(describePreferences(pair), '1 pair of 1 comparison, 1 token');
    assert.equal(
      describePreferences({ ...one, desirable: 1, undesirable: 0 }),
      '1 completion (1 desirable), 1 token',
    );
  });
  test('several are told with what was found: ends, faults, and the first circle', () => {
    assert.equal(
      describePreferences({
        ...{ examples: 7, tokens: 30, withoutEos: 2, boundaryMerges: 1, margins: 0 },
        ...{ comparisons: 3, circles: ['a.jsonl:1'], faults: { ...NO_FAULTS, tooLong: 4 } },
      }),
      '7 pairs of 3 comparisons, 30 tokens, 1 tokenized apart at the end of the prompt, 2 without an end token, ' +
        '4 left out too long, 1 comparison of preferences in a circle (the first: a.jsonl:1)',
    );
  });
});
