/** Looks for what is wrong with a data set without stopping at the first fault. Knows formats, not tokens. */
import { DataError } from '../errors/index.js';
import {
  booleanOf,
  formatAmong,
  validateRow,
  type DataFormat,
  type DataFormatName,
} from './format.js';
import { placeOf, type Row } from './row.js';

/** Something that was found in several rows: how often, and where first. */
export interface Finding {
  readonly count: number;
  /** Places, or messages with places, of the first ones. */
  readonly first: readonly string[];
}

/** What was found in a data set. */
export interface Examination {
  readonly format: DataFormat;
  /** Rows that are of the format, in order. */
  readonly usable: readonly Row[];
  /** Rows that are not of the format: with what was expected and received. */
  readonly faults: Finding;
  /** Rows that are the same as an earlier one. */
  readonly duplicates: Finding;
  /** Rows in which a text of the format is empty or blank. */
  readonly empty: Finding;
  /**
   * Rows that contradict an earlier one: a pair that prefers what that rejects, the same completion with another label;
   * and pairs of equal texts, which prefer nothing.
   */
  readonly contradictory: Finding;
}

const FORMATS: readonly DataFormatName[] = [
  ...(['stepwise', 'preference', 'unpaired-preference', 'prompt-completion'] as const),
  ...(['language-modeling', 'prompt-only'] as const),
];
/** Columns of the formats that hold text. */
const TEXTS = ['prompt', 'completion', 'completions', 'chosen', 'rejected', 'text', 'messages'];
/** Places that are shown of each finding. */
const SHOWN = 5;

/** @throws DataError if there are no rows, or the columns of none are those of a format */
export function examineRows(rows: readonly Row[]): Examination {
  const format = formatAmong(rows, FORMATS, 'skip');
  const found = { faults: noted(), duplicates: noted(), empty: noted(), contradictory: noted() };
  const seen = new Map<string, Row>();
  const usable: Row[] = [];
  const judged = new Map<string, { row: Row; verdict: string }>();
  for (const row of rows) {
    const fault = faultOf(row, format);
    if (fault !== undefined) {
      found.faults.note(fault);
      continue;
    }
    usable.push(row);
    const whole = JSON.stringify(row.values);
    const before = seen.get(whole);
    if (before === undefined) seen.set(whole, row);
    else found.duplicates.note(`${placeOf(row)} is ${placeOf(before)} again`);
    const blank = TEXTS.find((column) => isBlank(row.values[column]));
    if (blank !== undefined) found.empty.note(`${placeOf(row)}, ${blank}`);
    const judgement = judgementOf(row, format.name);
    if (judgement === undefined) continue;
    if (judgement.verdict === undefined) {
      found.contradictory.note(`${placeOf(row)}: chosen and rejected are equal`);
      continue;
    }
    const earlier = judged.get(judgement.of);
    if (earlier === undefined) judged.set(judgement.of, { row, verdict: judgement.verdict });
    else if (earlier.verdict !== judgement.verdict)
      found.contradictory.note(`${placeOf(row)} contradicts ${placeOf(earlier.row)}`);
  }
  return {
    format,
    usable,
    faults: found.faults.finding(),
    duplicates: found.duplicates.finding(),
    empty: found.empty.finding(),
    contradictory: found.contradictory.finding(),
  };
}

function noted(): { note: (text: string) => void; finding: () => Finding } {
  const first: string[] = [];
  let count = 0;
  return {
    note: (text) => {
      count++;
      if (first.length < SHOWN) first.push(text);
    },
    finding: () => ({ count, first }),
  };
}

function faultOf(row: Row, format: DataFormat): string | undefined {
  try {
    validateRow(row, format);
    return undefined;
  } catch (error) {
    if (error instanceof DataError) return error.message;
    throw error;
  }
}

function isBlank(value: unknown): boolean {
  if (typeof value === 'string') return value.trim() === '';
  if (!Array.isArray(value) || value.length === 0) return false;
  return value.some((entry: unknown) => {
    if (typeof entry === 'string') return entry.trim() === '';
    if (typeof entry !== 'object' || entry === null) return false;
    // A message that only calls tools has no content.
    const calls = 'tool_calls' in entry && entry.tool_calls;
    return !calls && 'content' in entry && isBlank(entry.content ?? '');
  });
}

/** What a row judges, and how; no verdict where it judges nothing. */
function judgementOf(
  { values }: Row,
  format: DataFormatName,
): { of: string; verdict: string | undefined } | undefined {
  const { prompt = null, chosen, rejected, completion, label } = values;
  if (format === 'unpaired-preference')
    return { of: JSON.stringify([prompt, completion]), verdict: String(booleanOf(label)) };
  if (format !== 'preference') return undefined;
  const [a, b] = [JSON.stringify(chosen), JSON.stringify(rejected)];
  if (a === b) return { of: '', verdict: undefined };
  // The pair in one order, whichever of the two is preferred.
  return a < b
    ? { of: JSON.stringify([prompt, a, b]), verdict: 'first' }
    : { of: JSON.stringify([prompt, b, a]), verdict: 'second' };
}
