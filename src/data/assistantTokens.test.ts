import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { loadTokenizer, type ChatMessage, type Tokenizer } from '../tokenizers/index.js';
import { assistantTokens } from './assistantTokens.js';
import { rowsFromObjects, type Row } from './row.js';
import { tokenizeForSft } from './tokenizeRows.js';

interface Golden {
  readonly templates: Readonly<
    Record<string, { readonly bos: string | null; readonly eos: string; readonly text: string }>
  >;
  readonly chats: Readonly<Record<string, { messages: ChatMessage[]; tools?: unknown[] }>>;
  readonly cases: readonly {
    readonly template: string;
    readonly chat: string;
    readonly error?: string;
    readonly text: string;
    readonly prompt: string;
    readonly ids: number[];
    readonly mask: number[];
  }[];
}

const FOLDER = join(ROOT, 'test/golden/assistantMasks');
const golden = JSON.parse(readFileSync(join(FOLDER, 'cases.json'), 'utf8')) as Golden;
const root = mkdtempSync(join(tmpdir(), 'posttrain-masks-'));
after(() => rmSync(root, { recursive: true }));

let made = 0;
/** The golden tokenizer with a template. */
function tokenizerWith(name: string, edit = (text: string): string => text): Promise<Tokenizer> {
  const { bos, eos, text } = golden.templates[name] ?? { bos: null, eos: '', text: '' };
  const folder = mkdtempSync(join(root, `${made++}-`));
  copyFileSync(join(FOLDER, 'tokenizer.json'), join(folder, 'tokenizer.json'));
  const config = { bos_token: bos, eos_token: eos, chat_template: edit(text) };
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config));
  return loadTokenizer(folder);
}

/** Another statement in the place of each tag, so that blanks and line ends around it are trimmed as before. */
const withoutTags = (text: string): string =>
  text.replaceAll(/(\{%-?)\s*(?:end)?generation\s*(-?%\})/g, '$1 set nothing = 0 $2');

function rowOf(values: object): Row {
  const [row] = rowsFromObjects([{ ...values }]);
  assert.ok(row, 'there is no row');
  return row;
}

