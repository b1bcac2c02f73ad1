/** Which kind of data set rows are, by TRL's column names, and whether each row is one. Knows no tokens. */
import { DataError } from '../errors/index.js';
import { describeValue, placeOf, type Row } from './row.js';
import { toolsOf } from './tokenizeText.js';

/** The kinds of data sets, named as TRL names them (TRL documentation, "Dataset formats and types"). */
export type DataFormatName =
  | 'language-modeling'
  | 'prompt-only'
  | 'prompt-completion'
  | 'preference'
  | 'unpaired-preference'
  | 'stepwise';

/** What `detectFormat` found. */
export interface DataFormat {
  readonly name: DataFormatName;
  /** Whether texts are lists of messages (`[{ role, content }]`) rather than strings. */
  readonly conversational: boolean;
}

/** What a column holds: `text` is a string or a list of messages. */
type ColumnKind = 'text' | 'string' | 'messages' | 'boolean' | 'strings' | 'booleans' | 'number';

/** One way to write a format: the columns it needs and those it may have. */
interface FormatShape {
  readonly name: DataFormatName;
  readonly columns: Readonly<Record<string, ColumnKind>>;
  readonly optional?: Readonly<Record<string, ColumnKind>>;
}

/** More specific shapes first: the first one whose columns are all there is the format. */
const SHAPES: readonly FormatShape[] = [
  {
    name: 'stepwise',
    columns: { prompt: 'text', completions: 'strings', labels: 'booleans' },
  },
  {
    name: 'preference',
    columns: { chosen: 'text', rejected: 'text' },
    optional: { prompt: 'text', margin: 'number' },
  },
  {
    name: 'unpaired-preference',
    columns: { prompt: 'text', completion: 'text', label: 'boolean' },
  },
  { name: 'prompt-completion', columns: { prompt: 'text', completion: 'text' } },
  { name: 'language-modeling', columns: { messages: 'messages' } },
  { name: 'language-modeling', columns: { text: 'string' } },
  { name: 'prompt-only', columns: { prompt: 'text' } },
];

const EXPECTED: Readonly<Record<ColumnKind, string>> = {
  text: 'a string or a list of messages [{"role", "content"}, …]',
  string: 'a string',
  messages: 'a list of messages [{"role", "content"}, …]',
  boolean: 'true or false',
  strings: 'a list of strings',
  booleans: 'a list of true and false',
  number: 'a number',
};

/**
 * The format of rows, from the columns of the first one. Further columns are left to the rewards.
 *
 * @throws DataError if there are no rows or the columns of the first are those of no format
 */
export function detectFormat(rows: readonly Row[]): DataFormat {
  const [first] = rows;
  if (first === undefined) {
    throw new DataError('detectFormat: expected at least one row, received none.');
  }
  const shape = shapeOf(first);
  if (shape === undefined) {
    const columns = Object.keys(first.values);
    throw new DataError(
      `${placeOf(first)}: expected the columns of a known format, received ${columns.length === 0 ? 'no columns' : columns.map((name) => JSON.stringify(name)).join(', ')}.`,
      {
        hint: `Rename the columns to one of: ${formatsAsText()}.`,
      },
    );
  }
  return { name: shape.name, conversational: isConversational(first, shape) };
}

/**
 * Checks that every row has the format of the first one, that it is among the expected formats, and that the columns
 * which rewards need are there.
 *
 * @param expected formats that the method can use
 * @param requiredColumns further columns that every row must have, for example `answer`
 * @returns the format
 * @throws DataError that names the row, the column, and what was expected and received
 */
export function validateRows(
  rows: readonly Row[],
  expected: readonly DataFormatName[],
  requiredColumns: readonly string[] = [],
): DataFormat {
  const format = requireExpected(rows, expected, detectFormat(rows));
  const shape = rows[0] && shapeOf(rows[0]);
  for (const row of rows) {
    checkColumns(row, shape, format);
    for (const column of requiredColumns) {
      if (!isPresent(row.values[column])) {
        throw new DataError(
          `${placeOf(row)}: expected a column ${JSON.stringify(column)}, received ${column in row.values ? 'null in it' : columnNames(row)}.`,
          { hint: 'The reward reads this column. Add it to every row, or name another one.' },
        );
      }
    }
    checkLengths(row, format.name);
  }
  return format;
}

