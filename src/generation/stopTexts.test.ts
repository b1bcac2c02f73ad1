import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createBpeTokenizer, createCharacterTokenizer } from '../tokenizers/index.js';
import { stopConditions } from './stopTexts.js';

const bpe = createBpeTokenizer({
  texts: Array.from({ length: 9 }, () => 'hello'),
  vocabSize: 300,
  additionalTokens: ['<|end|>'],
});
const END = bpe.tokenToId('<|end|>') ?? -1;

describe('stopConditions', () => {
  test('a special token is a token to stop at, another text is looked for', () => {
    const only = stopConditions('f', bpe, ['<|end|>']);
    assert.deepEqual(only, { stopTokenIds: [END] });
    const both = stopConditions('f', bpe, ['<|end|>', 'lo']);
    assert.deepEqual(both.stopTokenIds, [END]);
    assert.equal(both.shouldStop?.(bpe.encode('hel')), false);
    assert.equal(both.shouldStop?.(bpe.encode('hello')), true);
  });

  test('a text that one token of the vocabulary spells is no special token', () => {
    const letters = createCharacterTokenizer({ characters: 'ab=' });
    const { stopTokenIds, shouldStop } = stopConditions('f', letters, ['=']);
    assert.deepEqual(stopTokenIds, []);
    assert.equal(shouldStop?.(letters.encode('ab')), false);
    assert.equal(shouldStop?.(letters.encode('ab=')), true);
  });

  test('a text may span tokens, with special tokens between and any length before', () => {
    const text = 'é!zq'; // 2 bytes, then single characters: 5 tokens
    const { shouldStop } = stopConditions('f', bpe, [text]);
    const ids = bpe.encode(text);
    assert.equal(ids.length, 5);
    const before = bpe.encode('hello'.repeat(40));
    assert.equal(shouldStop?.([...before, ...ids]), true);
    assert.equal(shouldStop?.([...before, ...ids.slice(0, -1)]), false);
    assert.equal(shouldStop?.([...before, ...ids.slice(0, 3), END, ...ids.slice(3)]), true);
  });

  test('the longest of several texts is found', () => {
    const long = 'qwrtzpsdfgjkxcvbnm'.repeat(2);
    assert.equal(bpe.encode(long).length, 36);
    const { shouldStop } = stopConditions('f', bpe, ['?', long]);
    assert.equal(shouldStop?.(bpe.encode(long)), true);
  });

  test('no text stops nothing', () => {
    assert.deepEqual(stopConditions('f', bpe, []), { stopTokenIds: [] });
  });

  test('rejects an empty text', () => {
    assert.throws(() => stopConditions('f', bpe, ['a', '']), {
      code: 'E_RANGE',
      message: 'f: expected stop texts with at least one character, received an empty one.',
    });
  });
});
