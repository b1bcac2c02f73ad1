import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { examineRows } from './examineRows.js';
import { rowsFromObjects } from './row.js';

const examine = (rows: readonly Record<string, unknown>[]) =>
  examineRows(rowsFromObjects(rows, 'f'));

describe('examineRows', () => {
  test('every row that is not of the format is told, and the others are looked at all the same', () => {
    const { format, faults, duplicates } = examine([
      { prompt: 7 },
      { prompt: 'a', completion: 'b' },
      { prompt: 'a', completion: 3 },
      { prompt: 'a' },
      { prompt: 'a', completion: 'b' },
    ]);
    assert.deepEqual(format, { name: 'prompt-only', conversational: false });
    assert.equal(faults.count, 1);
    assert.deepEqual(duplicates, { count: 1, first: ['f:5 is f:2 again'] });
    const typed = examine([
      { prompt: 'a', completion: 'b' },
      { prompt: 'a', completion: 3 },
      { prompt: 'a' },
    ]);
    assert.deepEqual(typed.faults, {
      count: 2,
      first: [
        'f:2: expected column "completion" to be a string or a list of messages [{"role", "content"}, …], received the number 3.',
        'f:3: expected column "completion", received only "prompt".',
      ],
    });
  });
  test('blank texts are found in every column of the format, tool calls are none', () => {
    const call = { role: 'assistant', content: '', tool_calls: [{}] };
    const user = { role: 'user', content: 'a' };
    assert.deepEqual(
      examine([
        { prompt: 'a', completion: ' \n' },
        { prompt: '', completion: 'b' },
        { prompt: 'a', completion: 'b', note: '' },
      ]).empty,
      { count: 2, first: ['f:1, completion', 'f:2, prompt'] },
    );
    assert.deepEqual(
      examine([
        { messages: [user, call] },
        { messages: [user, { role: 'assistant', content: ' ' }] },
        { messages: [user, { role: 'assistant', content: null }] },
      ]).empty,
      { count: 2, first: ['f:2, messages', 'f:3, messages'] },
    );
    const steps = { prompt: 'a', completions: ['b', ''], labels: [true, true] };
    assert.equal(examine([steps]).empty.count, 1);
  });
  test('pairs that contradict each other, and pairs of equal texts', () => {
    const pair = (prompt: string | undefined, chosen: string, rejected: string) => ({
      ...(prompt !== undefined && { prompt }),
      chosen,
      rejected,
    });
    assert.deepEqual(
      examine([
        pair('p', 'a', 'b'),
        pair('p', 'b', 'a'),
        pair('q', 'b', 'a'),
        pair('p', 'a', 'c'),
        pair('p', 'a', 'a'),
        pair('p', 'a', 'b'),
      ]).contradictory,
      { count: 2, first: ['f:2 contradicts f:1', 'f:5: chosen and rejected are equal'] },
    );
  });
  test('labels that contradict each other', () => {
    const row = (completion: string, label: boolean) => ({ prompt: 'p', completion, label });
    assert.deepEqual(
      examine([row('a', true), row('b', false), row('a', false), row('b', false)]).contradictory,
      { count: 1, first: ['f:3 contradicts f:1'] },
    );
  });
  test('the first five places are shown of many', () => {
    const { duplicates } = examine(Array.from({ length: 9 }, () => ({ text: 'a' })));
    assert.equal(duplicates.count, 8);
    assert.equal(duplicates.first.length, 5);
  });
  test('rows of no format are refused', () => {
    assert.throws(() => examine([{ a: 1 }]), {
      code: 'E_DATA',
      message: 'f:1: expected the columns of a known format, received "a".',
    });
  });
});