describe('assistantTokens', () => {
  for (const [name] of Object.entries(golden.templates)) {
    test(`${name}: texts, ids and masks are those of transformers, by tags`, async () => {
      const tokenizer = await tokenizerWith(name);
      for (const { chat, error, text, prompt, ids, mask } of golden.cases.filter(
        ({ template }) => template === name,
      )) {
        const { messages = [], tools } = golden.chats[chat] ?? {};
        const read = () =>
          assistantTokens(rowOf({ messages, tools }), { messages, first: 0 }, tokenizer);
        if (error !== undefined) {
          assert.throws(read, (thrown) => String(thrown).includes(error), chat);
          continue;
        }
        assert.equal(tokenizer.applyChatTemplate(messages, { tools }), text, chat);
        const asked = { tools, addGenerationPrompt: true };
        assert.equal(tokenizer.applyChatTemplate(messages.slice(0, 1), asked), prompt, chat);
        const marked = read();
        assert.deepEqual(marked.ids, ids, chat);
        assert.deepEqual([...marked.mask], mask, chat);
        assert.equal(marked.boundaryMerge, false);
      }
    });

    test(`${name}: without tags the same tokens are found, or the conversation is refused`, async () => {
      const tokenizer = await tokenizerWith(name, withoutTags);
      const refused: string[] = [];
      for (const { chat, error, ids, mask } of golden.cases.filter(
        ({ template }) => template === name,
      )) {
        if (error !== undefined) continue;
        const { messages = [], tools } = golden.chats[chat] ?? {};
        assert.equal(tokenizer.assistantSpans(messages, { tools }), undefined);
        const row = rowOf({ messages, tools });
        try {
          const marked = assistantTokens(row, { messages, first: 0 }, tokenizer);
          assert.deepEqual(marked.ids, ids, chat);
          assert.deepEqual([...marked.mask], mask, chat);
        } catch (thrown) {
          assert.match(
            String(thrown),
            /<memory>:1: expected the chat template to write the conversation up to message \d the same way alone and within the whole, because assistantOnly needs/,
          );
          refused.push(chat);
        }
      }
      // These two write a part differently at the end of a conversation: tools with the last question, thoughts after it.
      const expected: Record<string, string[]> = { mistral: ['tools'], qwen3: ['thoughts'] };
      assert.deepEqual(refused, expected[name] ?? []);
    });
  }

  const { messages: turns = [] } = golden.chats['three turns'] ?? {};

  test('from a message on, only later answers are marked', async () => {
    for (const edit of [(text: string) => text, withoutTags]) {
      const tokenizer = await tokenizerWith('chatml', edit);
      const marked = assistantTokens(rowOf({}), { messages: turns, first: 3 }, tokenizer);
      const texts = marked.ids.filter((_, index) => marked.mask[index] === 1);
      assert.equal(tokenizer.decode(texts), 'line\n\nbreak<|im_end|>ok<|im_end|>');
    }
  });

  test('an answer that ends where the marked part begins is not marked', async () => {
    // This template writes nothing between an answer and the next question.
    const tokenizer = await tokenizerWith('mistral');
    const marked = assistantTokens(rowOf({}), { messages: turns, first: 2 }, tokenizer);
    const texts = marked.ids.filter((_, index) => marked.mask[index] === 1);
    assert.equal(tokenizer.decode(texts), 'line\n\nbreak</s>ok</s>');
  });

  test('what stands between tags is marked as it is, beyond the end token too', async () => {
    const tokenizer = await tokenizerWith('chatml', (text) =>
      text.replace("{% endgeneration %}{{ '\\n' }}", "{{ '\\n' }}{% endgeneration %}"),
    );
    const marked = assistantTokens(rowOf({}), { messages: turns.slice(0, 2), first: 0 }, tokenizer);
    const texts = marked.ids.filter((_, index) => marked.mask[index] === 1);
    assert.equal(tokenizer.decode(texts), 'Hello there!<|im_end|>\n');
  });

  test('tags trim the blanks and line ends around them as in the text itself', async () => {
    for (const [start, end] of [
      ['{% generation -%} \n ', ' \n {%- endgeneration %}'],
      ['\n  {%- generation %}\n', '{% endgeneration -%}  \n'],
    ] as const) {
      const tokenizer = await tokenizerWith('chatml', (text) =>
        text.replace('{% generation %}', start).replace('{% endgeneration %}', end),
      );
      const text = tokenizer.applyChatTemplate(turns);
      const spans = tokenizer.assistantSpans(turns) ?? [];
      assert.deepEqual(
        spans.map((span) => text.slice(span.start, span.end)),
        ['Hello there!<|im_end|>', 'line\n\nbreak<|im_end|>', 'ok<|im_end|>'],
      );
    }
  });

  test('a token that would cross the end of a part is not made: the parts are tokenized apart', async () => {
    const tokenizer = await tokenizerWith('chatml', (text) =>
      text.replace("message.role + '\\n'", "message.role + ' t'"),
    );
    const messages = [
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content: 'he cat' },
    ];
    const marked = assistantTokens(rowOf({}), { messages, first: 0 }, tokenizer);
    const text = tokenizer.applyChatTemplate(messages);
    const whole = tokenizer.encode(text, { addSpecialTokens: false });
    assert.equal(marked.boundaryMerge, true);
    assert.notDeepEqual(marked.ids, whole);
    assert.equal(tokenizer.decode(marked.ids), text);
    const trained = marked.ids.filter((_, index) => marked.mask[index] === 1);
    assert.equal(tokenizer.decode(trained), 'he cat<|im_end|>');
  });

  test('a conversation that begins with an answer is refused without tags', async () => {
    const tokenizer = await tokenizerWith('chatml', withoutTags);
    const messages = [{ role: 'assistant', content: 'Hello' }];
    assert.throws(() => assistantTokens(rowOf({}), { messages, first: 0 }, tokenizer), {
      code: 'E_DATA',
      message: /expected the chat template to write the conversation up to message 1 the same way/,
    });
  });

  test('text for private use in a message is no mark', async () => {
    const tokenizer = await tokenizerWith('chatml');
    const messages = [
      { role: 'user', content: '\uE000' },
      { role: 'assistant', content: '\uE001\uE000' },
    ];
    const [span] = tokenizer.assistantSpans(messages) ?? [];
    const text = tokenizer.applyChatTemplate(messages);
    assert.equal(text.slice(span?.start, span?.end), '\uE001\uE000<|im_end|>');
  });

  test('tags that do not come in turn are refused', async () => {
    for (const edit of [
      (text: string) => text.replace('{% endgeneration %}', ''),
      (text: string) => text.replace('{% generation %}', '{% generation %}{% generation %}'),
      (text: string) => text.replace('{% generation %}', ''),
    ]) {
      const tokenizer = await tokenizerWith('chatml', edit);
      for (const messages of [turns, turns.slice(0, 2)]) {
        assert.throws(() => tokenizer.assistantSpans(messages), {
          code: 'E_CHECKPOINT',
          message: /expected \{% generation %\} and \{% endgeneration %\} in turn/,
        });
      }
    }
  });
});

