/** Opens one data file of any kind: all rows in order, or single ones again. Knows bytes and lines, not what columns mean. */
import { open, stat } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import { DataError, IoError } from '../errors/index.js';
import {
  byteRecords,
  isCompressed,
  MOST_TEXT_BYTES,
  textBytes,
  type ByteRecord,
} from './byteRecords.js';
import { parseCsv } from './csv.js';
import { findElementOffsets, findJsonFault, findUnusable, type JsonFault } from './jsonScanner.js';
import { openParquet, type ParquetFile } from './parquet.js';
import { describeValue, type Row } from './row.js';

const TEXT_EXTENSIONS = ['.jsonl', '.ndjson', '.json', '.csv'] as const;
const DATA_EXTENSIONS: readonly string[] = [
  ...TEXT_EXTENSIONS,
  '.parquet',
  ...TEXT_EXTENSIONS.map((extension) => `${extension}.gz`),
];
/** Endings of the files that are read, in words. */
export const DATA_ENDINGS = '.jsonl, .json, .csv (each perhaps with .gz) or .parquet';
const ROW_HINT = 'Every row is a JSON object, such as {"prompt": "1+1=", "answer": "2"}.';

/** Where a row is stored: bytes of a text file, or a row of a row group. */
export interface RowPlace {
  /** Offset of the first byte, or index of the row group. */
  readonly start: number;
  /** Number of bytes, or index of the row in the group. */
  readonly length: number;
  readonly line: number;
}

/** A row with where it is stored. */
export interface PlacedRow {
  readonly row: Row;
  readonly place: RowPlace;
}

/** Some rows in order, and how many bytes of the file they and those before them take. */
export interface RowBatch {
  readonly rows: readonly PlacedRow[];
  readonly bytesRead: number;
}

/** An opened data file. */
export interface RowFile {
  readonly path: string;
  /** Of the file, packed as it is. */
  readonly bytes: number;
  /** All rows in order, some at a time. @throws DataError with file, line and column of what is wrong */
  readonly scan: () => AsyncGenerator<RowBatch>;
  /** Reads rows again where `scan` found them; undefined for a kind whose rows have no place of their own. */
  readonly read: ((places: readonly RowPlace[]) => Promise<Row[]>) | undefined;
}

/**
 * Opens a data file. `.jsonl` (or `.ndjson`) holds one object per line, `.json` a list of objects (or, when it starts
 * with an object, lines like `.jsonl`), `.csv` a header and records, whose values are all strings, `.parquet` a table. All
 * but the last may be compressed by gzip (`.jsonl.gz`).
 *
 * @throws DataError if the ending or the beginning of the file is of another kind
 * @throws IoError if the file is missing, is a folder, or cannot be read
 */
export async function openRowFile(path: string): Promise<RowFile> {
  const extension = dataExtension(path);
  if (extension === undefined) {
    const received = extname(path).toLowerCase();
    throw new DataError(
      `${path}: expected a file that ends in ${DATA_ENDINGS}, received ${received === '' ? 'no extension' : received}.`,
      { hint: 'Rename or convert the file.' },
    );
  }
  const bytes = await sizeOf(path);
  if (extension === '.parquet')
    return { ...parquetRows(await openParquet(path), await versionOf(path)), bytes };
  if (extension.startsWith('.csv')) return { ...csvRows(path), bytes };
  if (
    extension.startsWith('.json') &&
    !extension.startsWith('.jsonl') &&
    !(await beginsWithObject(path))
  ) {
    return { path, bytes, scan: () => listRows(path, bytes), read: undefined };
  }
  return {
    ...textRows(path, 'lines', () => Promise.resolve((record) => rowOfLine(path, record))),
    bytes,
  };
}

/** The ending of a data file, `.gz` included; undefined for a file of another kind. */
export function dataExtension(path: string): string | undefined {
  const name = path.toLowerCase();
  const last = extname(name);
  const whole = last === '.gz' ? `${extname(name.slice(0, -last.length))}${last}` : last;
  return DATA_EXTENSIONS.find((known) => known === whole);
}

async function sizeOf(path: string): Promise<number> {
  let found;
  try {
    found = await stat(path);
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    throw notReadable(path, isMissing ? 'there is no such file' : messageOf(error), error);
  }
  if (found.isFile()) return found.size;
  throw notReadable(path, 'it is a folder');
}

