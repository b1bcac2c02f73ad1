import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { detectFormat, validateRows } from './format.js';
import { readRows, storeRows } from './readRows.js';
import { rowsFromObjects } from './row.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-share-'));
const conversations = [
  { from: 'system', value: 'Be short.' },
  { from: 'human', value: 'Hi' },
  { from: 'gpt', value: 'Yes' },
];
const messages = [
  { role: 'system', content: 'Be short.' },
  { role: 'user', content: 'Hi' },
  { role: 'assistant', content: 'Yes' },
];

describe('rows of ShareGPT', () => {
  test('are conversations, from files, streamed and from memory', async () => {
    const path = join(folder, 'a.jsonl');
    writeFileSync(path, `${JSON.stringify({ id: 7, conversations })}\n`);
    const stored = await storeRows(path);
    const streamed = await stored.read([0]);
    for (const rows of [
      await readRows(path),
      streamed,
      rowsFromObjects([{ id: 7, conversations }]),
    ])
      assert.deepEqual(rows[0]?.values, { id: 7, messages });
    assert.deepEqual(detectFormat(await readRows(path)), {
      name: 'language-modeling',
      conversational: true,
    });
  });

  test('may have other names of speakers, of the column and of the fields', () => {
    const of = (values: object) => rowsFromObjects([{ ...values }])[0]?.values;
    assert.deepEqual(of({ messages: conversations }), { messages });
    assert.deepEqual(of({ conversations: messages }), { messages });
    assert.deepEqual(of({ conversations: [{ from: 'tool', value: '3', weight: 0 }] }), {
      messages: [{ role: 'tool', content: '3', weight: 0 }],
    });
  });

  test('a column of that name beside a format is left to the rewards', () => {
    for (const other of [
      { prompt: 'x' },
      { text: 'x' },
      { chosen: 'a', rejected: 'b' },
      { messages },
    ]) {
      const values = { ...other, conversations };
      assert.deepEqual(rowsFromObjects([values])[0]?.values, values);
    }
  });

  test('a turn without its text is an error that names the row', () => {
    const rows = rowsFromObjects([{ conversations }, { conversations: [{ from: 'human' }] }], 'a');
    assert.throws(() => validateRows(rows, ['language-modeling']), {
      code: 'E_DATA',
      message:
        'a:2: expected column "messages" to be a list of messages with a "role" and a "content", received the object {"from":"human"}.',
    });
  });
});
