import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createBpeTokenizer, createCharacterTokenizer } from './index.js';

describe('createCharacterTokenizer', () => {
  test('gives padding and EOS the first ids, then the characters in order', () => {
    const tokenizer = createCharacterTokenizer({ characters: '01+=' });
    assert.deepEqual(tokenizer.encode('1+0=<eos><pad>'), [3, 4, 2, 5, 1, 0]);
    assert.equal(tokenizer.padTokenId, 0);
    assert.equal(tokenizer.eosTokenId, 1);
    assert.equal(tokenizer.bosTokenId, undefined);
    assert.equal(tokenizer.vocabSize, 6);
  });

  test('padding may be the EOS token', () => {
    const tokenizer = createCharacterTokenizer({ characters: 'ab', padToken: '<eos>' });
    assert.equal(tokenizer.padTokenId, tokenizer.eosTokenId);
    assert.equal(tokenizer.vocabSize, 3);
  });

  test('decodes without spaces between characters, special tokens on request', () => {
    const tokenizer = createCharacterTokenizer({ characters: '01+= ' });
    const ids = tokenizer.encode('1+0 =<eos>');
    assert.equal(tokenizer.decode(ids), '1+0 =<eos>');
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), '1+0 =');
  });

  test('refuses text with a character outside the alphabet', () => {
    const tokenizer = createCharacterTokenizer({ characters: '01' });
    assert.throws(() => tokenizer.encode('01x'), {
      code: 'E_DATA',
      message:
        'Tokenizer.encode: expected text made of the vocabulary\'s characters, but the character tokenizer has no token for "x" in "01x".',
    });
  });

  test('rejects alphabets and special tokens that would be ambiguous', () => {
    assert.throws(() => createCharacterTokenizer({ characters: '' }), {
      code: 'E_RANGE',
      message:
        'createCharacterTokenizer: expected at least one character, received an empty string.',
    });
    assert.throws(() => createCharacterTokenizer({ characters: 'aba' }), {
      code: 'E_RANGE',
      message: 'createCharacterTokenizer: expected every character once, but "a" occurs twice.',
    });
    for (const eosToken of ['.', '']) {
      assert.throws(() => createCharacterTokenizer({ characters: '01.', eosToken }), {
        code: 'E_RANGE',
        message: `createCharacterTokenizer: expected special tokens that are not characters of the alphabet, received "${eosToken}".`,
      });
    }
  });
});

describe('createBpeTokenizer', () => {
  test('any text comes back the same, known or not', () => {
    const tokenizer = createBpeTokenizer({ texts: ['one two three two one'], vocabSize: 270 });
    for (const text of ['', 'one', ' two  three\n', '日本語 🙂\u0000', '12345 + 67']) {
      assert.equal(tokenizer.decode(tokenizer.encode(text)), text);
    }
  });

  test('by hand: the most frequent pair is merged first, ties go to the smaller ids', () => {
    // "abab" holds ab ×2 and ba ×1 per word; both words together: ab 4, ba 2. Then (ab, ab) 2.
    const tokenizer = createBpeTokenizer({ texts: ['abab', 'abab'], vocabSize: 400 });
    assert.equal(tokenizer.tokenToId('ab'), 258); // after <pad>, <eos> and 256 bytes
    assert.equal(tokenizer.tokenToId('abab'), 259);
    assert.equal(tokenizer.vocabSize, 260); // nothing left to merge
  });

  test('keeps every digit on its own', () => {
    const tokenizer = createBpeTokenizer({ texts: ['11 11 11 11 11'], vocabSize: 300 });
    assert.equal(tokenizer.encode('1111').length, 4);
  });

  test('pairs seen less than minCount are not merged', () => {
    const texts = ['xy xy xy', 'zw'];
    const often = createBpeTokenizer({ texts, vocabSize: 300, minCount: 2 });
    const always = createBpeTokenizer({ texts, vocabSize: 300, minCount: 1 });
    assert.equal(often.tokenToId('zw'), undefined);
    assert.notEqual(always.tokenToId('zw'), undefined);
  });

  test('saves a chat template and its tokens', () => {
    const tokenizer = createBpeTokenizer({
      texts: ['hello'],
      vocabSize: 300,
      bosToken: '<bos>',
      additionalTokens: ['<|user|>'],
      chatTemplate: '{{ bos_token }}{% for m in messages %}<|user|>{{ m.content }}{% endfor %}',
    });
    const ids = tokenizer.encodeChat([{ role: 'user', content: 'h' }]);
    assert.deepEqual(ids.slice(0, 2), [tokenizer.bosTokenId, tokenizer.tokenToId('<|user|>')]);
    assert.deepEqual(tokenizer.encode('h')[0], tokenizer.bosTokenId);
  });

  test('rejects a vocabulary without room for the bytes, and no text', () => {
    assert.throws(() => createBpeTokenizer({ texts: ['a'], vocabSize: 257 }), {
      code: 'E_RANGE',
      message:
        'createBpeTokenizer: expected vocabSize to be an integer of at least 258 (256 bytes and 2 special tokens), received 257.',
    });
    assert.throws(() => createBpeTokenizer({ texts: [''], vocabSize: 300 }), {
      code: 'E_DATA',
      message: 'createBpeTokenizer: expected text to learn from, received none.',
    });
  });
});