function notReadable(path: string, reason: string, cause?: unknown): IoError {
  return new IoError(`${path}: expected a data file, but ${reason}.`, {
    hint: 'Give the path of a data file, relative to the current folder.',
    cause,
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function beginsWithObject(path: string): Promise<boolean> {
  for await (const { records } of byteRecords(path, 'lines')) {
    for (const { bytes } of records) {
      const text = new TextDecoder().decode(bytes).trim();
      if (text !== '') return text.startsWith('{');
    }
  }
  return true;
}

type ReadRecord = (record: ByteRecord) => Row | undefined;

/** Rows that are bytes of their own. `prepare` reads what all of them need. */
function textRows(
  path: string,
  kind: 'lines' | 'csv',
  prepare: () => Promise<ReadRecord>,
): Omit<RowFile, 'bytes'> {
  let readRecord: ReadRecord | undefined;
  let version: string | undefined;
  async function* scan(): AsyncGenerator<RowBatch> {
    if (version === undefined) version = await versionOf(path);
    else await requireVersion(path, version); // Places of an earlier scan are of the file as it was.
    readRecord = await prepare();
    for await (const { records, bytesRead } of byteRecords(path, kind)) {
      const rows: PlacedRow[] = [];
      for (const record of records) {
        const row = readRecord(record);
        const { start, line, bytes } = record;
        if (row !== undefined) rows.push({ row, place: { start, line, length: bytes.length } });
      }
      yield { rows, bytesRead };
    }
  }
  const read = async (places: readonly RowPlace[]): Promise<Row[]> => {
    await requireVersion(path, version);
    const file = await open(path);
    try {
      const rows: Row[] = [];
      for (const { start, length, line } of places) {
        const bytes = new Uint8Array(length);
        await file.read(bytes, 0, length, start);
        const row = readRecord?.({ bytes, start, line });
        if (row !== undefined) rows.push(row);
      }
      return rows;
    } finally {
      await file.close();
    }
  };
  // Of a compressed file no row can be read without everything before it.
  return { path, scan, read: isCompressed(path) ? undefined : read };
}

async function requireVersion(path: string, version: string | undefined): Promise<void> {
  if (version === (await versionOf(path))) return;
  throw new DataError(`${path}: expected the file that was read before, but it was changed.`, {
    hint: 'Leave the data as it is while a run reads it; start the run again.',
  });
}

async function versionOf(path: string): Promise<string> {
  const { size, mtimeMs } = await stat(path);
  return `${size} bytes of ${mtimeMs}`;
}

const DECODERS = {
  /** Drops a byte-order mark. */
  start: new TextDecoder('utf-8', { fatal: true }),
  rest: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }),
} as const;

/** Text of a record. A byte-order mark at the beginning of a file is dropped. */
function decodeRecord(path: string, { bytes, start, line }: ByteRecord): string {
  try {
    return DECODERS[start === 0 ? 'start' : 'rest'].decode(bytes);
  } catch (error) {
    const column = columnOfInvalidByte(bytes);
    const isGzip = start === 0 && bytes[0] === 0x1f && bytes[1] === 0x8b;
    throw new DataError(`${path}:${line}:${column}: expected UTF-8 text, received other bytes.`, {
      hint: isGzip
        ? `It is compressed by gzip: name it ${basename(path)}.gz.`
        : 'Save the file as UTF-8.',
      cause: error,
    });
  }
}

/** Column of the first byte that is not UTF-8: the decoded text before the first replacement is sound. */
function columnOfInvalidByte(bytes: Uint8Array): number {
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
  const encoded = new TextEncoder().encode(text);
  const differs = encoded.findIndex((byte, index) => byte !== bytes[index]);
  const sound = bytes.subarray(0, differs === -1 ? bytes.length : differs);
  return new TextDecoder().decode(sound).length + 1;
}

function rowOfLine(path: string, record: ByteRecord): Row | undefined {
  const text = decodeRecord(path, record);
  if (text.trim() === '') return undefined;
  return toRow(parseJson(path, text, record.line), path, record.line);
}

async function* listRows(path: string, size: number): AsyncGenerator<RowBatch> {
  const text = await readText(path);
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
  const rows = value.map((element: unknown, index) => {
    const offset = offsets[index] ?? counted;
    for (; counted < offset; counted++) if (text[counted] === '\n') line++;
    const column = offset - text.lastIndexOf('\n', offset - 1);
    const row = toRow(element, path, line, offset === 0 ? 1 : column);
    return { row, place: { start: offset, length: 0, line } };
  });
  yield { rows, bytesRead: size };
}

/** The text of a file that has to be read as a whole. */
async function readText(path: string): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const { chunk } of textBytes(path)) {
    size += chunk.length;
    parts.push(chunk);
    if (size <= MOST_TEXT_BYTES) continue;
    throw new DataError(`${path}: expected a list of at most 512 MB, received a longer one.`, {
      hint: 'Write one object per line into a .jsonl file: those may be of any size.',
    });
  }
  const bytes = Buffer.concat(parts);
  try {
    return DECODERS.start.decode(bytes);
  } catch {
    for await (const { records } of byteRecords(path, 'lines'))
      for (const record of records) decodeRecord(path, record);
    throw notReadable(path, 'it is not UTF-8 text');
  }
}

