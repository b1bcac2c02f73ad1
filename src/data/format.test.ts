import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { detectFormat, rowsFromObjects, validateRows, type DataFormatName } from './index.js';

const messages = [{ role: 'user', content: 'Hi' }];
const answer = [{ role: 'assistant', content: 'Hello' }];

describe('detectFormat', () => {
  const cases: [row: Record<string, unknown>, name: DataFormatName, conversational: boolean][] = [
    [{ text: 'a' }, 'language-modeling', false],
    [{ messages }, 'language-modeling', true],
    [{ prompt: 'a' }, 'prompt-only', false],
    [{ prompt: messages, answer: 4 }, 'prompt-only', true],
    [{ prompt: 'a', completion: 'b' }, 'prompt-completion', false],
    [{ prompt: messages, completion: answer }, 'prompt-completion', true],
    [{ prompt: 'a', completion: 'b', label: null }, 'prompt-completion', false],
    [{ prompt: 'a', completion: 'b', label: false }, 'unpaired-preference', false],
    [{ prompt: 'a', chosen: 'b', rejected: 'c' }, 'preference', false],
    [{ chosen: messages, rejected: messages }, 'preference', true],
    [{ prompt: 'a', completions: ['b'], labels: [true] }, 'stepwise', false],
  ];
  for (const [row, name, conversational] of cases) {
    test(`${Object.keys(row).join(', ')}${conversational ? ' with messages' : ''} is ${name}`, () => {
      assert.deepEqual(detectFormat(rowsFromObjects([row])), { name, conversational });
    });
  }

  test('rejects no rows and unknown columns, listing the formats', () => {
    assert.throws(() => detectFormat([]), {
      code: 'E_DATA',
      message: 'detectFormat: expected at least one row, received none.',
    });
    assert.throws(() => detectFormat([{ values: { question: 1 }, file: 'x.jsonl', line: 3 }]), {
      code: 'E_DATA',
      message: 'x.jsonl:3: expected the columns of a known format, received "question".',
      hint: /\{prompt, completion\} \(prompt-completion\)/,
    });
    assert.throws(() => detectFormat(rowsFromObjects([{}])), {
      message: '<memory>:1: expected the columns of a known format, received no columns.',
    });
  });
});

