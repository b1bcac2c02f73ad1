import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { comparisonOf, type LabelSample } from './comparison.js';

const sample = (text: string, finishReason: LabelSample['finishReason'] = 'eos'): LabelSample => ({
  text,
  finishReason,
  tokens: text.length + 1,
});

describe('comparisonOf', () => {
  test('shows equal texts once, as they were first sampled, and counts them', () => {
    const { completions, empty } = comparisonOf(
      3,
      [sample('b', 'length'), sample('a'), sample('b'), sample(' a\n')],
      0,
    );
    assert.deepEqual(completions, [
      { text: 'b', finishReason: 'length', tokens: 2, copies: 2 },
      { text: 'a', finishReason: 'eos', tokens: 2, copies: 2 },
    ]);
    assert.equal(empty, 0);
  });
  test('leaves out what has no text, and counts it', () => {
    const { completions, order, empty } = comparisonOf(
      0,
      [sample(''), sample('x'), sample(' \n')],
      0,
    );
    assert.deepEqual([completions.length, [...order], empty], [1, [0], 2]);
  });
  test('the order depends on seed and row alone', () => {
    const samples = ['a', 'b', 'c', 'd'].map((text) => sample(text));
    const orderOf = (row: number, seed: number) => comparisonOf(row, samples, seed).order.join('');
    assert.equal(orderOf(5, 1), orderOf(5, 1));
    const rows = Array.from({ length: 20 }, (_, row) => row);
    assert.ok(new Set(rows.map((row) => orderOf(row, 1))).size > 5, 'rows differ');
    assert.notDeepEqual(
      rows.map((row) => orderOf(row, 1)),
      rows.map((row) => orderOf(row, 2)),
    );
  });
  test('every completion is shown at every place about as often as at any other', () => {
    // 4000 rows, probability 1/4 per place: 16 counts within 1000 ± 140 (5.1 standard deviations of 27.4), so that a
    // fair shuffle fails with probability below 16 · 4e-7 < 1e-5.
    const samples = ['a', 'b', 'c', 'd'].map((text) => sample(text));
    const counts = Array.from({ length: 16 }, () => 0);
    for (let row = 0; row < 4000; row++)
      for (const [place, index] of comparisonOf(row, samples, 7).order.entries())
        counts[place * 4 + index] = (counts[place * 4 + index] ?? 0) + 1;
    for (const count of counts) assert.ok(Math.abs(count - 1000) < 140, counts.join(' '));
  });
});