describe('tokenizeForSft with assistantOnly', () => {
  const { messages: turns = [] } = golden.chats['three turns'] ?? {};
  const trainedText = (
    tokenizer: Tokenizer,
    { inputIds, completionMask }: { inputIds: readonly number[]; completionMask: Uint8Array },
  ): string => tokenizer.decode(inputIds.filter((_, index) => completionMask[index] === 1));

  test('trains what the assistant wrote in every turn, its end token included', async () => {
    const tokenizer = await tokenizerWith('chatml');
    const rows = rowsFromObjects([{ messages: turns }]);
    const options = { maxLength: 200, assistantOnly: true };
    const { examples, report } = tokenizeForSft(rows, tokenizer, options);
    const [example] = examples;
    assert.ok(example, 'there is no example');
    assert.equal(
      trainedText(tokenizer, example),
      'Hello there!<|im_end|>line\n\nbreak<|im_end|>ok<|im_end|>',
    );
    assert.equal(example.completionMask[example.completionStart], 1);
    assert.equal(example.completionMask.indexOf(1), example.completionStart);
    assert.deepEqual(report, {
      ...{ examples: 1, dropped: 0, tokens: 80, trainedTokens: 22 },
      ...{ truncated: 0, boundaryMerges: 0, withoutEos: 0 },
    });
    const all = tokenizeForSft(rows, tokenizer, { maxLength: 200 });
    assert.equal(all.report.trainedTokens, 79);
  });

  test('of a prompt and its completion, only answers of the completion', async () => {
    const tokenizer = await tokenizerWith('chatml');
    const rows = rowsFromObjects([{ prompt: turns.slice(0, 3), completion: turns.slice(3) }]);
    const { examples } = tokenizeForSft(rows, tokenizer, { maxLength: 200, assistantOnly: true });
    assert.equal(
      examples[0] && trainedText(tokenizer, examples[0]),
      'line\n\nbreak<|im_end|>ok<|im_end|>',
    );
    const plain = tokenizeForSft(rows, tokenizer, { maxLength: 200 }).examples[0];
    assert.match(plain ? trainedText(tokenizer, plain) : '', /^line[^]*<\|im_start\|>user\n日本/);
  });

  test('a conversation without an answer, or cut before it, has nothing to train and is left out', async () => {
    const tokenizer = await tokenizerWith('chatml');
    const rows = rowsFromObjects([{ messages: turns.slice(0, 1) }, { messages: turns }]);
    const options = { maxLength: 200, assistantOnly: true };
    assert.equal(tokenizeForSft(rows, tokenizer, options).report.dropped, 1);
    assert.throws(() => tokenizeForSft(rows, tokenizer, { ...options, maxLength: 8 }), {
      code: 'E_DATA',
      message:
        'tokenizeForSft: expected at least one example of at most 8 tokens, but all were left out: 2 rows.',
    });
  });

  test('an end token counts where it is trained, not where others say it', async () => {
    const rows = rowsFromObjects([{ messages: turns.slice(0, 3) }]);
    const options = { maxLength: 200, assistantOnly: true };
    const inside = tokenizeForSft(rows, await tokenizerWith('chatml'), options);
    assert.equal(inside.report.withoutEos, 0);
    const outside = await tokenizerWith('chatml', (text) =>
      text.replace(
        "{{ message.content + '<|im_end|>' }}{% endgeneration %}",
        "{{ message.content }}{% endgeneration %}{{ '<|im_end|>' }}",
      ),
    );
    assert.equal(tokenizeForSft(rows, outside, options).report.withoutEos, 1);
  });

  test('plain rows are refused', async () => {
    const tokenizer = await tokenizerWith('chatml');
    const rows = rowsFromObjects([{ prompt: 'a', completion: 'b' }]);
    assert.throws(() => tokenizeForSft(rows, tokenizer, { maxLength: 9, assistantOnly: true }), {
      code: 'E_CONFIG',
      message:
        'assistantOnly: expected conversations, because it trains what the assistant wrote, received plain prompt-completion rows.',
    });
  });

  test('two BOS tokens at the start are refused with the row', async () => {
    const tokenizer = await tokenizerWith('llama3', (text) => `{{ bos_token }}${text}`);
    const rows = rowsFromObjects([{ messages: turns }]);
    assert.throws(() => tokenizeForSft(rows, tokenizer, { maxLength: 200 }), {
      code: 'E_DATA',
      message:
        '<memory>:1: encodeRendered: expected at most one BOS token at the start of a conversation, received two.',
    });
  });
});
