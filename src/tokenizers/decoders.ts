/** Tokens back to text. */
import { joinByteTokens } from './byteFallback.js';
import { bytesOfToken } from './byteLevel.js';
import { Component } from './component.js';
import { patternOf } from './pattern.js';
import { prependScheme } from './preTokenizers.js';

/** Tokens for tokens; at the end of the chain they are texts, which are joined. */
export type Decoder = (tokens: readonly string[]) => readonly string[];

/**
 * The decoder of a tokenizer.json. Without one, tokens are joined by spaces.
 *
 * @throws CheckpointError if its type is unknown or a field is wrong
 */
export function createDecoder(value: unknown): Decoder {
  if (value === null || value === undefined) return (tokens) => [tokens.join(' ')];
  const component = new Component('decoder', value);
  switch (component.type) {
    case 'Sequence': {
      const parts = component.list('decoders').map(createDecoder);
      return (tokens) => parts.reduce((result, decode) => decode(result), tokens);
    }
    case 'ByteLevel':
      return joinSpelledBytes;
    case 'ByteFallback':
      return joinByteTokens;
    case 'Fuse':
      return (tokens) => [tokens.join('')];
    case 'Metaspace':
      return metaspace(component);
    case 'Replace': {
      const pattern = patternOf(component);
      const content = component.string('content');
      return (tokens) => tokens.map((token) => token.replaceAll(pattern, () => content));
    }
    case 'Strip':
      return strip(component);
    case 'WordPiece':
      return wordPiece(component);
    case 'BPEDecoder': {
      const suffix = component.string('suffix', '</w>');
      return (tokens) =>
        tokens.map((token, index) =>
          token.replaceAll(suffix, index === tokens.length - 1 ? '' : ' '),
        );
    }
    default:
      throw component.unknown();
  }
}

const lossy = new TextDecoder('utf-8', { ignoreBOM: true });

/** A token with a character outside the byte-level table (an added token, say) stands for its own UTF-8. */
function joinSpelledBytes(tokens: readonly string[]): string[] {
  return [lossy.decode(Buffer.concat(tokens.map((t) => bytesOfToken(t) ?? Buffer.from(t))))];
}

/** The first token's spaces were put there by the pre-tokenizer. */
function metaspace(component: Component): Decoder {
  const replacement = component.string('replacement', '▁');
  const dropsFirst = prependScheme(component) !== 'never';
  return (tokens) =>
    tokens.map((token, index) =>
      token.replaceAll(replacement, index === 0 && dropsFirst ? '' : ' '),
    );
}

function strip(component: Component): Decoder {
  const content = component.string('content');
  const [start, stop] = [component.count('start'), component.count('stop')];
  return (tokens) =>
    tokens.map((token) => {
      const characters = Array.from(token);
      let from = 0;
      while (from < start && characters[from] === content) from += 1;
      let to = characters.length;
      while (characters.length - to < stop && to > from && characters[to - 1] === content) to -= 1;
      return characters.slice(from, to).join('');
    });
}

function wordPiece(component: Component): Decoder {
  const prefix = component.string('prefix', '##');
  const cleans = component.boolean('cleanup', true);
  return (tokens) =>
    tokens.map((token, index) => {
      let text = token;
      if (index > 0) text = token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
      return cleans ? cleanUp(text, WORD_PIECE_SPACES) : text;
    });
}

/** Source: tokenizers 0.23, `decoders::wordpiece::cleanup`. */
const WORD_PIECE_SPACES: readonly (readonly [string, string])[] = [
  [' .', '.'],
  [' ?', '?'],
  [' !', '!'],
  [' ,', ','],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [' do not', " don't"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];
/** Source: transformers 5.18, `clean_up_tokenization`. */
const TRANSFORMERS_SPACES = WORD_PIECE_SPACES.filter(([from]) => from !== ' do not');

function cleanUp(text: string, spaces: readonly (readonly [string, string])[]): string {
  return spaces.reduce((result, [from, to]) => result.replaceAll(from, to), text);
}

/** Takes out the spaces before punctuation, as transformers does when `clean_up_tokenization_spaces` is set. */
export function cleanUpSpaces(text: string): string {
  return cleanUp(text, TRANSFORMERS_SPACES);
}
