import assert from 'node:assert/strict';
import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { loadTokenizer } from './index.js';

const FOLDER = 'test/golden/tokenizers';

/** A copy of a golden folder, with files replaced (string), changed (function) or removed (null). */
function folderWith(
  name: string,
  changes: Record<string, string | null | ((fields: Record<string, unknown>) => object)> = {},
): string {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-tokenizer-'));
  cpSync(join(FOLDER, name), folder, { recursive: true });
  for (const [file, change] of Object.entries(changes)) {
    const path = join(folder, file);
    if (change === null) rmSync(path);
    else if (typeof change === 'string') writeFileSync(path, change);
    else {
      const fields = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
      writeFileSync(path, JSON.stringify(change(fields)));
    }
  }
  return folder;
}

describe('loadTokenizer', () => {
  describe('rejects', () => {
    test('a folder that does not exist', async () => {
      await assert.rejects(loadTokenizer('no/such/folder'), {
        code: 'E_CHECKPOINT',
        message: 'loadTokenizer: expected a folder, but there is none at no/such/folder.',
      });
    });

    test('a folder without tokenizer.json, naming what was found', async () => {
      const folder = folderWith('qwen', { 'tokenizer.json': null });
      await assert.rejects(loadTokenizer(folder), {
        code: 'E_CHECKPOINT',
        message: `loadTokenizer: expected ${folder}/tokenizer.json, but it does not exist (found tokenizer_config.json, chat_template.jinja).`,
        hint: /Download tokenizer\.json/,
      });
    });

    test('a folder with only a SentencePiece model, saying how to convert it', async () => {
      const folder = folderWith('qwen', { 'tokenizer.json': null, 'tokenizer.model': 'x' });
      await assert.rejects(loadTokenizer(folder), { hint: /A tokenizer\.model alone is not read/ });
    });

    test('a torn tokenizer.json', async () => {
      const folder = folderWith('qwen', { 'tokenizer.json': '{"model": {"vo' });
      await assert.rejects(loadTokenizer(folder), {
        code: 'E_CHECKPOINT',
        message: /^loadTokenizer: expected .*tokenizer\.json to be JSON, but /,
        hint: /Git LFS pointer/,
      });
    });

    test('a tokenizer_config.json that is a list', async () => {
      const folder = folderWith('qwen', { 'tokenizer_config.json': '[]' });
      await assert.rejects(loadTokenizer(folder), {
        code: 'E_CHECKPOINT',
        message: `loadTokenizer: expected ${folder}/tokenizer_config.json to be a JSON object, received an array.`,
      });
    });

    test('a tokenizer.json without a vocabulary', async () => {
      const folder = folderWith('qwen', { 'tokenizer.json': '{"model": {}}' });
      await assert.rejects(loadTokenizer(folder), {
        message: /to have a "model" with a "vocab", but it has none\.$/,
      });
    });

    test('a kind of pre-tokenizer that the library does not know', async () => {
      const folder = folderWith('qwen', {
        'tokenizer.json': (fields) => ({ ...fields, pre_tokenizer: { type: 'Telepathy' } }),
      });
      await assert.rejects(loadTokenizer(folder), {
        code: 'E_CHECKPOINT',
        message: `loadTokenizer: expected tokenizer.json of ${folder} to hold a tokenizer of a known kind, but its pre_tokenizer is of the unknown type "Telepathy".`,
      });
    });

    test('a special token that is not in the vocabulary', async () => {
      const folder = folderWith('qwen', {
        'tokenizer_config.json': (fields) => ({ ...fields, eos_token: '<|stop|>' }),
      });
      await assert.rejects(loadTokenizer(folder), {
        message: `loadTokenizer: expected the eos_token "<|stop|>" of ${folder} to be in its vocabulary, but it is not.`,
      });
    });

    test('a chat template that is not Jinja', async () => {
      const folder = folderWith('qwen', { 'chat_template.jinja': '{% for %}' });
      await assert.rejects(loadTokenizer(folder), {
        code: 'E_CHECKPOINT',
        message: /^loadTokenizer: expected the chat template of .* to be valid Jinja, but /,
      });
    });

    test('a chat template that ends too early, in words and not in those of the engine', async () => {
      for (const text of ['{% for m in messages %}{{ m.content }}', '{% if a %}b', '{{ a.']) {
        const folder = folderWith('qwen', { 'chat_template.jinja': text });
        await assert.rejects(loadTokenizer(folder), {
          code: 'E_CHECKPOINT',
          message: `loadTokenizer: expected the chat template of ${folder} to be valid Jinja, but it ends within a {% block %} or an {{ expression }}.`,
        });
      }
    });

    test('a chat template that is no text', async () => {
      const folder = folderWith('qwen', {});
      writeFileSync(join(folder, 'chat_template.jinja'), Uint8Array.from([0xff, 0xfe, 0x7b, 0]));
      await assert.rejects(loadTokenizer(folder), {
        code: 'E_CHECKPOINT',
        message: `loadTokenizer: expected ${folder}/chat_template.jinja to be UTF-8 text, received other bytes.`,
      });
    });

    test('a chat template of an unknown form', async () => {
      const folder = folderWith('qwen', {
        'chat_template.jinja': null,
        'tokenizer_config.json': (fields) => ({ ...fields, chat_template: 7 }),
      });
      await assert.rejects(loadTokenizer(folder), {
        message:
          /expected "chat_template" in .* to be a string or a list with a "default" template/,
      });
    });

    test('a file that cannot be read', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'posttrain-tokenizer-'));
      cpSync(FOLDER, join(folder, 'tokenizer.json'), { recursive: true }); // a folder of that name
      await assert.rejects(loadTokenizer(folder), {
        code: 'E_IO',
        message: /^loadTokenizer: expected to read .*tokenizer\.json, but EISDIR/,
      });
    });
  });

  describe('reads', () => {
    test('special tokens written as objects and in special_tokens_map.json', async () => {
      const folder = folderWith('qwen', {
        'tokenizer_config.json': () => ({ pad_token: { content: '<|im_start|>' } }),
        'special_tokens_map.json': '{"eos_token": "<|endoftext|>", "pad_token": "<|im_end|>"}',
      });
      const tokenizer = await loadTokenizer(folder);
      assert.equal(tokenizer.eosTokenId, tokenizer.tokenToId('<|endoftext|>'));
      assert.equal(tokenizer.padTokenId, tokenizer.tokenToId('<|im_start|>')); // the configuration wins
    });

    test('a template inside tokenizer_config.json, plain or named default', async () => {
      const named = [
        { name: 'tool_use', template: 'T' },
        { name: 'default', template: '{{ messages[0].content }}!' },
      ];
      for (const template of ['{{ messages[0].content }}!', named]) {
        const folder = folderWith('qwen', {
          'chat_template.jinja': null,
          'tokenizer_config.json': (fields) => ({ ...fields, chat_template: template }),
        });
        const tokenizer = await loadTokenizer(folder);
        assert.equal(tokenizer.applyChatTemplate([{ role: 'user', content: 'Hi' }]), 'Hi!');
      }
    });

    test('files without the optional components', async () => {
      const folder = folderWith('characters', {
        'tokenizer.json': ({ model }) => ({ model }),
        'tokenizer_config.json': '{}',
        'special_tokens_map.json': null,
      });
      const tokenizer = await loadTokenizer(folder);
      assert.deepEqual(tokenizer.encode('12'), [4, 5]);
      assert.equal(tokenizer.eosTokenId, undefined);
      assert.equal(tokenizer.padTokenId, undefined);
    });
  });

  describe('save', () => {
    test('writes every file byte for byte', async () => {
      const tokenizer = await loadTokenizer(join(FOLDER, 'llama3'));
      const folder = join(mkdtempSync(join(tmpdir(), 'posttrain-tokenizer-')), 'new');
      await tokenizer.save(folder);
      for (const name of ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja']) {
        assert.deepEqual(
          readFileSync(join(folder, name)),
          readFileSync(join(FOLDER, 'llama3', name)),
        );
      }
    });

    test('rejects a place that cannot be written', async () => {
      const tokenizer = await loadTokenizer(join(FOLDER, 'llama3'));
      const folder = mkdtempSync(join(tmpdir(), 'posttrain-tokenizer-'));
      writeFileSync(join(folder, 'file'), '');
      chmodSync(folder, 0o700);
      await assert.rejects(tokenizer.save(join(folder, 'file')), {
        code: 'E_IO',
        message: /^Tokenizer\.save: expected to write into .*, but /,
      });
    });

    test(
      'refuses at once a folder below /proc, where none can be made',
      { timeout: 20_000 },
      async () => {
        const tokenizer = await loadTokenizer(join(FOLDER, 'llama3'));
        await assert.rejects(tokenizer.save('/proc/posttrain/model'), {
          code: 'E_IO',
          message: /^Tokenizer\.save: expected to write into \/proc\/posttrain\/model, but /,
        });
      },
    );
  });
});

