/** Prompts and completions as lines of a terminal. Knows widths; writes nothing. */
import stringWidth from 'string-width';
import { counted } from '../errors/index.js';
import type { Comparison, LabelCompletion } from './comparison.js';

/** Narrower columns are hard to read: below it completions stand below each other. */
const LEAST_COLUMN_WIDTH = 36;
const GAP = 3;
const TAB = '    ';

const graphemes = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

/**
 * A model's text as a terminal may show it. Control characters, which could move the cursor or change colours, are
 * shown as signs (`␛`), and those that change the direction of writing, or have no form, as `\u{…}`.
 */
export function visibleText(text: string): string {
  return text
    .replaceAll('\r\n', '\n')
    .replaceAll('\t', TAB)
    .replace(/[\u0000-\u0009\u000b-\u001f]/g, (control) =>
      String.fromCodePoint(0x2400 + (control.codePointAt(0) ?? 0)),
    )
    .replaceAll('\u007f', '\u2421')
    .replace(
      /[\u0080-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\p{Surrogate}]/gu,
      (sign) => `\\u{${(sign.codePointAt(0) ?? 0).toString(16)}}`,
    );
}

/**
 * Lines of at most `width` columns. Breaks at blanks where there are some, and within what is longer than a line between
 * two characters as people see them, so that no emoji or accented letter is cut. Indentation is kept.
 */
export function wrapText(text: string, width: number): string[] {
  return text.split('\n').flatMap((line) => wrapLine(line, width));
}

function wrapLine(line: string, width: number): string[] {
  const lines: string[] = [];
  let current = '';
  let currentWidth = 0;
  const end = (): void => {
    lines.push(current.trimEnd());
    current = '';
    currentWidth = 0;
  };
  for (const [part] of line.matchAll(/\s+|\S+/g)) {
    const partWidth = stringWidth(part);
    const isBlank = part.trim() === '';
    if (currentWidth + partWidth <= width) {
      current += part;
      currentWidth += partWidth;
      continue;
    }
    if (isBlank) {
      end(); // the blanks stand for the break
      continue;
    }
    if (partWidth <= width) end();
    for (const { segment } of graphemes.segment(part)) {
      const segmentWidth = stringWidth(segment);
      if (currentWidth > 0 && currentWidth + segmentWidth > width) end();
      current += segment;
      currentWidth += segmentWidth;
    }
  }
  if (current !== '' || lines.length === 0) end();
  return lines;
}

/** What stands above the completions. */
export interface Heading {
  /** `3 of 120`. */
  readonly place: string;
  /** `prompts.jsonl:3`. */
  readonly source: string;
}

/** Everything a person sees of one prompt, at most `width` columns wide. */
export function comparisonLines(
  prompt: unknown,
  comparison: Comparison,
  heading: Heading,
  width: number,
): string[] {
  return [
    '',
    ...ruled(`${heading.place} · ${heading.source}`, width),
    ...wrapText(promptText(prompt), width),
    '',
    ...gridLines(shownCompletions(comparison), width),
  ];
}

/** A prompt for people: messages with who says them. */
function promptText(prompt: unknown): string {
  if (!Array.isArray(prompt)) return visibleText(String(prompt));
  return prompt.map((message: unknown) => visibleText(messageText(message))).join('\n');
}

function messageText(message: unknown): string {
  if (typeof message !== 'object' || message === null) return JSON.stringify(message);
  const { role, content, ...rest } = message as Readonly<Record<string, unknown>>;
  const said = typeof content === 'string' ? content : JSON.stringify(content ?? rest);
  return `${String(role)}: ${said}`;
}

function shownCompletions({ completions, order }: Comparison): LabelCompletion[] {
  return order.flatMap((index) => completions[index] ?? []);
}

/** Side by side as far as columns fit, row below row. */
function gridLines(completions: readonly LabelCompletion[], width: number): string[] {
  const fitting = Math.max(1, Math.floor((width + GAP) / (LEAST_COLUMN_WIDTH + GAP)));
  const rows = Math.ceil(completions.length / fitting);
  const columns = Math.ceil(completions.length / Math.max(1, rows));
  const columnWidth = Math.floor((width - GAP * (columns - 1)) / Math.max(1, columns));
  const lines: string[] = [];
  for (let first = 0; first < completions.length; first += columns) {
    const cells = completions
      .slice(first, first + columns)
      .map((completion, index) => cellLines(first + index + 1, completion, columnWidth));
    const height = Math.max(...cells.map((cell) => cell.length));
    for (let line = 0; line < height; line++) {
      const parts = cells.map((cell) => padded(cell[line] ?? '', columnWidth));
      lines.push(parts.join(' '.repeat(GAP)).trimEnd());
    }
    lines.push('');
  }
  return lines;
}

function cellLines(number: number, completion: LabelCompletion, width: number): string[] {
  const { text, finishReason, tokens, copies } = completion;
  const notes = [
    ...(copies > 1 ? [`sampled ${copies} times`] : []),
    ...(finishReason === 'length' ? [`cut off after ${counted(tokens, 'token')}`] : []),
  ];
  return [
    ...ruled([String(number), ...notes].join(' · '), width),
    ...wrapText(visibleText(text), width),
  ];
}

/** `── text ─────`; where it does not fit, the text alone. */
function ruled(text: string, width: number): string[] {
  const label = `── ${text} `;
  const rest = width - stringWidth(label);
  return rest < 0 ? wrapText(text, width) : [label + '─'.repeat(rest)];
}

function padded(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - stringWidth(text)));
}
