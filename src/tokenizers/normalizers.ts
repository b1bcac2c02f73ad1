/** What is done to a text before it is cut: Unicode forms, lower case, accents, replaced characters. */
import { BYTE_TO_CHARACTER } from './byteLevel.js';
import { Component } from './component.js';
import { patternOf } from './pattern.js';
import { precompiledNormalizer } from './precompiled.js';

/** One text for another. */
export type Normalizer = (text: string) => string;

/**
 * The normalizer of a tokenizer.json.
 *
 * @throws CheckpointError if its type is unknown or a field is wrong
 */
export function createNormalizer(value: unknown): Normalizer {
  if (value === null || value === undefined) return (text) => text;
  const component = new Component('normalizer', value);
  switch (component.type) {
    case 'Sequence': {
      const parts = component.list('normalizers').map(createNormalizer);
      return (text) => parts.reduce((result, normalize) => normalize(result), text);
    }
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD': {
      const form = component.type;
      return (text) => text.normalize(form);
    }
    case 'Lowercase':
      return lowercase;
    case 'StripAccents':
      return (text) => text.replaceAll(/\p{M}/gu, '');
    case 'Strip':
      return strip(component);
    case 'Prepend': {
      const prefix = component.string('prepend');
      return (text) => (text === '' ? '' : prefix + text);
    }
    case 'Replace': {
      const pattern = patternOf(component);
      const content = component.string('content');
      return (text) => text.replaceAll(pattern, () => content);
    }
    case 'ByteLevel':
      return spellBytes;
    case 'BertNormalizer':
      return bertNormalizer(component);
    case 'Nmt':
      return nmt;
    case 'Precompiled':
      return precompiledNormalizer(component);
    default:
      throw component.unknown();
  }
}

/** Each byte of the text's UTF-8 as the character that spells it in byte-level vocabularies. */
export function spellBytes(text: string): string {
  if (SPELLED_AS_ITSELF.test(text)) return text;
  let spelled = '';
  for (const byte of encoder.encode(text)) spelled += BYTE_TO_CHARACTER[byte] ?? '';
  return spelled;
}
const SPELLED_AS_ITSELF = /^[!-~]*$/;
const encoder = new TextEncoder();

/** Character by character, as Rust does: JavaScript writes a sigma at the end of a word as ς. */
function lowercase(text: string): string {
  return text
    .split('Σ')
    .map((part) => part.toLowerCase())
    .join('σ');
}

const SPACE = /^\p{White_Space}$/u;

function strip(component: Component): Normalizer {
  const left = component.boolean('strip_left');
  const right = component.boolean('strip_right');
  return (text) => {
    let start = 0;
    let end = text.length;
    // All white space is one UTF-16 unit. A pattern such as \s+$ would take quadratic time.
    if (left) while (start < end && SPACE.test(text.charAt(start))) start += 1;
    if (right) while (start < end && SPACE.test(text.charAt(end - 1))) end -= 1;
    return text.slice(start, end);
  };
}

/** Source: tokenizers 0.23, BertNormalizer: clean, space Chinese characters out, strip accents, lower case; in this order. */
function bertNormalizer(component: Component): Normalizer {
  const clean = component.boolean('clean_text');
  const spaceChinese = component.boolean('handle_chinese_chars');
  const lower = component.boolean('lowercase');
  const stripAccents = component.boolean('strip_accents', lower);
  return (text) => {
    let result = text;
    if (clean) result = result.replaceAll(CONTROL, '').replaceAll(/\p{White_Space}/gu, ' ');
    if (spaceChinese) result = result.replaceAll(CHINESE, ' $& ');
    if (stripAccents) result = result.normalize('NFD').replaceAll(/\p{Mn}/gu, '');
    return lower ? lowercase(result) : result;
  };
}

/** U+FFFD and all of the categories Cc, Cf and Co but for tab, line feed and carriage return. */
const CONTROL = /(?![\t\n\r])[\uFFFD\p{Cc}\p{Cf}\p{Co}]/gu;

/** The blocks that BERT takes for Chinese; Hangul, Hiragana and Katakana are not among them. */
const CHINESE =
  /[\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{2F800}-\u{2FA1F}]/gu;

/** Source: tokenizers 0.23, Nmt, after SentencePiece's nmt rules. */
function nmt(text: string): string {
  return text
    .replaceAll(/[\u0001-\u0008\u000B\u000E-\u001F\u007F\u008F\u009F]/g, '')
    .replaceAll(/[\t\n\f\r\u1680\u200B-\u200F\u2028\u2029\u2581\uFEFF\uFFFD]/g, ' ');
}
