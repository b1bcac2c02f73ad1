import { DataError, ValueRangeError } from '../errors/index.js';
import { learnMerges } from './bpeTraining.js';
import { BYTE_TO_CHARACTER } from './byteLevel.js';
import { createPreTokenizer } from './preTokenizers.js';
import { buildTokenizer, specialTokenList } from './madeTokenizer.js';
import type { Tokenizer } from './tokenizer.js';

/** Settings of `createBpeTokenizer`. */
export interface BpeTokenizerOptions {
  /** Text to learn from, in pieces of any size; words do not cross pieces. */
  readonly texts: Iterable<string>;
  /** Most tokens, special ones and the 256 bytes included. Fewer result where the text has fewer pairs to merge. */
  readonly vocabSize: number;
  /** Ends a completion. `<eos>` unless set. */
  readonly eosToken?: string | undefined;
  /** Fills rows. `<pad>` unless set; may be the EOS token. */
  readonly padToken?: string | undefined;
  /** Starts every encoded text. None unless set. */
  readonly bosToken?: string | undefined;
  /** Further special tokens, for example those that a chat template writes. */
  readonly additionalTokens?: readonly string[] | undefined;
  /** A Jinja chat template to save with the tokenizer. */
  readonly chatTemplate?: string | undefined;
  /** Pairs seen less often than this are not merged. 2 unless set, as in the `tokenizers` library's byte-level class. */
  readonly minCount?: number | undefined;
}

// SmolLM2's: every digit on its own, which helps arithmetic, then GPT-2's words.
const DIGITS = { type: 'Digits', individual_digits: true } as const;
const BYTE_LEVEL = {
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: true,
} as const;
const PRE_TOKENIZER = { type: 'Sequence', pretokenizers: [DIGITS, BYTE_LEVEL] } as const;

/**
 * Learns a byte-level BPE tokenizer from text: any text can be encoded and comes back the same. Ids: padding, EOS,
 * BOS and further special tokens first, then the 256 bytes, then merges. The same text gives the same tokenizer.
 *
 * @throws ValueRangeError if `vocabSize` has no room for the special tokens and the 256 bytes
 * @throws DataError if the texts are empty
 */
export function createBpeTokenizer(options: BpeTokenizerOptions): Tokenizer {
  const { eosToken = '<eos>', padToken = '<pad>', bosToken, vocabSize, minCount = 2 } = options;
  const specialTokens = { eosToken, padToken, bosToken };
  const special = specialTokenList(specialTokens, options.additionalTokens);
  const baseSize = special.length + 256;
  if (!Number.isInteger(vocabSize) || vocabSize < baseSize) {
    throw new ValueRangeError(
      `createBpeTokenizer: expected vocabSize to be an integer of at least ${baseSize} (256 bytes and ${special.length} special tokens), received ${vocabSize}.`,
    );
  }

  // Sorted by spelling, as the tokenizers library orders its alphabet: ties between merges depend on it.
  const tokens = [...special, ...[...BYTE_TO_CHARACTER].sort()];
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  const words = [...countWords(options.texts)].map(([word, count]) => ({
    symbols: Array.from(word, (character) => idOf.get(character) ?? 0),
    count,
  }));
  if (words.length === 0) {
    throw new DataError('createBpeTokenizer: expected text to learn from, received none.');
  }
  const merges = learnMerges({
    words,
    firstSymbol: tokens.length,
    maxMerges: vocabSize - baseSize,
    minCount,
  }).map(({ left, right }) => {
    const pair = [tokens[left] ?? '', tokens[right] ?? ''] as const;
    tokens.push(pair.join(''));
    return pair;
  });

  return buildTokenizer({
    source: 'the trained tokenizer',
    vocabulary: new Map(tokens.map((token, id) => [token, id])),
    merges,
    specialTokens,
    additionalTokens: options.additionalTokens,
    preTokenizer: PRE_TOKENIZER,
    decoder: BYTE_LEVEL,
    chatTemplate: options.chatTemplate,
  });
}

/** Words as the finished tokenizer will cut them, in byte-level spelling, with their counts. */
function countWords(texts: Iterable<string>): Map<string, number> {
  const preTokenize = createPreTokenizer(PRE_TOKENIZER);
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const { text: word } of preTokenize([{ text, first: true }])) {
      counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return counts;
}
