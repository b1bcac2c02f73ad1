/** Shows one example as it is trained on, token by token, before a run begins. */
import type { DataFormat, PreferenceExample, Row } from '../data/index.js';
import { counted } from '../errors/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { ProgressStream } from './progress.js';

/** A format for people: `preference, conversations`. */
export function describeFormat({ name, conversational }: DataFormat): string {
  return conversational ? `${name} (conversations)` : name;
}

/** Tokens with the ones among them that are trained. */
export interface PreviewTokens {
  /** What stands before the text: `chosen`, or nothing. */
  readonly name?: string | undefined;
  readonly ids: readonly number[];
  /** Whether the token at a place is trained, or judged. */
  readonly isTrained: (place: number) => boolean;
}

/** Longer examples are cut in their middle. */
const SHOWN_TOKENS = { start: 120, end: 80 } as const;
const GREEN = '\u001b[32m';
const RESET = '\u001b[0m';

/**
 * Writes the example of a row: the text of all tokens, special ones spelled out, what is trained in green on a terminal
 * and between ⟦ and ⟧ elsewhere.
 */
export function tellExample(
  progress: ProgressStream | null,
  tokenizer: Tokenizer,
  row: Pick<Row, 'file' | 'line'>,
  parts: readonly PreviewTokens[],
): void {
  const [open, close] = progress?.isTTY === true ? [GREEN, RESET] : ['⟦', '⟧'];
  for (const { name, ids, isTrained } of parts) {
    const what = name === undefined ? '' : `, ${name}`;
    progress?.write(
      `Example (${row.file}:${row.line}${what}; ${counted(ids.length, 'token')}, trained ones ${progress.isTTY === true ? 'in green' : 'in ⟦ ⟧'}): ${markedText({ ids, isTrained }, tokenizer, { open, close })}\n`,
    );
  }
}

/** The text of tokens with signs around what is trained, on one line: line ends are written as ↵. */
export function markedText(
  { ids, isTrained }: PreviewTokens,
  tokenizer: Pick<Tokenizer, 'decode'>,
  { open, close }: { open: string; close: string },
): string {
  const { start, end } = SHOWN_TOKENS;
  const hidden = Math.max(0, ids.length - start - end);
  const parts: string[] = [];
  let run: number[] = [];
  const endRun = (isMarked: boolean): void => {
    if (run.length === 0) return;
    const text = withoutControls(tokenizer.decode(run).replaceAll(/\r?\n/g, '↵'));
    parts.push(isMarked ? `${open}${text}${close}` : text);
    run = [];
  };
  ids.forEach((id, place) => {
    if (hidden > 0 && place >= start && place < start + hidden) return;
    const isCut = hidden > 0 && place === start + hidden;
    const before = isCut ? start - 1 : place - 1;
    if (isCut || (place > 0 && isTrained(before) !== isTrained(place))) endRun(isTrained(before));
    if (isCut) parts.push(` … ${counted(hidden, 'token')} … `);
    run.push(id);
  });
  endRun(isTrained(ids.length - 1));
  return parts.join('');
}

/** Control characters as pictures: a terminal would obey them, and clear itself or go back over the line. */
function withoutControls(text: string): string {
  return text.replaceAll(/(?!\t)\p{Cc}/gu, (character) => {
    const code = character.charCodeAt(0);
    if (code >= 0x80) return '\ufffd';
    return code === 0x7f ? '␡' : String.fromCharCode(0x2400 + code);
  });
}

/** Writes the first pair of completions, both with what is trained or judged of them. */
export function tellPair(
  progress: ProgressStream | null,
  tokenizer: Tokenizer,
  pair: Pick<PreferenceExample, 'promptIds' | 'chosenIds' | 'rejectedIds' | 'row'> | undefined,
): void {
  if (pair === undefined) return;
  const { promptIds, chosenIds, rejectedIds, row } = pair;
  const isTrained = (place: number): boolean => place >= promptIds.length;
  tellExample(progress, tokenizer, row, [
    { name: 'chosen', ids: [...promptIds, ...chosenIds], isTrained },
    { name: 'rejected', ids: [...promptIds, ...rejectedIds], isTrained },
  ]);
}
