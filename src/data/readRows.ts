/** Reads rows from JSONL, JSON and CSV files. Knows files and positions, not what the columns mean. */
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { DataError, IoError } from '../errors/index.js';
import { parseCsv } from './csv.js';
import { findElementOffsets, findJsonFault, type JsonFault } from './jsonScanner.js';
import { describeValue, type Row } from './row.js';

const EXTENSIONS = '.jsonl, .json or .csv';
const ROW_HINT = 'Every row is a JSON object, such as {"prompt": "1+1=", "answer": "2"}.';

/**
 * Rows of one or several files, in order. `.jsonl` (or `.ndjson`) holds one object per line, `.json` a list of objects
 * (or, when it starts with an object, lines like `.jsonl`), `.csv` a header and records, whose values are all strings.
 * A byte-order mark, CRLF line ends and blank lines are accepted.
 *
 * @throws DataError with file, line and column where a file's content is not what its kind demands, or it has no rows
 * @throws IoError if a file is missing, is a folder, or cannot be read
 */
export async function readRows(paths: string | readonly string[]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const path of typeof paths === 'string' ? [paths] : paths) {
    const found = await readFileRows(path);
    if (found.length === 0) {
      throw new DataError(`${path}: expected at least one row, but the file has none.`, {
        hint: 'Check that the file was written completely.',
      });
    }
    for (const row of found) rows.push(row);
  }
  return rows;
}

async function readFileRows(path: string): Promise<Row[]> {
  const extension = extname(path).toLowerCase();
  if (!['.jsonl', '.ndjson', '.json', '.csv'].includes(extension)) {
    throw new DataError(
      `${path}: expected a file that ends in ${EXTENSIONS}, received ${extension === '' ? 'no extension' : extension}.`,
      { hint: 'Rename or convert the file.' },
    );
  }
  const text = decodeText(path, await readBytes(path));
  if (extension === '.csv') return rowsOfCsv(path, text);
  if (extension === '.json' && /^\s*(?!\{)\S/.test(text)) return rowsOfJson(path, text);
  return rowsOfLines(path, text);
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    const received =
      code === 'ENOENT'
        ? 'there is no such file'
        : code === 'EISDIR'
          ? 'it is a folder'
          : error instanceof Error
            ? error.message
            : String(error);
    throw new IoError(`${path}: expected a data file, but ${received}.`, {
      hint: 'Give the path of a data file, relative to the current folder.',
      cause: error,
    });
  }
}

function decodeText(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes); // drops a byte-order mark
  } catch (error) {
    if (error instanceof RangeError || bytes.length > 2 ** 29) {
      throw new DataError(
        `${path}: expected a file below 512 MB, received ${Math.round(bytes.length / 1e6)} MB.`,
        { hint: 'Split it into several files.', cause: error },
      );
    }
    throw new DataError(
      `${placeOfInvalidByte(path, bytes)}: expected UTF-8 text, received other bytes.`,
      {
        hint: 'Save the file as UTF-8.',
        cause: error,
      },
    );
  }
}

/** `file:line:column` of the first byte that is not UTF-8: the decoded text before the first replacement is sound. */
function placeOfInvalidByte(path: string, bytes: Uint8Array): string {
  let start = 0;
  for (let line = 1; start <= bytes.length; line++) {
    const found = bytes.indexOf(0x0a, start);
    const end = found === -1 ? bytes.length : found;
    const slice = bytes.subarray(start, end);
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(slice);
    const encoded = new TextEncoder().encode(text);
    const differs = encoded.findIndex((byte, index) => byte !== slice[index]);
    if (differs !== -1 || encoded.length !== slice.length) {
      const sound = slice.subarray(0, differs === -1 ? slice.length : differs);
      return `${path}:${line}:${new TextDecoder().decode(sound).length + 1}`;
    }
    start = end + 1;
  }
  return path;
}

function rowsOfLines(path: string, text: string): Row[] {
  const rows: Row[] = [];
  text.split('\n').forEach((content, index) => {
    if (content.trim() === '') return;
    rows.push(toRow(parseJson(path, content, index + 1), path, index + 1));
  });
  return rows;
}

function rowsOfJson(path: string, text: string): Row[] {
  const value = parseJson(path, text, 1);
  if (!Array.isArray(value)) {
    throw new DataError(
      `${path}:1:1: expected a list of objects, received ${describeValue(value)}.`,
      { hint: 'Write [{…}, {…}], or one object per line in a .jsonl file.' },
    );
  }
  const offsets = findElementOffsets(text);
  if ('expected' in offsets) throw syntaxError({ path, text, firstLine: 1, fault: offsets });
  let line = 1;
  let counted = 0;
  return value.map((element: unknown, index) => {
    const offset = offsets[index] ?? counted;
    for (; counted < offset; counted++) if (text[counted] === '\n') line++;
    const column = offset - text.lastIndexOf('\n', offset - 1);
    return toRow(element, path, line, offset === 0 ? 1 : column);
  });
}

/** Parses with the engine, which is fast, and looks for the place of a fault only when there is one. */
function parseJson(path: string, text: string, firstLine: number): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const fault = findJsonFault(text);
    throw syntaxError({ path, text, firstLine, fault, cause: error });
  }
}

function syntaxError(at: {
  path: string;
  text: string;
  firstLine: number;
  fault: JsonFault | undefined;
  cause?: unknown;
}): DataError {
  const before = at.text.slice(0, at.fault?.offset ?? 0).split('\n');
  const line = at.firstLine + before.length - 1;
  const column = (before.at(-1)?.length ?? 0) + 1;
  return new DataError(
    `${at.path}:${line}:${column}: expected ${at.fault?.expected ?? 'JSON'}, received ${at.fault?.received ?? 'something else'}.`,
    { hint: ROW_HINT, cause: at.cause },
  );
}

function toRow(value: unknown, path: string, line: number, column = 1): Row {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new DataError(
      `${path}:${line}:${column}: expected an object, received ${describeValue(value)}.`,
      { hint: ROW_HINT },
    );
  }
  return { values: Object.fromEntries(Object.entries(value)), file: path, line };
}

function rowsOfCsv(path: string, text: string): Row[] {
  const parsed = parseCsv(text);
  if ('expected' in parsed) {
    throw new DataError(
      `${path}:${parsed.line}:${parsed.column}: expected ${parsed.expected}, received ${parsed.received}.`,
      {
        hint: 'Put fields with commas, quotes or line ends in double quotes, and double the quotes inside.',
      },
    );
  }
  const records = parsed.filter(({ fields }) => fields.length > 1 || fields[0]?.trim() !== '');
  const [header, ...rest] = records;
  if (header === undefined) return [];
  const repeated = header.fields.find((name, index) => header.fields.indexOf(name) !== index);
  if (repeated !== undefined) {
    throw new DataError(
      `${path}:${header.line}:1: expected every column once, but ${JSON.stringify(repeated)} occurs twice in the header.`,
    );
  }
  return rest.map(({ fields, line }) => {
    if (fields.length !== header.fields.length) {
      throw new DataError(
        `${path}:${line}:1: expected ${header.fields.length} fields like the header, received ${fields.length}.`,
        { hint: 'A comma inside a field needs double quotes around the field.' },
      );
    }
    return {
      values: Object.fromEntries(header.fields.map((name, index) => [name, fields[index] ?? ''])),
      file: path,
      line,
    };
  });
}
