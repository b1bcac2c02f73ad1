import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import {
  createBpeTokenizer,
  createCharacterTokenizer,
  loadTokenizer,
  type ChatMessage,
} from './index.js';

interface TextCase {
  text: string;
  ids: number[];
  idsWithoutSpecial: number[];
  decoded: string;
  decodedWithoutSpecial: string;
  decodedPrefixes: string[];
}
interface ChatCase {
  messages: ChatMessage[];
  tools?: unknown[];
  addGenerationPrompt: boolean;
  variables?: Record<string, unknown>;
  text?: string;
  ids?: number[];
  error?: string;
}
interface GoldenCase {
  vocabSize: number;
  bosTokenId: number | null;
  eosTokenId: number | null;
  padTokenId: number | null;
  texts: TextCase[];
  chats: ChatCase[];
}
const FOLDER = 'test/golden/tokenizers';
const golden = JSON.parse(readFileSync('test/golden/tokenizers.json', 'utf8')) as {
  cases: Record<string, GoldenCase>;
  trainedByPython: { vocab: Record<string, number>; merges: [string, string][] };
};
const corpus = readFileSync(join(FOLDER, 'corpus.txt'), 'utf8');

describe('loadTokenizer', () => {
  for (const [name, expected] of Object.entries(golden.cases)) {
    describe(`matches transformers on ${name}`, async () => {
      const tokenizer = await loadTokenizer(join(FOLDER, name));

      test('vocabulary size and special tokens', () => {
        assert.equal(tokenizer.vocabSize, expected.vocabSize);
        assert.equal(tokenizer.bosTokenId, expected.bosTokenId ?? undefined);
        assert.equal(tokenizer.eosTokenId, expected.eosTokenId ?? undefined);
        // Departure: where the folder has no padding token, EOS pads.
        assert.equal(tokenizer.padTokenId, expected.padTokenId ?? expected.eosTokenId ?? undefined);
      });

      for (const c of expected.texts) {
        test(`ids and decoded text of ${JSON.stringify(c.text)}`, () => {
          assert.deepEqual(
            tokenizer.encode(c.text, { addSpecialTokens: false }),
            c.idsWithoutSpecial,
          );
          // Departure: a BOS that the text already starts with is not doubled.
          const bos = tokenizer.bosTokenId;
          const doubled = bos !== undefined && c.ids[0] === bos && c.ids[1] === bos;
          assert.deepEqual(tokenizer.encode(c.text), doubled ? c.ids.slice(1) : c.ids);
          assert.equal(tokenizer.decode(c.ids), c.decoded);
          assert.equal(
            tokenizer.decode(c.ids, { skipSpecialTokens: true }),
            c.decodedWithoutSpecial,
          );
          c.decodedPrefixes.forEach((decoded, index) =>
            assert.equal(tokenizer.decode(c.idsWithoutSpecial.slice(0, index + 1)), decoded),
          );
        });
      }

      for (const [index, c] of expected.chats.entries()) {
        test(`chat ${index}`, () => {
          const { messages, text, ids, error, ...options } = c;
          if (error !== undefined) {
            assert.throws(() => tokenizer.applyChatTemplate(messages, options), {
              code: 'E_DATA',
              message: new RegExp(error.replace(/[^a-zA-Z ]/g, '.')),
            });
            return;
          }
          assert.equal(tokenizer.applyChatTemplate(messages, options), text);
          assert.deepEqual(tokenizer.encodeChat(messages, options), ids);
        });
      }
    });
  }
});

/** Every file of a folder, by name. */
function filesOf(folder: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')]),
  );
}

describe('tokenizers made here', () => {
  test('the character tokenizer writes the files that transformers opened for the golden values', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'posttrain-tokenizer-'));
    await createCharacterTokenizer({
      characters: '0123456789+= é日🙂',
      bosToken: '<bos>',
    }).save(folder);
    assert.deepEqual(filesOf(folder), filesOf(join(FOLDER, 'characters')));
  });

  test('the trained tokenizer writes the files that transformers opened for the golden values', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'posttrain-tokenizer-'));
    await createBpeTokenizer({
      texts: [corpus],
      vocabSize: 480,
      additionalTokens: ['<|im_start|>', '<|im_end|>'],
    }).save(folder);
    assert.deepEqual(filesOf(folder), filesOf(join(FOLDER, 'trained')));
  });

  test('training learns the same merges and ids as the tokenizers library', () => {
    const { model } = JSON.parse(
      readFileSync(join(FOLDER, 'trained', 'tokenizer.json'), 'utf8'),
    ) as { model: { vocab: Record<string, number>; merges: [string, string][] } };
    assert.deepEqual(model.merges, golden.trainedByPython.merges);
    assert.deepEqual(model.vocab, golden.trainedByPython.vocab);
  });
});
