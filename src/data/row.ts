/** One row of a data set and where it came from. */
import { DataError } from '../errors/index.js';
import { withMessages } from './shareGpt.js';

/** A row: named values and its place in the user's file, so that every later message can point at it. */
export interface Row {
  /** The row's columns as they were read. */
  readonly values: Readonly<Record<string, unknown>>;
  /** Path of the file, or a name for rows that were given in memory. */
  readonly file: string;
  /** Line on which the row starts, counted from 1. */
  readonly line: number;
  /** Which of several sources it is of, counted from 0: what `data.weights` weighs. 0 unless set. */
  readonly source?: number | undefined;
}

/** `file:line` of a row, as editors and terminals understand it. */
export function placeOf(row: Row): string {
  return `${row.file}:${row.line}`;
}

/** What `read` returns. An error of the data gets the row's place where its message does not begin with it. */
export function atRow<Result>(row: Row, read: () => Result): Result {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof DataError) || error.message.startsWith(placeOf(row))) throw error;
    throw new DataError(`${placeOf(row)}: ${error.message}`, { hint: error.hint, cause: error });
  }
}

/** Rows made of objects in memory; the line counts the objects from 1. */
export function rowsFromObjects(
  objects: Iterable<Readonly<Record<string, unknown>>>,
  name = '<memory>',
): Row[] {
  return Array.from(objects, (values, index) =>
    withMessages({ values, file: name, line: index + 1 }),
  );
}

/** A value for a message: its JSON, cut short, or its type where JSON has no form for it. */
export function describeValue(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (typeof value === 'function') return 'a function';
  let json: string;
  try {
    json = JSON.stringify(value) ?? String(value);
  } catch {
    json = String(value);
  }
  const kind = Array.isArray(value) ? 'list' : typeof value;
  return `the ${kind} ${json.length > 60 ? `${json.slice(0, 60)}…` : json}`;
}
