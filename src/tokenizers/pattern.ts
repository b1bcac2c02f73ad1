/** Patterns of a tokenizer.json as regular expressions of JavaScript, and cutting texts by what they match. */
import * as library from '@huggingface/tokenizers';
import type { Component } from './component.js';
import { isJsonObject } from './files.js';

/**
 * The pattern `{ "String": … }` or `{ "Regex": … }` of a component. Regular expressions are written for Oniguruma; the
 * JavaScript library translates them (`\s`, `\w`, `(?i:…)`, POSIX brackets, class intersections mean other things there).
 *
 * @throws CheckpointError if the pattern has neither form or cannot be translated
 */
export function patternOf(component: Component): RegExp {
  const pattern = component.fields['pattern'];
  const literal = isJsonObject(pattern) ? pattern['String'] : undefined;
  if (typeof literal === 'string') return new RegExp(escaped(literal), 'gu');
  const source = isJsonObject(pattern) ? pattern['Regex'] : undefined;
  if (typeof source !== 'string') {
    throw component.wrong('pattern', '{ "String": … } or { "Regex": … }');
  }
  return translated(source) ?? refuse(component);
}

/** A regular expression of Oniguruma in JavaScript's form; undefined if that cannot be done. */
export function translated(source: string): RegExp | undefined {
  try {
    const holder = new SplitPreTokenizer({
      type: 'Split',
      pattern: { Regex: source },
      behavior: 'isolated',
      invert: false,
    });
    const { pattern } = holder;
    return source.includes('(?i:') ? foldedBeyondAscii(pattern) : pattern;
  } catch {
    return undefined;
  }
}

function refuse(component: Component): never {
  throw component.wrong('pattern', 'a regular expression that JavaScript has too');
}

function escaped(text: string): string {
  return text.replaceAll(/[$()*+.?[\\\]^{|}]/g, '\\$&');
}

/**
 * The library's fault that is corrected here: inside `(?i:…)` it folds ASCII letters only, but s is also the long ſ, and k
 * the sign of the kelvin. (Llama 3 and GPT-4o cut `'s` off so.)
 */
function foldedBeyondAscii(pattern: RegExp): RegExp {
  const source = pattern.source.replaceAll('[sS]', '[sSſ]').replaceAll('[kK]', '[kK\u212A]');
  return new RegExp(source, pattern.flags);
}

/**
 * The one use of the library. It exports no function for the translation; this class holds what that makes. Its published
 * types do not resolve under Node's ESM rules (imports without extensions), so the class is typed here.
 */
const { SplitPreTokenizer } = library as unknown as {
  readonly SplitPreTokenizer: new (config: object) => { readonly pattern: RegExp };
};

/** What becomes of the matches when a text is cut; the names are those of tokenizer.json. */
export const BEHAVIORS = [
  'Removed',
  'Isolated',
  'MergedWithPrevious',
  'MergedWithNext',
  'Contiguous',
] as const;
/** What becomes of the matches of a pattern that a text is cut by, under the names of tokenizer.json. */
export type Behavior = (typeof BEHAVIORS)[number];

/** A stretch of a text. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Cuts a text by a pattern. Empty stretches are left out. `invert` swaps what matches and what lies between. */
export function cut(text: string, pattern: RegExp, behavior: Behavior, invert = false): Span[] {
  const spans: Span[] = [];
  let previousMatched = false;
  // MergedWithNext: a match that waits for the stretch after it.
  let waiting = -1;
  const add = (start: number, end: number, matched: boolean): void => {
    const last = spans.at(-1);
    const extend = (): void => {
      if (last === undefined) spans.push({ start, end });
      else spans[spans.length - 1] = { start: last.start, end };
    };
    if (behavior === 'Isolated') spans.push({ start, end });
    else if (behavior === 'Removed') {
      if (!matched) spans.push({ start, end });
    } else if (behavior === 'Contiguous') {
      if (matched === previousMatched) extend();
      else spans.push({ start, end });
    } else if (behavior === 'MergedWithPrevious') {
      if (matched && !previousMatched) extend();
      else spans.push({ start, end });
    } else {
      // Of several matches in a row, the last one goes with what follows.
      if (matched && waiting !== -1) spans.push({ start: waiting, end: start });
      if (matched) waiting = start;
      else {
        spans.push({ start: waiting === -1 ? start : waiting, end });
        waiting = -1;
      }
    }
    previousMatched = matched;
  };
  let previous = 0;
  for (const match of text.matchAll(pattern)) {
    if (previous < match.index) add(previous, match.index, invert);
    const end = match.index + match[0].length;
    add(match.index, end, !invert);
    previous = end;
  }
  if (previous < text.length) add(previous, text.length, invert);
  if (waiting !== -1) spans.push({ start: waiting, end: text.length });
  return spans.filter(({ start, end }) => start < end);
}
