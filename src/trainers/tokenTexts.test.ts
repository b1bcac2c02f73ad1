import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createCharacterTokenizer } from '../tokenizers/index.js';
import { tokenTexts } from './tokenTexts.js';

describe('tokenTexts', () => {
  const tokenizer = createCharacterTokenizer({ characters: 'abc' });

  test('gives the text of each token, and a number to those that the tokenizer lacks', () => {
    const { vocabSize } = tokenizer;
    const ids = [...tokenizer.encode('cab'), vocabSize, vocabSize + 60];
    assert.deepEqual(tokenTexts(tokenizer, ids), [
      ...['c', 'a', 'b'],
      `<${vocabSize}>`,
      `<${vocabSize + 60}>`,
    ]);
  });

  test('lets other errors through', () => {
    const broken = {
      tokenText: (): string => {
        throw new TypeError('broken');
      },
    };
    assert.throws(() => tokenTexts(broken, [1]), TypeError);
  });
});
