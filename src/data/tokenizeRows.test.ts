import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  createBpeTokenizer,
  createCharacterTokenizer,
  loadTokenizer,
} from '../tokenizers/index.js';
import { rowsFromObjects, tokenizeForSft, tokenizePrompts, type TextTokenizer } from './index.js';

const digits = createCharacterTokenizer({ characters: '0123456789+=' });
const EOS = digits.eosTokenId ?? -1;
const ids = (text: string) => digits.encode(text);
const qwen = await loadTokenizer('test/golden/tokenizers/qwen');
const llama3 = await loadTokenizer('test/golden/tokenizers/llama3');

describe('tokenizeForSft', () => {
  test('of a prompt–completion row only the completion and its EOS are trained', () => {
    const { examples, report } = tokenizeForSft(
      rowsFromObjects([{ prompt: '1+1=', completion: '2' }]),
      digits,
      { maxLength: 16 },
    );
    const [example] = examples;
    assert.deepEqual(example?.inputIds, [...ids('1+1=2'), EOS]);
    assert.equal(example.completionStart, 4);
    assert.deepEqual(Array.from(example.completionMask), [0, 0, 0, 0, 1, 1]);
    assert.deepEqual(report, {
      examples: 1,
      tokens: 6,
      trainedTokens: 2,
      truncated: 0,
      dropped: 0,
      boundaryMerges: 0,
      withoutEos: 0,
    });
  });

  test('of a text every token but the first is trained, for nothing predicts the first', () => {
    const { examples } = tokenizeForSft(rowsFromObjects([{ text: '12' }]), digits, {
      maxLength: 16,
    });
    assert.deepEqual(examples[0]?.inputIds, [...ids('12'), EOS]);
    assert.deepEqual(Array.from(examples[0].completionMask), [0, 1, 1]);
    assert.equal(examples[0].completionStart, 1);
  });

  test('EOS is trained even where it is the padding token too', () => {
    const shared = createCharacterTokenizer({ characters: '12', padToken: '<eos>' });
    assert.equal(shared.padTokenId, shared.eosTokenId);
    const { examples } = tokenizeForSft(
      rowsFromObjects([{ prompt: '1', completion: '2' }]),
      shared,
      { maxLength: 8 },
    );
    assert.equal(examples[0]?.inputIds.at(-1), shared.eosTokenId);
    assert.equal(examples[0]?.completionMask.at(-1), 1);
  });

  test('an EOS that the data already ends with is not doubled', () => {
    const { examples } = tokenizeForSft(
      rowsFromObjects([
        { prompt: '1', completion: '2<eos>' },
        { prompt: '1', completion: '2' },
      ]),
      digits,
      { maxLength: 8 },
    );
    assert.deepEqual(examples[0]?.inputIds, examples[1]?.inputIds);
  });

  test('an empty completion trains EOS alone; without appendEos there is nothing to train', () => {
    const rows = rowsFromObjects([
      { prompt: '1', completion: '' },
      { prompt: '1', completion: '2' },
    ]);
    const on = tokenizeForSft(rows, digits, { maxLength: 8 });
    assert.deepEqual(on.examples[0]?.inputIds, [...ids('1'), EOS]);
    const off = tokenizeForSft(rows, digits, { maxLength: 8, appendEos: false });
    assert.deepEqual(off.examples[0]?.inputIds, ids('12'));
    assert.equal(off.report.dropped, 1);
    assert.equal(off.report.withoutEos, 1);
  });

  test('long examples are cut at the right, without an EOS of their own, and counted', () => {
    const rows = rowsFromObjects([
      { prompt: '1+1=', completion: '222222' },
      { prompt: '1+1+1+1=', completion: '4' },
      { prompt: '1=', completion: '1' },
    ]);
    const { examples, report } = tokenizeForSft(rows, digits, { maxLength: 6 });
    assert.deepEqual(examples[0]?.inputIds, ids('1+1=22'));
    assert.deepEqual(Array.from(examples[0].completionMask), [0, 0, 0, 0, 1, 1]);
    assert.deepEqual(
      examples.map((example) => example.row.line),
      [1, 3],
    );
    const { truncated, dropped, withoutEos } = report;
    assert.deepEqual(
      { truncated, dropped, withoutEos },
      { truncated: 1, dropped: 1, withoutEos: 1 },
    );
  });

  test('long examples are left out on request', () => {
    const rows = rowsFromObjects([
      { prompt: '1', completion: '222222' },
      { prompt: '1', completion: '2' },
    ]);
    const { examples, report } = tokenizeForSft(rows, digits, { maxLength: 6, overlong: 'drop' });
    assert.equal(examples.length, 1);
    assert.deepEqual([report.truncated, report.dropped], [0, 1]);
  });

  test('an empty prompt leaves the first token of the completion untrained', () => {
    const { examples } = tokenizeForSft(
      rowsFromObjects([{ prompt: '', completion: '12' }]),
      digits,
      { maxLength: 8 },
    );
    assert.deepEqual(examples[0]?.inputIds, [...ids('12'), EOS]);
    assert.deepEqual(Array.from(examples[0].completionMask), [0, 1, 1]);
  });

  test('an EOS in the prompt does not count as the end of a completion', () => {
    const { report } = tokenizeForSft(
      rowsFromObjects([{ prompt: '1<eos>', completion: '222' }]),
      digits,
      { maxLength: 4 },
    );
    assert.equal(report.withoutEos, 1);
  });

  test('where a token would cross the border, the prompt keeps the tokens it has alone', () => {
    // "ab" is one token of this vocabulary, so "a" ⊕ "b" as one text would hide the border.
    const merging = createBpeTokenizer({ texts: ['ab ab ab'], vocabSize: 260 });
    assert.equal(merging.encode('ab').length, 1);
    const rows = rowsFromObjects([
      { prompt: 'a', completion: 'b' },
      { prompt: 'a', completion: 'c' },
    ]);
    const { examples, report } = tokenizeForSft(rows, merging, { maxLength: 8 });
    assert.deepEqual(examples[0]?.inputIds, [
      ...merging.encode('a'),
      ...merging.encode('b'),
      merging.eosTokenId,
    ]);
    assert.equal(examples[0].completionStart, 1);
    assert.equal(report.boundaryMerges, 1);
  });

  test('BOS comes once, before the prompt', () => {
    const { examples } = tokenizeForSft(
      rowsFromObjects([{ prompt: 'the ', completion: 'answer' }]),
      llama3,
      { maxLength: 32 },
    );
    const sequence = examples[0]?.inputIds ?? [];
    assert.equal(sequence[0], llama3.bosTokenId);
    assert.equal(sequence.filter((id) => id === llama3.bosTokenId).length, 1);
    assert.equal(sequence.at(-1), llama3.eosTokenId);
  });

  test('an EOS that the post-processor adds stands at the end, never inside', () => {
    // A tokenizer in the manner of T5: every text ends with EOS unless special tokens are off.
    const closing: TextTokenizer = {
      eosTokenId: EOS,
      encode: (text, options) =>
        options?.addSpecialTokens === false ? ids(text) : [...ids(text), EOS],
      applyChatTemplate: () => '',
    };
    const rows = rowsFromObjects([{ prompt: '1+1=', completion: '2' }]);
    const { examples } = tokenizeForSft(rows, closing, { maxLength: 16 });
    assert.deepEqual(examples[0]?.inputIds, [...ids('1+1=2'), EOS]);
    assert.equal(examples[0].completionStart, 4);
    const { prompts } = tokenizePrompts(rows, closing, { maxPromptLength: 16 });
    assert.deepEqual(prompts[0]?.inputIds, ids('1+1='));
  });

  for (const [name, tokenizer] of Object.entries({ qwen, llama3 })) {
    test(`a ${name} conversation trains what the assistant says and its EOS`, () => {
      const rows = rowsFromObjects([
        {
          prompt: [{ role: 'user', content: 'Hi' }],
          completion: [{ role: 'assistant', content: 'Hello' }],
        },
      ]);
      const { examples, report } = tokenizeForSft(rows, tokenizer, { maxLength: 200 });
      const { inputIds = [], completionStart = 0 } = examples[0] ?? {};
      const header = tokenizer.decode(inputIds.slice(0, completionStart));
      assert.match(header, /Hi.*assistant/s);
      const trained = tokenizer.decode(inputIds.slice(completionStart));
      assert.match(trained, name === 'qwen' ? /^Hello<\|im_end\|>\n$/ : /^Hello<\|eot_id\|>$/);
      assert.deepEqual([report.boundaryMerges, report.withoutEos], [0, 0]);
    });

    test(`of ${name} messages every token but the first is trained`, () => {
      const messages = [
        { role: 'user', content: 'Hi' },
        { role: 'assistant', content: 'Hello' },
      ];
      const { examples } = tokenizeForSft(rowsFromObjects([{ messages }]), tokenizer, {
        maxLength: 200,
      });
      assert.deepEqual(examples[0]?.inputIds, tokenizer.encodeChat(messages));
      assert.equal(examples[0].completionStart, 1);
    });
  }

  test('tools of a row reach the chat template', () => {
    const rows = rowsFromObjects([
      { messages: [{ role: 'user', content: 'Hi' }], tools: [{ name: 'add' }] },
    ]);
    const { examples } = tokenizeForSft(rows, qwen, { maxLength: 500 });
    assert.match(qwen.decode(examples[0]?.inputIds ?? []), /# Tools\n<tools>\n\{"name": "add"\}/);
  });

  test('tools as JSON, as tables hold them, are the same as a list', () => {
    const idsWith = (tools: unknown): readonly number[] | undefined => {
      const rows = rowsFromObjects([{ messages: [{ role: 'user', content: 'Hi' }], tools }]);
      return tokenizeForSft(rows, qwen, { maxLength: 500 }).examples[0]?.inputIds;
    };
    assert.deepEqual(idsWith('[{"name": "add"}]'), idsWith([{ name: 'add' }]));
    for (const none of ['[]', 'null', [], null])
      assert.deepEqual(idsWith(none), idsWith(undefined));
    assert.notDeepEqual(idsWith([{ name: 'add' }]), idsWith(undefined));
  });

  describe('rejects', () => {
    test('rows of another format', () => {
      assert.throws(
        () => tokenizeForSft(rowsFromObjects([{ prompt: '1' }]), digits, { maxLength: 8 }),
        {
          code: 'E_DATA',
          message:
            'tokenizeForSft: expected language-modeling or prompt-completion rows, received prompt-only rows.',
        },
      );
    });

    test('a tokenizer without EOS, unless EOS is not wanted', () => {
      const endless: TextTokenizer = {
        encode: (text) => ids(text),
        applyChatTemplate: () => '',
        eosTokenId: undefined,
      };
      const rows = rowsFromObjects([{ text: '123' }]);
      assert.throws(() => tokenizeForSft(rows, endless, { maxLength: 8 }), {
        code: 'E_CONFIG',
        message:
          'tokenizeForSft: expected a tokenizer with an EOS token, because appendEos is on, but it has none.',
      });
      const { report } = tokenizeForSft(rows, endless, { maxLength: 8, appendEos: false });
      assert.equal(report.withoutEos, 1);
    });

    test('data of which nothing remains', () => {
      assert.throws(
        () =>
          tokenizeForSft(rowsFromObjects([{ prompt: '1234', completion: '5' }]), digits, {
            maxLength: 4,
          }),
        {
          code: 'E_DATA',
          message:
            'tokenizeForSft: expected at least one example of at most 4 tokens, but all were left out: 1 row.',
        },
      );
    });

    test('a maximum length that leaves nothing to predict', () => {
      for (const maxLength of [1, 2.5, Number.NaN]) {
        assert.throws(
          () => tokenizeForSft(rowsFromObjects([{ text: '1' }]), digits, { maxLength }),
          {
            code: 'E_RANGE',
            message: `tokenizeForSft: expected maxLength to be an integer of at least 2, received ${maxLength}.`,
          },
        );
      }
    });

    test('a prompt that the template writes differently before its completion', () => {
      const rows = rowsFromObjects(
        [
          {
            prompt: [{ role: 'assistant', content: 'Well' }],
            completion: [{ role: 'user', content: 'Hi' }],
          },
        ],
        'x.jsonl',
      );
      assert.throws(() => tokenizeForSft(rows, qwen, { maxLength: 100 }), {
        code: 'E_DATA',
        message:
          'x.jsonl:1: expected the chat template to write the prompt the same way alone and before its completion, but it does not.',
        hint: /End the prompt with a user or tool message/,
      });
    });

    test('a column that is not text, naming row and column', () => {
      const rows = rowsFromObjects([{ text: '1' }, { text: 2 }], 'x.jsonl');
      assert.throws(() => tokenizeForSft(rows, digits, { maxLength: 8 }), {
        code: 'E_DATA',
        message: 'x.jsonl:2: expected column "text" to be a string, received the number 2.',
      });
      const chats = rowsFromObjects([
        { messages: [{ role: 'user', content: '' }] },
        { messages: 'x' },
      ]);
      assert.throws(() => tokenizeForSft(chats, qwen, { maxLength: 80 }), {
        message:
          '<memory>:2: expected column "messages" to be a list of messages [{"role", "content"}, …], received the string "x".',
      });
    });
  });
});

describe('rows that are longer than maxLength', () => {
  const tokenizer = createCharacterTokenizer({ characters: 'abcdefgh' });
  const texts = rowsFromObjects([{ text: 'abcdefg' }, { text: 'ab' }]);
  const read = (
    overlong: 'truncate' | 'truncateStart' | 'split' | 'drop',
    rows = texts,
  ): { texts: string[]; masks: number[][]; truncated: number; dropped: number } => {
    const { examples, report } = tokenizeForSft(rows, tokenizer, { maxLength: 4, overlong });
    return {
      texts: examples.map(({ inputIds }) => tokenizer.decode(inputIds)),
      masks: examples.map(({ completionMask }) => [...completionMask]),
      truncated: report.truncated,
      dropped: report.dropped,
    };
  };
  test('keep their beginning, their end, all of it in parts, or nothing', () => {
    const short = 'ab<eos>';
    const whole = { truncated: 1, dropped: 0 };
    const masks = [
      [0, 1, 1, 1],
      [0, 1, 1],
    ];
    assert.deepEqual(read('truncate'), { texts: ['abcd', short], masks, ...whole });
    assert.deepEqual(read('truncateStart'), { texts: ['efg<eos>', short], masks, ...whole });
    assert.deepEqual(read('split'), {
      texts: ['abcd', 'efg<eos>', short],
      masks: [[0, 1, 1, 1], ...masks],
      ...whole,
    });
    assert.deepEqual(read('drop'), {
      texts: [short],
      masks: [[0, 1, 1]],
      truncated: 0,
      dropped: 1,
    });
  });
  test('the end of a prompt and its completion keeps the mask of the completion', () => {
    const rows = rowsFromObjects([{ prompt: 'abc', completion: 'def' }]);
    assert.deepEqual(read('truncateStart', rows).masks, [[0, 1, 1, 1]]);
    assert.deepEqual(read('truncate', rows).masks, [[0, 0, 0, 1]]);
    const longPrompt = rowsFromObjects([{ prompt: 'abcde', completion: 'f' }]);
    assert.deepEqual(read('truncateStart', longPrompt).masks, [[0, 0, 1, 1]]);
  });
  test('a last part of one token has nothing to train and is left out', () => {
    assert.deepEqual(read('split', rowsFromObjects([{ text: 'abcdefgh'.slice(0, 4) }])).texts, [
      'abcd',
    ]);
  });
  test('completions are not split from their prompt', () => {
    const rows = rowsFromObjects([{ prompt: 'abc', completion: 'def' }]);
    assert.throws(() => read('split', rows), {
      code: 'E_CONFIG',
      message:
        'overlong: expected another value than split for prompt-completion rows, received split.',
    });
  });
});

describe('tokenizePrompts', () => {
  test('strings are encoded as they are; further columns stay in the row', () => {
    const rows = rowsFromObjects([{ prompt: '1+1=', answer: '2' }]);
    const { prompts, report } = tokenizePrompts(rows, digits, { maxPromptLength: 8 });
    assert.deepEqual(prompts, [{ inputIds: ids('1+1='), text: '1+1=', row: rows[0] }]);
    assert.deepEqual(report, { prompts: 1, tokens: 4, dropped: 0 });
  });

  test('conversations end with the header of the answer', () => {
    const messages = [{ role: 'user', content: 'Hi' }];
    const { prompts } = tokenizePrompts(rowsFromObjects([{ prompt: messages }]), llama3, {
      maxPromptLength: 99,
    });
    assert.equal(
      prompts[0]?.text,
      llama3.applyChatTemplate(messages, { addGenerationPrompt: true }),
    );
    assert.deepEqual(
      prompts[0]?.inputIds,
      llama3.encodeChat(messages, { addGenerationPrompt: true }),
    );
  });

  test('long prompts are left out and counted', () => {
    const rows = rowsFromObjects([{ prompt: '123456' }, { prompt: '1' }]);
    const { prompts, report } = tokenizePrompts(rows, digits, { maxPromptLength: 3 });
    assert.deepEqual(
      prompts.map((prompt) => prompt.text),
      ['1'],
    );
    assert.equal(report.dropped, 1);
  });

  test('rejects empty prompts, nothing remaining, and impossible lengths', () => {
    assert.throws(
      () => tokenizePrompts(rowsFromObjects([{ prompt: '' }]), digits, { maxPromptLength: 3 }),
      {
        code: 'E_DATA',
        message: '<memory>:1: expected a prompt of at least one token, received none.',
      },
    );
    assert.throws(
      () => tokenizePrompts(rowsFromObjects([{ prompt: '1234' }]), digits, { maxPromptLength: 3 }),
      {
        code: 'E_DATA',
        message:
          'tokenizePrompts: expected at least one prompt of at most 3 tokens, but all were left out: 1 row.',
      },
    );
    assert.throws(() => tokenizePrompts([], digits, { maxPromptLength: 0 }), {
      code: 'E_RANGE',
      message:
        'tokenizePrompts: expected maxPromptLength to be an integer of at least 1, received 0.',
    });
  });
});