describe('Tokenizer', () => {
  test('a text that starts with BOS, such as a rendered chat, gets no second one', async () => {
    const tokenizer = await loadTokenizer(join(FOLDER, 'llama3'));
    const messages = [{ role: 'user', content: 'Hi' }];
    const ids = tokenizer.encode(tokenizer.applyChatTemplate(messages));
    assert.deepEqual(ids, tokenizer.encodeChat(messages));
    assert.equal(ids.filter((id) => id === tokenizer.bosTokenId).length, 1);
  });

  test('encodeChat refuses a template that writes BOS twice', async () => {
    const folder = folderWith('llama3', { 'chat_template.jinja': '{{ bos_token + bos_token }}' });
    const tokenizer = await loadTokenizer(folder);
    assert.throws(() => tokenizer.encodeChat([]), {
      code: 'E_CHECKPOINT',
      message: `encodeChat: expected at most one BOS token at the start, but the chat template of ${folder} writes <|begin_of_text|> twice.`,
    });
  });

  test('applyChatTemplate without a template names the folder', async () => {
    const tokenizer = await loadTokenizer(join(FOLDER, 'characters'));
    assert.equal(tokenizer.hasChatTemplate, false);
    assert.throws(() => tokenizer.applyChatTemplate([{ role: 'user', content: 'Hi' }]), {
      code: 'E_CHECKPOINT',
      message: `applyChatTemplate: expected a chat template in ${FOLDER}/characters, but the folder has none.`,
      hint: /Use plain text prompts/,
    });
  });

  test('a conversation that the template refuses is an error with its message and the roles', async () => {
    const tokenizer = await loadTokenizer(join(FOLDER, 'sentencepiece'));
    assert.throws(() => tokenizer.applyChatTemplate([{ role: 'assistant', content: 'Hi' }]), {
      code: 'E_DATA',
      message: `applyChatTemplate: expected a conversation that the chat template of ${FOLDER}/sentencepiece accepts, but it answers: Conversation roles must alternate user/assistant/user/assistant/...`,
      hint: 'The roles were: assistant.',
    });
  });

  test('decode skips ids beyond the vocabulary and gives nothing for nothing', async () => {
    for (const name of ['llama3', 'sentencepiece', 'characters']) {
      const tokenizer = await loadTokenizer(join(FOLDER, name));
      const [id = 0] = tokenizer.encode('1', { addSpecialTokens: false }).slice(-1);
      assert.equal(tokenizer.decode([id, 100_000, id]), tokenizer.decode([id, id]));
      assert.notEqual(tokenizer.decode([id]), '');
      assert.equal(tokenizer.decode([]), '');
      assert.equal(tokenizer.decode([100_000]), '');
    }
  });

  test('decode refuses what is not an id', async () => {
    const tokenizer = await loadTokenizer(join(FOLDER, 'llama3'));
    for (const id of [-1, 1.5, Number.NaN]) {
      assert.throws(() => tokenizer.decode([1, id]), {
        code: 'E_RANGE',
        message: `Tokenizer.decode: expected token ids that are non-negative integers, received ${id}.`,
      });
    }
  });

  test('tokenText makes byte-level and SentencePiece spellings readable', async () => {
    const llama = await loadTokenizer(join(FOLDER, 'llama3'));
    const texts = (text: string) =>
      llama.encode(text, { addSpecialTokens: false }).map((id) => llama.tokenText(id));
    assert.deepEqual(texts(' the\n'), [' the', '\n']);
    assert.equal(texts('🙂').join(''), '\\xF0\\x9F\\x99\\x82');
    assert.deepEqual(texts('<|eot_id|>'), ['<|eot_id|>']);

    const sentencePiece = await loadTokenizer(join(FOLDER, 'sentencepiece'));
    const id = (token: string) => sentencePiece.tokenToId(token) ?? -1;
    assert.equal(sentencePiece.tokenText(id('▁the')), ' the');
    assert.equal(sentencePiece.tokenText(id('<0x0A>')), '\n');
    assert.equal(sentencePiece.tokenText(id('<0xF0>')), '\\xF0');
    assert.throws(() => llama.tokenText(99_999), {
      code: 'E_RANGE',
      message: 'Tokenizer.tokenText: expected an id of the vocabulary (below 485), received 99999.',
    });
  });
});
