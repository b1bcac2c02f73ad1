/** How a text is cut into words, none of which a token crosses. */
import { CheckpointError } from '../errors/index.js';
import { WORD_CHARACTERS } from './addedTokens.js';
import { Component } from './component.js';
import { spellBytes } from './normalizers.js';
import { BEHAVIORS, cut, patternOf, translated, type Behavior } from './pattern.js';

/** A stretch of the text, as far as it is cut yet. */
export interface Piece {
  readonly text: string;
  /** Whether it stands at the very start of the text that is encoded. */
  readonly first: boolean;
}

/** Cuts pieces further, or changes how they are spelled. */
export type PreTokenizer = (pieces: readonly Piece[]) => readonly Piece[];

/**
 * The pre-tokenizer of a tokenizer.json.
 *
 * @throws CheckpointError if its type is unknown or a field is wrong
 */
export function createPreTokenizer(value: unknown): PreTokenizer {
  if (value === null || value === undefined) return (pieces) => pieces;
  const component = new Component('pre_tokenizer', value);
  switch (component.type) {
    case 'Sequence': {
      const parts = component.list('pretokenizers').map(createPreTokenizer);
      return (pieces) => parts.reduce((result, preTokenize) => preTokenize(result), pieces);
    }
    case 'ByteLevel':
      return byteLevel(component);
    case 'Metaspace':
      return metaspace(component);
    case 'Split':
      return cutter(
        patternOf(component),
        component.oneOf('behavior', BEHAVIORS),
        component.boolean('invert', false),
      );
    case 'Whitespace':
      return cutter(RUST_WORDS, 'Removed', true);
    case 'WhitespaceSplit':
      return cutter(SPACE, 'Removed');
    case 'BertPreTokenizer':
      return chain(cutter(SPACE, 'Removed'), cutter(PUNCTUATION, 'Isolated'));
    case 'Punctuation':
      return cutter(PUNCTUATION, component.oneOf('behavior', BEHAVIORS, 'Isolated'));
    case 'Digits':
      return cutter(/\p{N}/gu, component.boolean('individual_digits') ? 'Isolated' : 'Contiguous');
    case 'CharDelimiterSplit':
      return cutter(regexp(String.raw`\x{${codePoint(component, 'delimiter')}}`), 'Removed');
    case 'FixedLength':
      return fixedLength(component);
    default:
      throw component.unknown();
  }
}

/** `\w+|[^\w\s]+` of Rust's regex crate. */
const RUST_WORDS = new RegExp(`[${WORD_CHARACTERS}]+|[^${WORD_CHARACTERS}\\p{White_Space}]+`, 'gu');
const SPACE = /\p{White_Space}/gu;
/** Of Unicode, and all of ASCII that is neither letter, digit nor control character. */
const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/gu;

/** Source: Radford et al. 2019 (GPT-2), encoder.py. */
const GPT2_WORDS = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

function chain(first: PreTokenizer, second: PreTokenizer): PreTokenizer {
  return (pieces) => second(first(pieces));
}

function cutter(pattern: RegExp, behavior: Behavior, invert = false): PreTokenizer {
  return (pieces) => {
    const result: Piece[] = [];
    for (const { text, first } of pieces) {
      for (const { start, end } of cut(text, pattern, behavior, invert)) {
        result.push({ text: text.slice(start, end), first: first && start === 0 });
      }
    }
    return result;
  };
}

/** Changes the spelling of every piece. */
function each(change: (piece: Piece) => string): PreTokenizer {
  return (pieces) => pieces.map((piece) => ({ text: change(piece), first: piece.first }));
}

function byteLevel(component: Component): PreTokenizer {
  const spaced = component.boolean('add_prefix_space', false);
  const cutWords = component.boolean('use_regex', true)
    ? cutter(regexp(GPT2_WORDS), 'Isolated')
    : undefined;
  return (pieces) => {
    let result = spaced ? each(({ text }) => withPrefix(' ', text))(pieces) : pieces;
    if (cutWords !== undefined) result = cutWords(result);
    return each(({ text }) => spellBytes(text))(result);
  };
}

function withPrefix(prefix: string, text: string): string {
  return text === '' || text.startsWith(prefix) ? text : prefix + text;
}

/** When a space is put before a text that has none. */
const SCHEMES = ['always', 'first', 'never'] as const;

function metaspace(component: Component): PreTokenizer {
  const replacement = component.string('replacement', '▁');
  const scheme = prependScheme(component);
  const spelled = each(({ text, first }) => {
    const result = text.replaceAll(' ', replacement);
    const prepends = scheme === 'always' || (scheme === 'first' && first);
    return prepends ? withPrefix(replacement, result) : result;
  });
  if (!component.boolean('split', true)) return spelled;
  return chain(
    spelled,
    cutter(regexp(String.raw`\x{${codePoint(component, 'replacement')}}`), 'MergedWithNext'),
  );
}

/** @throws CheckpointError if the file's old and new settings contradict each other, as the Rust library does */
export function prependScheme(component: Component): (typeof SCHEMES)[number] {
  const scheme = component.oneOf('prepend_scheme', SCHEMES, 'always');
  if (component.fields['add_prefix_space'] === false && scheme !== 'never') {
    throw new CheckpointError(
      `"add_prefix_space" of its ${component.part} Metaspace is false, which "prepend_scheme" ${JSON.stringify(scheme)} contradicts`,
    );
  }
  return scheme;
}

function fixedLength(component: Component): PreTokenizer {
  const length = component.count('length', 5);
  if (length === 0) throw component.wrong('length', 'at least 1');
  return cutter(new RegExp(String.raw`[^]{1,${length}}`, 'gu'), 'Isolated');
}

/** The code point of a field that is one character, in hexadecimal. */
function codePoint(component: Component, field: string): string {
  const [character, ...others] = component.string(field, field === 'replacement' ? '▁' : undefined);
  const code = character?.codePointAt(0);
  if (code === undefined || others.length > 0) throw component.wrong(field, 'one character');
  return code.toString(16);
}

/** A regular expression written for Oniguruma here. */
function regexp(source: string): RegExp {
  const pattern = translated(source);
  if (pattern !== undefined) return pattern;
  throw new CheckpointError(`internal: ${source} has no translation`);
}
