import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DataError } from '../errors/index.js';
import {
  createBpeTokenizer,
  createCharacterTokenizer,
  loadTokenizer,
} from '../tokenizers/index.js';
import {
  rowsFromObjects,
  tokenizeCompletions,
  tokenizePreferences,
  tokenizeUnpaired,
  validateRows,
  type TextTokenizer,
} from './index.js';

const digits = createCharacterTokenizer({ characters: '0123456789+= ' });
const EOS = digits.eosTokenId ?? -1;
const ids = (text: string) => digits.encode(text);
const qwen = await loadTokenizer('test/golden/tokenizers/qwen');
const llama3 = await loadTokenizer('test/golden/tokenizers/llama3');

type Values = Record<string, unknown>;
const pairsOf = (rows: Values[], tokenizer: TextTokenizer = digits, maxLength = 64) =>
  tokenizePreferences(rowsFromObjects(rows, 'x.jsonl'), tokenizer, { maxLength });
const NO_FAULTS = {
  ...{ equal: 0, empty: 0, tooLong: 0, margin: 0, noPrompt: 0, comparison: 0 },
  unreadable: 0,
};

describe('tokenizePreferences', () => {
  test('gives prompt, both completions with EOS, margin and comparison of a row', () => {
    const rows = rowsFromObjects([
      { prompt: '1+1=', chosen: '2', rejected: '11', margin: 0.5, comparison: 7 },
    ]);
    const { pairs, report } = tokenizePreferences(rows, digits, { maxLength: 7 });
    assert.deepEqual(pairs, [
      {
        promptIds: ids('1+1='),
        chosenIds: [...ids('2'), EOS],
        rejectedIds: [...ids('11'), EOS],
        margin: 0.5,
        comparison: '7',
        row: rows[0],
      },
    ]);
    assert.deepEqual(report, {
      examples: 1,
      tokens: 13,
      boundaryMerges: 0,
      withoutEos: 0,
      faults: NO_FAULTS,
      comparisons: 1,
      margins: 1,
      circles: [],
    });
  });

  test('an EOS that the data ends with is not doubled; without appendEos none is added', () => {
    const doubled = pairsOf([{ prompt: '1', chosen: '2<eos>', rejected: '3' }]).pairs[0];
    assert.deepEqual(doubled?.chosenIds, [...ids('2'), EOS]);
    const { pairs, report } = tokenizePreferences(
      rowsFromObjects([{ prompt: '1', chosen: '2', rejected: '3' }]),
      digits,
      { maxLength: 8, appendEos: false },
    );
    assert.deepEqual(pairs[0]?.chosenIds, ids('2'));
    assert.equal(report.withoutEos, 2);
  });

  test('a completion that only begins like the other one is another one', () => {
    for (const [chosen, rejected] of [
      ['2', '22'],
      ['22', '2'],
    ]) {
      const rows = rowsFromObjects([{ prompt: '1', chosen, rejected }]);
      const { pairs } = tokenizePreferences(rows, digits, { maxLength: 8, appendEos: false });
      assert.equal(pairs.length, 1);
    }
  });

  test('margin and comparison may be missing or null', () => {
    const { pairs, report } = pairsOf([
      { prompt: '1', chosen: '2', rejected: '3', margin: null, comparison: null },
      { prompt: '1', chosen: '2', rejected: '3', margin: 0 },
      { prompt: '1', chosen: '2', rejected: '3', comparison: 'a' },
      { prompt: '1', chosen: '3', rejected: '4', comparison: 'a' },
    ]);
    assert.deepEqual(
      pairs.map(({ margin }) => margin),
      [undefined, 0, undefined, undefined],
    );
    assert.deepEqual(
      pairs.map(({ comparison }) => comparison),
      [undefined, undefined, 'a', 'a'],
    );
    assert.deepEqual([report.comparisons, report.margins], [3, 1]);
  });

  test('where a token would cross the border of one completion, both are tokenized apart', () => {
    // "ab" is one token: "a" ⊕ "b" as one text would hide the border. "a" ⊕ "c" alone would not.
    const merging = createBpeTokenizer({ texts: ['ab ab ab'], vocabSize: 260 });
    const eos = merging.eosTokenId;
    for (const [chosen, rejected] of [
      ['b', 'c'],
      ['c', 'b'],
    ]) {
      const { pairs, report } = pairsOf([{ prompt: 'a', chosen, rejected }], merging);
      assert.deepEqual(pairs[0]?.promptIds, merging.encode('a'));
      assert.deepEqual(pairs[0]?.chosenIds, [...merging.encode(chosen ?? ''), eos]);
      assert.deepEqual(pairs[0]?.rejectedIds, [...merging.encode(rejected ?? ''), eos]);
      assert.equal(report.boundaryMerges, 1);
    }
  });

  test('without a prompt the common beginning is it', () => {
    const { pairs } = pairsOf([{ chosen: '1+1=2', rejected: '1+1=11' }]);
    assert.deepEqual(pairs[0]?.promptIds, ids('1+1='));
    assert.deepEqual(pairs[0]?.chosenIds, [...ids('2'), EOS]);
    assert.deepEqual(pairs[0]?.rejectedIds, [...ids('11'), EOS]);
  });

  test('where nothing is common BOS is the prompt, once, whoever writes it', () => {
    const row = { chosen: 'yes', rejected: 'no' };
    const own = pairsOf([row], llama3).pairs[0];
    assert.deepEqual(own?.promptIds, [llama3.bosTokenId]);
    const plain = llama3.encode('yes', { addSpecialTokens: false });
    assert.deepEqual(own?.chosenIds, [...plain, llama3.eosTokenId]);
    // A tokenizer that has BOS and does not add it.
    const silent: TextTokenizer = {
      bosTokenId: 99,
      eosTokenId: EOS,
      encode: (text) => ids(text),
      applyChatTemplate: () => '',
    };
    const added = pairsOf([{ prompt: '', chosen: '2', rejected: '3' }], silent).pairs[0];
    assert.deepEqual([added?.promptIds, added?.chosenIds], [[99], [...ids('2'), EOS]]);
    // A template that writes it.
    const chat = pairsOf(
      [
        {
          chosen: [{ role: 'assistant', content: 'yes' }],
          rejected: [{ role: 'assistant', content: 'no' }],
        },
      ],
      llama3,
    ).pairs[0];
    assert.deepEqual(chat?.promptIds, [llama3.bosTokenId]);
    assert.equal(chat?.chosenIds.includes(llama3.bosTokenId ?? -1), false);
  });

  for (const [name, tokenizer] of Object.entries({ qwen, llama3 })) {
    const user = { role: 'user', content: 'Hi' };
    const hello = { role: 'assistant', content: 'Hello' };
    const what = { role: 'assistant', content: 'What' };

    test(`a ${name} conversation: the prompt ends with the header, a completion with EOS`, () => {
      const { pairs, report } = pairsOf(
        [{ prompt: [user], chosen: [hello], rejected: [what] }],
        tokenizer,
        256,
      );
      const { promptIds = [], chosenIds = [], rejectedIds = [] } = pairs[0] ?? {};
      assert.deepEqual(promptIds, tokenizer.encodeChat([user], { addGenerationPrompt: true }));
      const whole = tokenizer.encodeChat([user, hello]);
      const end = whole.lastIndexOf(tokenizer.eosTokenId ?? -1) + 1;
      assert.deepEqual([...promptIds, ...chosenIds], whole.slice(0, end));
      assert.equal(rejectedIds.at(-1), tokenizer.eosTokenId);
      assert.match(tokenizer.decode(rejectedIds), /^What<\|[a-z_]+\|>$/);
      assert.deepEqual([report.boundaryMerges, report.withoutEos], [0, 0]);
    });

    test(`a ${name} conversation with the prompt inside is the same pair`, () => {
      const apart = pairsOf(
        [{ prompt: [user], chosen: [hello], rejected: [what] }],
        tokenizer,
        256,
      );
      const both = { chosen: [user, hello], rejected: [user, what] };
      for (const row of [both, { ...both, prompt: 'Hi' }]) {
        const rows = rowsFromObjects([row]);
        assert.equal(validateRows(rows, ['preference']).conversational, true);
        const inside = tokenizePreferences(rows, tokenizer, { maxLength: 256 });
        for (const key of ['promptIds', 'chosenIds', 'rejectedIds'] as const)
          assert.deepEqual(inside.pairs[0]?.[key], apart.pairs[0]?.[key]);
      }
    });
  }

  const faults: { kind: string; rows: Values[]; tokenizer?: TextTokenizer; message: string }[] = [
    {
      kind: 'equal',
      rows: [{ prompt: '1', chosen: '2', rejected: '2' }],
      message: 'expected chosen and rejected to differ, received the same tokens twice.',
    },
    {
      kind: 'equal',
      rows: [{ prompt: '1', chosen: '2', rejected: '2<eos>' }],
      message: 'expected chosen and rejected to differ, received the same tokens twice.',
    },
    {
      kind: 'empty',
      rows: [{ prompt: '1', chosen: '', rejected: '2' }],
      message: 'expected a completion of at least one token in column "chosen", received none.',
    },
    {
      kind: 'empty',
      rows: [{ prompt: '1', chosen: '2', rejected: '' }],
      message: 'expected a completion of at least one token in column "rejected", received none.',
    },
    {
      kind: 'empty',
      rows: [
        {
          prompt: [{ role: 'user', content: 'a' }],
          chosen: [],
          rejected: [{ role: 'assistant', content: 'a' }],
        },
      ],
      tokenizer: qwen,
      message: 'expected a completion of at least one token in column "chosen", received none.',
    },
    {
      kind: 'tooLong',
      rows: [{ prompt: '1234', chosen: '12345', rejected: '2' }],
      message: 'expected prompt and chosen of at most 9 tokens, received 10.',
    },
    {
      kind: 'tooLong',
      rows: [{ prompt: '1234', chosen: '2', rejected: '123456' }],
      message: 'expected prompt and rejected of at most 9 tokens, received 11.',
    },
    {
      kind: 'margin',
      rows: [{ prompt: '1', chosen: '2', rejected: '3', margin: Infinity }],
      message: 'expected column "margin" to be a finite number, received Infinity.',
    },
    {
      kind: 'margin',
      rows: [{ prompt: '1', chosen: '2', rejected: '3', margin: 'big' }],
      message: 'expected column "margin" to be a finite number, received the string "big".',
    },
    {
      kind: 'noPrompt',
      rows: [{ prompt: '', chosen: 'a', rejected: 'b' }],
      tokenizer: qwen,
      message:
        'expected a prompt of at least one token, received none, and the tokenizer has no BOS token.',
    },
    ...[[], [{ role: 'system', content: 'Be brief.' }]].map((before) => ({
      kind: 'noPrompt',
      rows: [
        {
          prompt: 'a',
          chosen: [...before, { role: 'assistant', content: 'b' }],
          rejected: [...before, { role: 'assistant', content: 'c' }],
        },
      ],
      tokenizer: llama3,
      message:
        'expected chosen and rejected to begin with the messages of the prompt, which column "prompt" holds as a string, but they share none.',
    })),
    {
      kind: 'comparison',
      rows: [
        { prompt: '3', chosen: '2', rejected: '3', comparison: 1 },
        { prompt: '2', chosen: '2', rejected: '3', comparison: '1' },
      ],
      message:
        'expected the prompt of x.jsonl:1, which is of comparison "1" too, received another one.',
    },
  ];
  describe('a row with a fault', () => {
    for (const [index, { kind, rows, tokenizer = digits, message }] of faults.entries()) {
      test(`${kind} (${index}) stops with its place, or is left out and counted`, () => {
        assert.throws(() => pairsOf(rows, tokenizer, 9), {
          code: 'E_DATA',
          message: `x.jsonl:${rows.length}: ${message}`,
        });
        const good = Array.isArray(rows[0]?.['chosen'])
          ? {
              prompt: [{ role: 'user', content: 'a' }],
              chosen: [{ role: 'assistant', content: 'b' }],
              rejected: [{ role: 'assistant', content: 'c' }],
            }
          : { prompt: '1', chosen: '2', rejected: '3' };
        const { pairs, report } = tokenizePreferences(rowsFromObjects([good, ...rows]), tokenizer, {
          maxLength: Array.isArray(good.prompt) ? 99 : 9,
          faulty: 'skip',
        });
        assert.equal(pairs.length, rows.length);
        assert.deepEqual(report.faults, { ...NO_FAULTS, [kind]: 1 });
      });
    }
  });

  describe('rejects', () => {
    test('data of which nothing remains, saying why', () => {
      const rows = rowsFromObjects([
        { prompt: '1', chosen: '2', rejected: '2' },
        { prompt: '1', chosen: '2', rejected: '' },
        { prompt: '1', chosen: '3', rejected: '3' },
      ]);
      assert.throws(() => tokenizePreferences(rows, digits, { maxLength: 8, faulty: 'skip' }), {
        code: 'E_DATA',
        message:
          'tokenizePreferences: expected at least one pair of at most 8 tokens, but all were left out: 3 rows (equal 2, empty 1).',
        hint: /^The first: .+:1: .*same/,
      });
    });

    test('rows of another format, a tokenizer without EOS, an impossible length', () => {
      assert.throws(() => pairsOf([{ prompt: '1', completion: '2' }]), {
        code: 'E_DATA',
        message: 'tokenizePreferences: expected preference rows, received prompt-completion rows.',
      });
      const endless: TextTokenizer = {
        encode: (text) => ids(text),
        applyChatTemplate: () => '',
        eosTokenId: undefined,
      };
      assert.throws(() => pairsOf([{ prompt: '1', chosen: '2', rejected: '3' }], endless), {
        code: 'E_CONFIG',
        message:
          'tokenizePreferences: expected a tokenizer with an EOS token, because appendEos is on, but it has none.',
      });
      assert.throws(() => pairsOf([{ prompt: '1', chosen: '2', rejected: '3' }], digits, 1), {
        code: 'E_RANGE',
        message:
          'tokenizePreferences: expected maxLength to be an integer of at least 2, received 1.',
      });
    });

    test('columns of other types', () => {
      assert.throws(
        () => pairsOf([{ prompt: '1', chosen: '2', rejected: '3', comparison: true }]),
        {
          code: 'E_DATA',
          message:
            'x.jsonl:1: expected column "comparison" to be a string or a number, received the boolean true.',
        },
      );
      assert.throws(() => pairsOf([{ prompt: '1', chosen: '2', rejected: 3 }]), {
        message: 'x.jsonl:1: expected column "rejected" to be a string, received the number 3.',
      });
    });

    test('a text that the tokenizer cannot write, with the row that it stands in', () => {
      const good = { prompt: '1', chosen: '2', rejected: '3' };
      assert.throws(
        () => pairsOf([good, { ...good, chosen: '2€' }]),
        (error) => {
          assert.ok(error instanceof DataError, String(error));
          assert.match(error.message, /^x\.jsonl:2: Tokenizer\.encode: .*no token for "€"/);
          assert.match(error.hint ?? '', /^Change the text/);
          return true;
        },
      );
    });

    test('rows that cannot be read are left out and counted where faults are skipped', () => {
      const good = { prompt: '1', chosen: '2', rejected: '3' };
      const bad = [
        { prompt: '1', chosen: '2' },
        { ...good, rejected: 3 },
        { ...good, chosen: '2€' },
        { ...good, comparison: true },
      ];
      // The first row has no known format of pairs: the second one says what the others should be.
      const { pairs, report } = tokenizePreferences(
        rowsFromObjects([bad[0] ?? {}, good, ...bad.slice(1)]),
        digits,
        { maxLength: 8, faulty: 'skip' },
      );
      assert.deepEqual(
        pairs.map(({ row }) => row.line),
        [2],
      );
      assert.deepEqual(report.faults, { ...NO_FAULTS, unreadable: 4 });
    });

    test('a pair that contradicts its comparison, or has nothing in common with it, with its line or left out', () => {
      const tokenizer = createCharacterTokenizer({ characters: '123', bosToken: '<bos>' });
      const ranked = (chosen: string, rejected: string) => ({ chosen, rejected, comparison: 'a' });
      const rows = [ranked('1', '2'), ranked('2', '1'), ranked('31', '32'), ranked('2', '3')];
      assert.throws(() => pairsOf(rows, tokenizer), {
        name: DataError.name,
        message:
          'x.jsonl:2: expected the preference of x.jsonl:1, which is of comparison "a" too, received the opposite one.',
      });
      const rest = [rows[0], rows[2]].map((row) => row ?? {});
      assert.throws(() => pairsOf(rest, tokenizer), {
        name: DataError.name,
        message:
          'x.jsonl:2: expected a completion of x.jsonl:1, or of another pair of comparison "a", received two others.',
      });
      const { pairs, report } = tokenizePreferences(rowsFromObjects(rows, 'x.jsonl'), tokenizer, {
        ...{ maxLength: 64, faulty: 'skip' },
      });
      assert.deepEqual(
        pairs.map(({ row }) => row.line),
        [1, 4],
      );
      assert.deepEqual(report.faults, { ...NO_FAULTS, comparison: 2 });
    });

    test('rows of one comparison whose prompts are not named are not compared', () => {
      const { report } = pairsOf(
        [
          { chosen: '12', rejected: '13', comparison: 'a' },
          { chosen: '12', rejected: '2', comparison: 'a' },
        ],
        createCharacterTokenizer({ characters: '123', bosToken: '<bos>' }),
      );
      assert.equal(report.comparisons, 1);
    });
  });
});

