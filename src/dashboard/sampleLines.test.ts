import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { sampleLine } from '../../test/dashboardRun.js';
import { parseSample, type SampleLine } from './sampleLines.js';

const parsed = (values: object): SampleLine =>
  parseSample(Buffer.from(JSON.stringify(sampleLine(values)))) ?? assert.fail('no sample');

describe('a line of samples.jsonl', () => {
  test('is of one of three kinds, whatever else it says', () => {
    const kinds = ['pair', 'given', undefined, 'other', 7, null].map(
      (kind) => parsed({ kind }).kind,
    );
    assert.deepEqual(kinds, ['pair', 'given', ...Array<string>(4).fill('completion')]);
  });

  test('has the steps that lie in the text, with their labels where there are some', () => {
    const steps = [
      { from: 0, to: 1, score: 0.9, label: true },
      { from: 1, to: 3, score: 0.2, label: 'no' },
      { from: 1, to: 4, score: 0.2, label: false },
      { from: 2, to: 2, score: 0.2 },
      { from: -1, to: 2, score: 0.2 },
      { from: 0, to: 2, score: 'high' },
      null,
    ];
    assert.deepEqual(parsed({ steps }).sequence.steps, [
      { from: 0, to: 1, score: 0.9, label: true },
      { from: 1, to: 3, score: 0.2, label: null },
    ]);
  });

  test('has the most likely tokens where there is one list per token', () => {
    const tokens = [['2', '3'], ['.'], []];
    const logprobs = [[-0.1, null], [-0.5], []];
    const { topTokens } = parsed({
      topTokens: { ids: [[5, 8], [6], []], tokens, logprobs },
    }).sequence;
    assert.deepEqual(topTokens, { tokens, logprobs: [[-0.1, -Infinity], [-0.5], []] });
    assert.equal(parsed({ topTokens: { tokens: [['2']], logprobs } }).sequence.topTokens, null);
  });

  test('has of its loss the numbers and words that are known, if they are such', () => {
    const loss = { method: 'kto', objective: 'kto', beta: 0.1, slope: -0.2, rest: 0.3 };
    const more = { klBaseline: 1, labelWeight: 1.5, importanceCap: 2, importanceLevel: 'token' };
    assert.deepEqual(parsed({ loss: { ...loss, ...more, other: 1 } }).loss, { ...loss, ...more });
    assert.deepEqual(parsed({ loss: { ...loss, slope: 'steep', importanceMode: 3 } }).loss, {
      ...{ method: 'kto', objective: 'kto', beta: 0.1, rest: 0.3 },
    });
  });
});
