import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { DataError, ValueRangeError } from '../errors/index.js';
import { createCharacterTokenizer, loadTokenizer } from '../tokenizers/index.js';
import {
  rowsFromObjects,
  splitSteps,
  StepEncoder,
  tokenizeSteps,
  type StepTokenizeOptions,
} from './index.js';

interface GoldenCase {
  tokenizer: string;
  separator: string;
  row: { prompt: string; completions: string[]; labels: boolean[] };
  input_ids: number[];
  labels: number[];
}
const { cases } = JSON.parse(readFileSync(join(ROOT, 'test/golden/stepwise.json'), 'utf8')) as {
  cases: GoldenCase[];
};

const digits = createCharacterTokenizer({ characters: '0123456789+= \n;' });
const ids = (text: string) => digits.encode(text, { addSpecialTokens: false });
const sum = { prompt: '1+2+3=', completions: ['1+2=3', '3+3=7'], labels: [true, false] };

const read = (
  rows: Record<string, unknown>[],
  options: Partial<StepTokenizeOptions> = {},
): ReturnType<typeof tokenizeSteps> =>
  tokenizeSteps(rowsFromObjects(rows, 'steps.jsonl'), digits, { maxLength: 64, ...options });

describe('tokenizeSteps', () => {
  describe('matches TRL’s tokenize_row', () => {
    const names = [...new Set(cases.map(({ tokenizer }) => tokenizer))];
    assert.deepEqual(names, ['qwen', 'llama3', 'sentencepiece'], 'tokenizers of the golden file');
    for (const name of names)
      test(`${name}: the same ids, labels at the same places`, async () => {
        const tokenizer = await loadTokenizer(join(ROOT, 'test/golden/tokenizers', name));
        for (const { tokenizer: of, separator, row, input_ids, labels } of cases) {
          if (of !== name) continue;
          const { examples } = tokenizeSteps(rowsFromObjects([{ ...row }]), tokenizer, {
            maxLength: 500,
            stepSeparator: separator,
          });
          const [example] = examples;
          assert.ok(example, 'an example');
          assert.deepEqual(example.inputIds, input_ids);
          const marked = labels.flatMap((label, at) => (label === -100 ? [] : [at]));
          assert.deepEqual(example.stepEnds, marked);
          assert.deepEqual(
            example.labels.map(Number),
            marked.map((at) => labels[at]),
          );
        }
      });
  });

  test('gives ids, the last token of each separator, labels and the row', () => {
    const { examples, report } = read([sum], { stepSeparator: ';\n' });
    assert.deepEqual(examples, [
      {
        inputIds: ids('1+2+3=1+2=3;\n3+3=7;\n'),
        stepEnds: [12, 19],
        promptLength: '1+2+3='.length,
        labels: [true, false],
        row: { values: sum, file: 'steps.jsonl', line: 1 },
      },
    ]);
    assert.deepEqual(report, {
      examples: 1,
      tokens: 20,
      steps: 2,
      rightSteps: 1,
      separatorsInside: 0,
      faults: { empty: 0, tooLong: 0, unreadable: 0 },
    });
  });
  test('the report adds up over rows', () => {
    const short = { prompt: '1+1=', completions: ['2'], labels: [true] };
    const { report } = read([sum, short, short]);
    assert.deepEqual(
      [report.examples, report.tokens, report.steps, report.rightSteps],
      [3, 18 + 6 + 6, 4, 3],
    );
  });
  test('the separator is a line end unless set', () => {
    assert.deepEqual(read([sum]).examples[0]?.inputIds, ids('1+2+3=1+2=3\n3+3=7\n'));
  });
  test('a prompt of messages is written by the chat template, ready for an answer', async () => {
    const tokenizer = await loadTokenizer(join(ROOT, 'test/golden/tokenizers/qwen'));
    const prompt = [{ role: 'user', content: 'What is 1 + 2?' }];
    const rows = rowsFromObjects([{ prompt, completions: ['3'], labels: [true] }]);
    const { examples } = tokenizeSteps(rows, tokenizer, { maxLength: 500 });
    const text = tokenizer.applyChatTemplate(prompt, { addGenerationPrompt: true });
    const promptIds = tokenizer.encode(text, { addSpecialTokens: false });
    const tail = [...tokenizer.encode('3'), ...tokenizer.encode('\n')];
    assert.deepEqual(examples[0]?.inputIds, [...promptIds, ...tail]);
    assert.deepEqual(examples[0]?.stepEnds, [promptIds.length + tail.length - 1]);
  });
  test('counts steps that hold the separator: at use they are several', () => {
    const rows = [{ ...sum, completions: ['1+2\n=3', '3+3=7'] }, sum];
    assert.equal(read(rows).report.separatorsInside, 1);
    assert.equal(read(rows, { stepSeparator: ';' }).report.separatorsInside, 0);
  });
  test('a row of exactly maxLength tokens fits', () => {
    assert.equal(read([sum], { maxLength: 18 }).examples.length, 1);
    assert.throws(
      () => read([sum], { maxLength: 17 }),
      new DataError('steps.jsonl:1: expected prompt and steps of at most 17 tokens, received 18.', {
        hint: 'Raise maxLength, as far as the model has positions, or leave such rows out with faulty: skip.',
      }),
    );
  });
  test('faulty rows are left out and counted where they are skipped', () => {
    const long = { ...sum, completions: ['1+2=3', '3+3=7777777'] };
    const blank = { ...sum, completions: ['1+2=3', ' \n'] };
    const { examples, report } = read([long, sum, blank, long], { maxLength: 20, faulty: 'skip' });
    assert.deepEqual(
      examples.map(({ row }) => row.line),
      [2],
    );
    assert.deepEqual(report.faults, { empty: 1, tooLong: 2, unreadable: 0 });
    assert.deepEqual([report.examples, report.steps, report.tokens], [1, 2, 18]);
  });
  test('a row of other columns, lengths or characters is left out and counted where rows are skipped', () => {
    const { labels: _labels, ...unjudged } = sum;
    const rows = [
      unjudged,
      sum,
      { ...sum, labels: [true] },
      { ...sum, completions: [], labels: [] },
      { ...sum, labels: ['true', 'true'] },
      { ...sum, completions: ['1+2=3', '€'] },
    ];
    const { examples, report } = read(rows, { faulty: 'skip' });
    assert.deepEqual(
      examples.map(({ row }) => row.line),
      [2],
    );
    assert.deepEqual(report.faults, { empty: 0, tooLong: 0, unreadable: 5 });
  });
  test('a text that the tokenizer cannot write is told with its row', () => {
    assert.throws(
      () => read([sum, { ...sum, completions: ['1+2=3', '€'] }]),
      /steps\.jsonl:2: Tokenizer\.encode: .*no token for "€"/,
    );
  });
  test('nothing that is left is an error, and says what was wrong', () => {
    assert.throws(() => read([sum, sum], { maxLength: 5, faulty: 'skip' }), {
      code: 'E_DATA',
      message:
        'tokenizeSteps: expected at least one example of at most 5 tokens, but all were left out: 2 rows (empty 0, tooLong 2, unreadable 0).',
      hint: /^The first: steps\.jsonl:1: expected .*5 tokens.*$/,
    });
  });
  test('a step without text, labels of another length, no step, another format', () => {
    assert.throws(
      () => read([sum, { ...sum, completions: ['1', ' '] }]),
      new DataError('steps.jsonl:2: expected every step to have text, but completions[1] is " ".', {
        hint: 'Leave the step and its label out.',
      }),
    );
    assert.throws(
      () => read([sum, { ...sum, labels: [true] }]),
      new DataError(
        'steps.jsonl:2: expected as many labels as completions and at least one, received 2 completions and 1 labels.',
      ),
    );
    assert.throws(
      () => read([{ ...sum, completions: [], labels: [] }]),
      new DataError(
        'steps.jsonl:1: expected as many labels as completions and at least one, received 0 completions and 0 labels.',
      ),
    );
    assert.throws(
      () => read([{ text: '1' }]),
      /expected stepwise rows, received language-modeling/,
    );
  });
  test('a separator that the tokenizer cannot write, by the name of its setting', () => {
    assert.throws(
      () => read([sum], { stepSeparator: '§' }),
      (error) => {
        assert.ok(error instanceof DataError, String(error));
        assert.match(
          error.message,
          /^stepSeparator: expected a text that the tokenizer can write, received "§": .*no token for "§"/,
        );
        assert.equal(error.hint, 'Set stepSeparator to what stands after every step.');
        return true;
      },
    );
  });
  test('a maxLength that is none, and a separator without tokens', () => {
    assert.throws(
      () => read([sum], { maxLength: 1.5 }),
      new ValueRangeError(
        'tokenizeSteps: expected maxLength to be an integer of at least 2, received 1.5.',
      ),
    );
    assert.throws(
      () => read([sum], { stepSeparator: '' }),
      new ValueRangeError('StepEncoder: expected a separator of at least one token, received "".'),
    );
  });
});