describe('tokenizeUnpaired', () => {
  test('reads rows with labels', () => {
    const rows = rowsFromObjects([
      { prompt: '1+1=', completion: '2', label: true },
      { prompt: '1+1=', completion: '33', label: false },
    ]);
    const { examples, report } = tokenizeUnpaired(rows, digits, { maxLength: 8 });
    assert.deepEqual(examples, [
      { promptIds: ids('1+1='), completionIds: [...ids('2'), EOS], label: true, row: rows[0] },
      { promptIds: ids('1+1='), completionIds: [...ids('33'), EOS], label: false, row: rows[1] },
    ]);
    assert.deepEqual(report, {
      examples: 2,
      tokens: 13,
      boundaryMerges: 0,
      withoutEos: 0,
      faults: NO_FAULTS,
      desirable: 1,
      undesirable: 1,
    });
  });

  test('takes a pair apart: chosen is desirable, rejected is not', () => {
    const rows = rowsFromObjects([{ prompt: '1', chosen: '2', rejected: '33' }]);
    const { examples, report } = tokenizeUnpaired(rows, digits, { maxLength: 8 });
    assert.deepEqual(
      examples.map(({ completionIds, label }) => [completionIds, label]),
      [
        [[...ids('2'), EOS], true],
        [[...ids('33'), EOS], false],
      ],
    );
    assert.deepEqual([report.desirable, report.undesirable], [1, 1]);
  });

  test('reads conversations, and counts tokens that would cross a border', () => {
    const { examples } = tokenizeUnpaired(
      rowsFromObjects([
        {
          prompt: [{ role: 'user', content: 'Hi' }],
          completion: [{ role: 'assistant', content: 'Hello' }],
          label: true,
        },
      ]),
      qwen,
      { maxLength: 256 },
    );
    assert.equal(qwen.decode(examples[0]?.completionIds ?? []), 'Hello<|im_end|>');
    const merging = createBpeTokenizer({ texts: ['ab ab ab'], vocabSize: 260 });
    const { report } = tokenizeUnpaired(
      rowsFromObjects([{ prompt: 'a', completion: 'b', label: true }]),
      merging,
      { maxLength: 8 },
    );
    assert.equal(report.boundaryMerges, 1);
  });

  test('stops at faults, or counts them', () => {
    const rows = rowsFromObjects(
      [
        { prompt: '1', completion: '2', label: true },
        { prompt: '1', completion: '', label: true },
        { prompt: '1', completion: '123456789', label: true },
      ],
      'x.jsonl',
    );
    assert.throws(() => tokenizeUnpaired(rows, digits, { maxLength: 8 }), {
      code: 'E_DATA',
      message:
        'x.jsonl:2: expected a completion of at least one token in column "completion", received none.',
    });
    const { examples, report } = tokenizeUnpaired(rows, digits, { maxLength: 8, faulty: 'skip' });
    assert.equal(examples.length, 1);
    assert.deepEqual(report.faults, { ...NO_FAULTS, empty: 1, tooLong: 1 });
    assert.throws(() => tokenizeUnpaired(rows.slice(1), digits, { maxLength: 8, faulty: 'skip' }), {
      message:
        'tokenizeUnpaired: expected at least one example of at most 8 tokens, but all were left out: 2 rows (empty 1, tooLong 1).',
    });
  });

  test('rejects other formats and labels', () => {
    assert.throws(
      () => tokenizeUnpaired(rowsFromObjects([{ prompt: '1' }]), digits, { maxLength: 8 }),
      {
        message:
          'tokenizeUnpaired: expected unpaired-preference or preference rows, received prompt-only rows.',
      },
    );
    assert.throws(
      () =>
        tokenizeUnpaired(
          rowsFromObjects([{ prompt: '1', completion: '2', label: 2 }], 'x.jsonl'),
          digits,
          { maxLength: 8 },
        ),
      {
        message: 'x.jsonl:1: expected column "label" to be true or false, received the number 2.',
      },
    );
  });
  test('a label may be a number or a text, as tables have it', () => {
    const labels = [true, 1, '1', 'True', ' true', false, 0, '0', 'FALSE'];
    const rows = rowsFromObjects(labels.map((label) => ({ prompt: '1', completion: '2', label })));
    const { examples, report } = tokenizeUnpaired(rows, digits, { maxLength: 8 });
    assert.deepEqual(
      examples.map(({ label }) => label),
      labels.map((_, index) => index < 5),
    );
    assert.deepEqual([report.desirable, report.undesirable], [5, 4]);
  });
});

