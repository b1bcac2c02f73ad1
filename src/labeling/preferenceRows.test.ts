import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { rowsFromObjects, validateRows, type Row } from '../data/index.js';
import { assertColumnsAreFree, preferenceRows, type SessionOrigin } from './preferenceRows.js';
import type { Decision, Ranked } from './session.js';

const origin: SessionOrigin = {
  session: 'abc123',
  model: 'runs/sft/model',
  weightsSha256: 'f00d',
  seed: 5,
  sampling: { completions: 3, temperature: 0.7, maxNewTokens: 9 },
  mode: 'rank',
};
const ranked: Ranked = {
  kind: 'ranked',
  row: 4,
  completions: ['one', 'two', 'three'].map((text) => ({
    text,
    finishReason: text === 'two' ? 'length' : 'eos',
    tokens: 2,
    copies: 1,
  })),
  order: [2, 0, 1],
  empty: 0,
  ranks: [2, 1, 2],
  labeler: 'ann',
  time: '2026-01-01T00:00:00.000Z',
};

function rowOf(values: Record<string, unknown>): Row {
  return { values, file: 'prompts.jsonl', line: 7 };
}

describe('preferenceRows', () => {
  test('writes a pair for each unequal rank, with where it comes from', () => {
    const rows = preferenceRows(ranked, rowOf({ prompt: 'p', answer: '42' }), origin);
    const provenance = {
      model: 'runs/sft/model',
      weightsSha256: 'f00d',
      seed: 5,
      sampling: { completions: 3, temperature: 0.7, maxNewTokens: 9 },
      file: 'prompts.jsonl',
      line: 7,
      mode: 'rank',
      labeler: 'ann',
      time: '2026-01-01T00:00:00.000Z',
      ranks: [2, 1, 2],
      order: [2, 0, 1],
      finishReasons: ['eos', 'length', 'eos'],
    };
    assert.deepEqual(rows, [
      {
        prompt: 'p',
        answer: '42',
        chosen: 'two',
        rejected: 'one',
        comparison: 'abc123-4',
        provenance: { ...provenance, chosen: 1, rejected: 0 },
      },
      {
        prompt: 'p',
        answer: '42',
        chosen: 'two',
        rejected: 'three',
        comparison: 'abc123-4',
        provenance: { ...provenance, chosen: 1, rejected: 2 },
      },
    ]);
    assert.deepEqual(validateRows(rowsFromObjects(rows), ['preference']), {
      name: 'preference',
      conversational: false,
    });
  });
  test('a conversation is answered by messages of the assistant', () => {
    const prompt = [{ role: 'user', content: 'Hi' }];
    const rows = preferenceRows(ranked, rowOf({ prompt, tools: [] }), origin);
    assert.deepEqual(rows[0]?.['prompt'], prompt);
    assert.deepEqual(rows[0]?.['chosen'], [{ role: 'assistant', content: 'two' }]);
    assert.deepEqual(rows[0]?.['rejected'], [{ role: 'assistant', content: 'one' }]);
    assert.deepEqual(validateRows(rowsFromObjects(rows), ['preference']), {
      name: 'preference',
      conversational: true,
    });
  });
  test('ties, skipped prompts and alike completions give no pair', () => {
    const { ranks: _ranks, kind: _kind, ...rest } = ranked;
    const silent: Decision[] = [
      { ...ranked, ranks: [1, 1, 1] },
      { kind: 'skipped', ...rest },
      { kind: 'alike', ...rest },
    ];
    for (const decision of silent)
      assert.deepEqual(preferenceRows(decision, rowOf({ prompt: 'p' }), origin), [], decision.kind);
  });
});

describe('assertColumnsAreFree', () => {
  test('accepts further columns, and a column that is empty', () => {
    assertColumnsAreFree([rowOf({ prompt: 'p', completion: 'c', margin: null, label: true })]);
  });
  for (const column of ['chosen', 'rejected', 'margin', 'comparison', 'provenance'])
    test(`refuses a column ${column}`, () => {
      assert.throws(() => assertColumnsAreFree([rowOf({ prompt: 'p' }), rowOf({ [column]: 0 })]), {
        name: 'DataError',
        message: `prompts.jsonl:7: expected a prompt row without a column "${column}", which labelling writes, received one.`,
        hint: 'Rename or remove the column.',
      });
    });
});