describe('StepEncoder', () => {
  test('a step has the tokens that it has alone, whatever stands beside it', async () => {
    const tokenizer = await loadTokenizer(join(ROOT, 'test/golden/tokenizers/qwen'));
    const encoder = new StepEncoder(tokenizer, '\n');
    const both = encoder.encode([1, 2], ['the answer', 'is 5']);
    const first = encoder.encode([1, 2], ['the answer']);
    assert.deepEqual(both.inputIds.slice(0, first.inputIds.length), first.inputIds);
    assert.deepEqual(both.stepEnds[0], first.stepEnds[0]);
  });
  test('without steps there is the prompt alone', () => {
    assert.deepEqual(new StepEncoder(digits, '\n').encode([3, 4], []), {
      inputIds: [3, 4],
      stepEnds: [],
      promptLength: 2,
    });
  });
});

describe('splitSteps', () => {
  test('gives the pieces between separators and where each one ends, its separator included', () => {
    assert.deepEqual(splitSteps('1+2=3\n3+3=6', '\n'), [
      { text: '1+2=3', end: 6 },
      { text: '3+3=6', end: 11 },
    ]);
  });
  test('a separator at the end begins no further step', () => {
    assert.deepEqual(splitSteps('a ки b ки ', ' ки '), [
      { text: 'a', end: 5 },
      { text: 'b', end: 10 },
    ]);
  });
  test('white space is no step, and moves the ends of later ones', () => {
    assert.deepEqual(splitSteps('\n\na\n \nb\n\n', '\n'), [
      { text: 'a', end: 4 },
      { text: 'b', end: 8 },
    ]);
    assert.deepEqual(splitSteps('', '\n'), []);
    assert.deepEqual(splitSteps(' \n ', '\n'), []);
  });
  test('joined by their separators the pieces are the text', () => {
    const text = 'x; y;;z;';
    const pieces = splitSteps(text, ';');
    assert.deepEqual(
      pieces.map(({ text: piece, end }) => text.slice(end - piece.length - 1, end)),
      ['x;', ' y;', 'z;'],
    );
  });
});