describe('tokenizeCompletions', () => {
  test('reads demonstrations as a judged completion is read', () => {
    const rows = rowsFromObjects([{ prompt: '1+1=', completion: '2' }]);
    const { examples, report } = tokenizeCompletions(rows, digits, { maxLength: 8 });
    assert.deepEqual(examples, [
      { promptIds: ids('1+1='), completionIds: [...ids('2'), EOS], row: rows[0] },
    ]);
    assert.deepEqual([report.examples, report.tokens], [1, 6]);
  });

  test('a row without a label is left out where faults are skipped', () => {
    const rows = rowsFromObjects([
      { prompt: '1', completion: '2' },
      { prompt: '1', completion: '2', label: true },
      { prompt: '1', completion: '2', label: 'yes' },
    ]);
    const { report } = tokenizeUnpaired(rows, digits, { maxLength: 8, faulty: 'skip' });
    assert.deepEqual([report.examples, report.faults.unreadable], [1, 2]);
  });

  test('rejects other rows, and rows with faults', () => {
    const judged = rowsFromObjects([{ prompt: '1', completion: '2', label: true }]);
    assert.throws(() => tokenizeCompletions(judged, digits, { maxLength: 8 }), {
      code: 'E_DATA',
      message:
        'tokenizeCompletions: expected prompt-completion rows, received unpaired-preference rows.',
    });
    const rows = rowsFromObjects([{ prompt: '1', completion: '' }], 'x.jsonl');
    assert.throws(() => tokenizeCompletions(rows, digits, { maxLength: 8 }), {
      message:
        'x.jsonl:1: expected a completion of at least one token in column "completion", received none.',
    });
  });
});
