import { ValueRangeError } from '../errors/index.js';
import { buildTokenizer, specialTokenList } from './madeTokenizer.js';
import type { Tokenizer } from './tokenizer.js';

/** Settings of `createCharacterTokenizer`. */
export interface CharacterTokenizerOptions {
  /** Every character of the vocabulary, each once, in the order of their ids. */
  readonly characters: string;
  /** Ends a completion. `<eos>` unless set. */
  readonly eosToken?: string | undefined;
  /** Fills rows. `<pad>` unless set; may be the EOS token. */
  readonly padToken?: string | undefined;
  /** Starts every encoded text. None unless set. */
  readonly bosToken?: string | undefined;
}

/**
 * Makes a tokenizer with one token per character, for small tasks with a closed alphabet. Ids: padding, EOS and BOS
 * first, then the characters in order. Text with another character is refused, never shortened.
 *
 * @throws ValueRangeError if there is no character, one occurs twice, or a special token is empty or a single
 *   character of the alphabet
 */
export function createCharacterTokenizer(options: CharacterTokenizerOptions): Tokenizer {
  const { characters, eosToken = '<eos>', padToken = '<pad>', bosToken } = options;
  const alphabet = Array.from(characters);
  if (alphabet.length === 0) {
    throw new ValueRangeError(
      'createCharacterTokenizer: expected at least one character, received an empty string.',
    );
  }
  const repeated = alphabet.find((character, index) => alphabet.indexOf(character) !== index);
  if (repeated !== undefined) {
    throw new ValueRangeError(
      `createCharacterTokenizer: expected every character once, but ${JSON.stringify(repeated)} occurs twice.`,
    );
  }
  const specialTokens = { eosToken, padToken, bosToken };
  const special = specialTokenList(specialTokens);
  for (const token of special) {
    if (token === '' || alphabet.includes(token)) {
      throw new ValueRangeError(
        `createCharacterTokenizer: expected special tokens that are not characters of the alphabet, received ${JSON.stringify(token)}.`,
        {
          hint: 'Name it like <eos>, and leave the character out of `characters` if it only ends texts.',
        },
      );
    }
  }
  return buildTokenizer({
    source: 'the character tokenizer',
    vocabulary: new Map([...special, ...alphabet].map((token, id) => [token, id])),
    merges: [],
    specialTokens,
    preTokenizer: null,
    // Without it, Python's decoder joins tokens with spaces.
    decoder: { type: 'Fuse' },
  });
}