/** Parses with the engine, which is fast, and looks for the place of a fault only when there is one. */
function parseJson(path: string, text: string, firstLine: number): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const fault = findJsonFault(text);
    throw syntaxError({ path, text, firstLine, fault, cause: error });
  }
  const fault = findUnusable(text);
  if (fault !== undefined) throw syntaxError({ path, text, firstLine, fault });
  return value;
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
    { hint: at.fault?.hint ?? ROW_HINT, cause: at.cause },
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

function csvRows(path: string): Omit<RowFile, 'bytes'> {
  return textRows(path, 'csv', async () => {
    const header = await headerOf(path);
    return (record) => {
      const fields = fieldsOf(path, record);
      if (fields === undefined || record.line === header.line) return undefined;
      if (fields.length !== header.fields.length) {
        throw new DataError(
          `${path}:${record.line}:1: expected ${header.fields.length} fields like the header, received ${fields.length}.`,
          { hint: 'A comma inside a field needs double quotes around the field.' },
        );
      }
      const values = header.fields.map((name, index) => [name, fields[index] ?? '']);
      return { values: Object.fromEntries(values) as Row['values'], file: path, line: record.line };
    };
  });
}

async function headerOf(path: string): Promise<{ fields: readonly string[]; line: number }> {
  for await (const { records } of byteRecords(path, 'csv')) {
    for (const record of records) {
      const fields = fieldsOf(path, record);
      if (fields === undefined) continue;
      const repeated = fields.find((name, index) => fields.indexOf(name) !== index);
      if (repeated !== undefined) {
        throw new DataError(
          `${path}:${record.line}:1: expected every column once, but ${JSON.stringify(repeated)} occurs twice in the header.`,
        );
      }
      return { fields, line: record.line };
    }
  }
  return { fields: [], line: 0 };
}

/** Fields of a record; undefined for a blank line. */
function fieldsOf(path: string, record: ByteRecord): readonly string[] | undefined {
  const text = decodeRecord(path, record);
  const parsed = parseCsv(text.endsWith('\r') ? `${text}\n` : text);
  if ('expected' in parsed) {
    throw new DataError(
      `${path}:${record.line + parsed.line - 1}:${parsed.column}: expected ${parsed.expected}, received ${parsed.received}.`,
      {
        hint: 'Put fields with commas, quotes or line ends in double quotes, and double the quotes inside.',
      },
    );
  }
  const nul = text.indexOf('\u0000');
  if (nul !== -1) {
    const before = text.slice(0, nul).split('\n');
    throw new DataError(
      `${path}:${record.line + before.length - 1}:${(before.at(-1)?.length ?? 0) + 1}: expected text, received a NUL character.`,
      { hint: 'The file is damaged, or no text: write it again.' },
    );
  }
  // An empty field in quotes is a field: the only one of a table of one column.
  return text.trim() === '' ? undefined : parsed[0]?.fields;
}

/** Decoded row groups that are kept for the next rows. */
const KEPT_GROUPS = 4;

function parquetRows({ path, groups, read }: ParquetFile, version: string): Omit<RowFile, 'bytes'> {
  const kept = new Map<number, Promise<readonly Row[]>>();
  const rowsOf = async (index: number): Promise<readonly Row[]> => {
    const group = groups[index] ?? { start: 0, rowCount: 0, end: 0 };
    const values = await read(group);
    return values.map((row, at) => ({ values: row, file: path, line: group.start + at + 1 }));
  };
  async function* scan(): AsyncGenerator<RowBatch> {
    await requireVersion(path, version);
    for (const [index, { end }] of groups.entries()) {
      const rows = await rowsOf(index);
      const placed = rows.map((row, at) => ({
        row,
        place: { start: index, length: at, line: row.line },
      }));
      yield { rows: placed, bytesRead: end };
    }
  }
  return {
    path,
    scan,
    async read(places) {
      // The groups that are kept are of the file as it was: a row of one beside one of a changed file would fit nothing.
      await requireVersion(path, version);
      const rows: Row[] = [];
      for (const { start: index, length: at } of places) {
        const group = kept.get(index) ?? rowsOf(index);
        // The ones used last stand at the end.
        kept.delete(index);
        kept.set(index, group);
        for (const oldest of [...kept.keys()].slice(0, -KEPT_GROUPS)) kept.delete(oldest);
        const row = (await group)[at];
        if (row !== undefined) rows.push(row);
      }
      return rows;
    },
  };
}