describe('validateRows', () => {
  test('accepts rows of the expected format with the columns that rewards need', () => {
    const rows = rowsFromObjects([
      { prompt: 'a', answer: '1' },
      { prompt: 'b', answer: 0 },
    ]);
    assert.deepEqual(validateRows(rows, ['prompt-only'], ['answer']), {
      name: 'prompt-only',
      conversational: false,
    });
  });

  test('accepts an optional column where it has the right kind, and its absence', () => {
    const rows = rowsFromObjects([
      { chosen: 'a', rejected: 'b', margin: 0.5 },
      { chosen: 'a', rejected: 'b', margin: null },
      { chosen: 'a', rejected: 'b' },
    ]);
    assert.equal(validateRows(rows, ['preference']).name, 'preference');
  });

  test('accepts messages that only call tools', () => {
    const calls = [...messages, { role: 'assistant', tool_calls: [{}] }];
    assert.equal(
      validateRows(rowsFromObjects([{ messages: calls }]), ['language-modeling']).conversational,
      true,
    );
  });

  const faults: {
    name: string;
    rows: Record<string, unknown>[];
    expected: DataFormatName[];
    required?: string[];
    message: string;
  }[] = [
    {
      name: 'rows of another format',
      rows: [{ text: 'a' }],
      expected: ['prompt-only', 'prompt-completion'],
      message:
        'x:1: expected prompt-only or prompt-completion rows, received language-modeling rows (text).',
    },
    {
      name: 'a row that lacks a column',
      rows: [{ prompt: 'a' }, { question: 'b' }],
      expected: ['prompt-only'],
      message: 'x:2: expected column "prompt", received only "question".',
    },
    {
      name: 'a value of another type',
      rows: [{ prompt: 'a' }, { prompt: 5 }],
      expected: ['prompt-only'],
      message:
        'x:2: expected column "prompt" to be a string or a list of messages [{"role", "content"}, …], received the number 5.',
    },
    {
      name: 'a string among conversations',
      rows: [{ prompt: messages }, { prompt: 'a' }],
      expected: ['prompt-only'],
      message:
        'x:2: expected column "prompt" to be a list of messages as in the first row, received the string "a".',
    },
    {
      name: 'a conversation among strings',
      rows: [{ prompt: 'a' }, { prompt: messages }],
      expected: ['prompt-only'],
      message:
        'x:2: expected column "prompt" to be a string as in the first row, received the list [{"role":"user","content":"Hi"}].',
    },
    {
      name: 'an empty conversation',
      rows: [{ messages: [] }],
      expected: ['language-modeling'],
      message:
        'x:1: expected column "messages" to be a list with at least one message, received an empty list.',
    },
    {
      name: 'a message without content',
      rows: [{ messages: [{ role: 'user' }] }],
      expected: ['language-modeling'],
      message:
        'x:1: expected column "messages" to be a list of messages with a "role" and a "content", received the object {"role":"user"}.',
    },
    {
      name: 'a message whose content is an object',
      rows: [{ messages: [{ role: 'user', content: { a: 1 } }] }],
      expected: ['language-modeling'],
      message:
        'x:1: expected column "messages" to be a list of messages whose "content" is a string, received the object {"role":"user","content":{"a":1}}.',
    },
    {
      name: 'a text that is a conversation',
      rows: [{ text: messages }],
      expected: ['language-modeling'],
      message:
        'x:1: expected column "text" to be a string, received the list [{"role":"user","content":"Hi"}].',
    },
    {
      name: 'tools that are neither a list nor JSON of one',
      rows: [{ messages }, { messages, tools: '{"name": "add"}' }],
      expected: ['language-modeling'],
      message:
        'x:2: expected column "tools" to be a list of tools, or JSON of one, received the string "{\\"name\\": \\"add\\"}".',
    },
    {
      name: 'messages that are one string',
      rows: [{ messages: 'Hi' }],
      expected: ['language-modeling'],
      message:
        'x:1: expected column "messages" to be a list of messages [{"role", "content"}, …], received the string "Hi".',
    },
    {
      name: 'a label that is not true or false',
      rows: [{ prompt: 'a', completion: 'b', label: 2 }],
      expected: ['unpaired-preference'],
      message: 'x:1: expected column "label" to be true or false, received the number 2.',
    },
    {
      name: 'a margin that is not a number',
      rows: [{ chosen: 'a', rejected: 'b', margin: 'big' }],
      expected: ['preference'],
      message: 'x:1: expected column "margin" to be a number, received the string "big".',
    },
    {
      name: 'steps that are not strings',
      rows: [{ prompt: 'a', completions: ['b', 2], labels: [true, false] }],
      expected: ['stepwise'],
      message:
        'x:1: expected column "completions" to be a list of strings, received the list ["b",2].',
    },
    {
      name: 'labels that are not booleans',
      rows: [{ prompt: 'a', completions: ['b'], labels: ['+'] }],
      expected: ['stepwise'],
      message:
        'x:1: expected column "labels" to be a list of true and false, received the list ["+"].',
    },
    {
      name: 'another number of labels than steps',
      rows: [{ prompt: 'a', completions: ['b', 'c'], labels: [true] }],
      expected: ['stepwise'],
      message:
        'x:1: expected as many labels as completions and at least one, received 2 completions and 1 labels.',
    },
    {
      name: 'a row without the column a reward needs',
      rows: [
        { prompt: 'a', answer: '1' },
        { prompt: 'b', answer: null },
      ],
      expected: ['prompt-only'],
      required: ['answer'],
      message: 'x:2: expected a column "answer", received null in it.',
    },
  ];
  for (const { name, rows, expected, required, message } of faults) {
    test(`rejects ${name}`, () => {
      assert.throws(() => validateRows(rowsFromObjects(rows, 'x'), expected, required), {
        code: 'E_DATA',
        message,
      });
    });
  }
});