/**
 * The format of rows: that of the first one, or, where rows with faults are skipped, of the first one that has an
 * expected format.
 *
 * @throws DataError as `detectFormat`
 */
export function formatAmong(
  rows: readonly Row[],
  expected: readonly DataFormatName[],
  faulty: 'stop' | 'skip',
): DataFormat {
  const usable = faulty === 'skip' ? rows.find((row) => isOfFormat(row, expected)) : undefined;
  return detectFormat(usable === undefined ? rows : [usable]);
}

/** Whether a row has the columns of one of the formats, whatever is in them. */
export function isOfFormat(row: Row, expected: readonly DataFormatName[]): boolean {
  const name = shapeOf(row)?.name;
  return name !== undefined && expected.includes(name);
}

/**
 * As `validateRows`, but where rows with faults are skipped only the format is checked: what makes tokens of the rows
 * leaves those out that are not of it, and counts them.
 *
 * @throws DataError as `validateRows`
 */
export function validateFormat(
  rows: readonly Row[],
  expected: readonly DataFormatName[],
  faulty: 'stop' | 'skip',
): DataFormat {
  if (faulty === 'stop') return validateRows(rows, expected);
  return requireExpected(rows, expected, formatAmong(rows, expected, faulty));
}

function requireExpected(
  [first]: readonly Row[],
  expected: readonly DataFormatName[],
  format: DataFormat,
): DataFormat {
  if (expected.includes(format.name)) return format;
  throw new DataError(
    `${first === undefined ? 'validateRows' : placeOf(first)}: expected ${expected.join(' or ')} rows, received ${format.name} rows (${Object.keys(first?.values ?? {}).join(', ')}).`,
    { hint: `The formats are: ${formatsAsText(expected)}.` },
  );
}

/** Checks that a row has the columns of the format. @throws DataError as `validateRows` */
export function validateRow(row: Row, format: DataFormat): void {
  const shapes = SHAPES.filter(({ name }) => name === format.name);
  const shape = shapes.find(({ columns }) => hasColumns(row, columns)) ?? shapes[0];
  checkColumns(row, shape, format);
  checkLengths(row, format.name);
}

function shapeOf(row: Row): FormatShape | undefined {
  return SHAPES.find(({ columns }) => hasColumns(row, columns));
}

function checkColumns(row: Row, shape: FormatShape | undefined, format: DataFormat): void {
  if (format.conversational) toolsOf(row);
  for (const [column, kind] of Object.entries(shape?.columns ?? {})) {
    checkColumn(row, column, kind, format.conversational);
  }
  for (const [column, kind] of Object.entries(shape?.optional ?? {})) {
    if (isPresent(row.values[column])) {
      // A prompt beside conversations may be a string: they hold it then, as in published data sets.
      const isText = typeof row.values[column] === 'string';
      checkColumn(row, column, kind, format.conversational && !isText);
    }
  }
}

function checkColumn(row: Row, column: string, kind: ColumnKind, conversational: boolean): void {
  const value = row.values[column];
  const where = `${placeOf(row)}: expected column ${JSON.stringify(column)}`;
  if (!(column in row.values)) {
    throw new DataError(`${where}, received ${columnNames(row)}.`, {
      hint: 'Every row needs the columns of the first one.',
    });
  }
  const fault = columnFault(value, kind);
  if (fault !== undefined) {
    throw new DataError(
      `${where} to be ${fault.expected}, received ${fault.received}.`,
      kind === 'string' && Array.isArray(value)
        ? { hint: 'Name the column "messages" where it holds conversations.' }
        : {},
    );
  }
  if (kind === 'text' && Array.isArray(value) !== conversational) {
    throw new DataError(
      `${where} to be ${conversational ? 'a list of messages' : 'a string'} as in the first row, received ${describeValue(value)}.`,
      { hint: 'Use one form throughout the data set.' },
    );
  }
}

/** Lists that belong together have one entry per step. */
function checkLengths(row: Row, format: DataFormatName): void {
  if (format !== 'stepwise') return;
  const { completions, labels } = row.values;
  if (!Array.isArray(completions) || !Array.isArray(labels)) return;
  if (completions.length !== labels.length || labels.length === 0) {
    throw new DataError(
      `${placeOf(row)}: expected as many labels as completions and at least one, received ${completions.length} completions and ${labels.length} labels.`,
    );
  }
}

function columnFault(
  value: unknown,
  kind: ColumnKind,
): { expected: string; received: string } | undefined {
  const mismatch = { expected: EXPECTED[kind], received: describeValue(value) };
  switch (kind) {
    case 'text':
      if (typeof value === 'string') return undefined;
      return Array.isArray(value) ? messagesFault(value) : mismatch;
    case 'string':
      return typeof value === 'string' ? undefined : mismatch;
    case 'messages':
      return Array.isArray(value) ? messagesFault(value) : mismatch;
    case 'boolean':
      return booleanOf(value) === undefined ? mismatch : undefined;
    case 'number':
      return typeof value === 'number' ? undefined : mismatch;
    case 'strings':
      return isListOf(value, 'string') ? undefined : mismatch;
    case 'booleans':
      return isListOf(value, 'boolean') ? undefined : mismatch;
  }
}

function messagesFault(
  messages: readonly unknown[],
): { expected: string; received: string } | undefined {
  if (messages.length === 0) {
    return { expected: 'a list with at least one message', received: 'an empty list' };
  }
  for (const message of messages) {
    const isMessage =
      typeof message === 'object' &&
      message !== null &&
      'role' in message &&
      typeof message.role === 'string' &&
      // A message that only calls tools may have no content.
      ('content' in message || 'tool_calls' in message);
    if (!isMessage) {
      return {
        expected: 'a list of messages with a "role" and a "content"',
        received: describeValue(message),
      };
    }
    const content = 'content' in message ? message.content : null;
    // A list has parts, which some templates write out. Of others a template would write what nobody has said.
    if (typeof content !== 'string' && content !== null && !Array.isArray(content)) {
      return {
        expected: 'a list of messages whose "content" is a string',
        received: describeValue(message),
      };
    }
  }
  return undefined;
}

/**
 * What a column of true and false says, also where a table has it as a number (1, 0) or a text (`true`, `False`, `1`), as
 * every value of CSV is; undefined for anything else.
 */
export function booleanOf(value: unknown): boolean | undefined {
  const said = typeof value === 'string' ? value.trim().toLowerCase() : value;
  if (said === true || said === 1 || said === 'true' || said === '1') return true;
  if (said === false || said === 0 || said === 'false' || said === '0') return false;
  return undefined;
}

function isListOf(value: unknown, type: 'string' | 'boolean'): boolean {
  return Array.isArray(value) && value.every((entry) => typeof entry === type);
}

/** Tables with a fixed set of columns write null where a row has no value. */
function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function hasColumns(row: Row, columns: Readonly<Record<string, ColumnKind>>): boolean {
  return Object.keys(columns).every((column) => isPresent(row.values[column]));
}

function isConversational(row: Row, shape: FormatShape): boolean {
  return Object.keys(shape.columns).some((column) => {
    const kind = shape.columns[column];
    return (kind === 'text' || kind === 'messages') && Array.isArray(row.values[column]);
  });
}

function columnNames(row: Row): string {
  const names = Object.keys(row.values);
  return names.length === 0
    ? 'a row without columns'
    : `only ${names.map((name) => JSON.stringify(name)).join(', ')}`;
}

function formatsAsText(names?: readonly DataFormatName[]): string {
  return SHAPES.filter(({ name }) => names === undefined || names.includes(name))
    .map(({ name, columns }) => `{${Object.keys(columns).join(', ')}} (${name})`)
    .join('; ');
}
