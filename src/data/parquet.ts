/** Reads Parquet files. Knows row groups and how their values become plain ones, not what columns mean. */
import { open, stat } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { AsyncBuffer, ColumnMetaData, FileMetaData, SchemaElement } from 'hyparquet';
import { DataError, IoError } from '../errors/index.js';
import { describeValue } from './row.js';

/** Columns of one row, as JSON would hold them. */
export type PlainRow = Readonly<Record<string, unknown>>;

/** Rows of a group that are stored, and decoded, together. */
export interface RowGroup {
  /** Index of its first row in the file. */
  readonly start: number;
  readonly rowCount: number;
  /** Offset behind its last byte in the file. */
  readonly end: number;
}

/** A file whose footer was read and found to agree with the file. */
export interface ParquetFile {
  readonly path: string;
  readonly groups: readonly RowGroup[];
  /** Rows of one group, in order. @throws DataError with the file, and the row where a value is at fault */
  readonly read: (group: RowGroup) => Promise<PlainRow[]>;
}

/** More rows than any writer puts into one group: a footer that says so lies. */
const MAX_GROUP_ROWS = 2 ** 27;
/** A decimal with so many digits is the number that is printed the same. */
const EXACT_DIGITS = 15;
const HINT = 'The file may be incomplete or no Parquet file: download or write it again.';

/**
 * Opens a Parquet file: its footer, not its rows.
 *
 * Values become what JSON would hold: 64-bit integers and decimals numbers, where a number holds them exactly, dates and
 * times ISO 8601 texts, lists and structs arrays and objects. Fields of structs that are null are left out: a table has
 * every field in every message, and chat templates ask which ones are there. Source: TRL's `remove_none_values`.
 *
 * @throws DataError if the file is not a Parquet file, or is not as its footer says
 */
export async function openParquet(path: string): Promise<ParquetFile> {
  const { size } = await stat(path);
  const file = bufferOf(path, size);
  // Imported here, so that who reads no Parquet does not wait for it.
  const { parquetMetadataAsync, parquetReadObjects } = await import('hyparquet');
  const { compressors } = await import('hyparquet-compressors');
  const metadata = await explained(path, () => {
    if (size < 12) throw new IoError(`it has ${size} bytes`);
    return parquetMetadataAsync(file, { parsers: PARSERS, geoparquet: false });
  });
  checkFooter(path, size, metadata);
  let start = 0;
  const groups = metadata.row_groups.map(({ num_rows: rows, columns }) => {
    const end = Math.max(0, ...columns.map(({ meta_data: chunk }) => chunkRange(chunk).end));
    const group = { start, rowCount: Number(rows), end };
    start += group.rowCount;
    return group;
  });
  const longDecimals = decimalsOf(metadata);
  const read = async ({ start: rowStart, rowCount }: RowGroup): Promise<PlainRow[]> => {
    const reading = abandonable(file);
    const rows = await explained(path, () =>
      parquetReadObjects({
        ...{ file: reading.file, metadata, compressors, parsers: PARSERS, geoparquet: false },
        ...{ rowStart, rowEnd: rowStart + rowCount },
      }),
    ).catch((error: unknown) => {
      reading.abandon();
      throw error;
    });
    if (rows.length !== rowCount) throw differs(path, `${rowCount} rows`, `${rows.length}`);
    return rows.map((row, index) => plainRow(row, longDecimals, `${path}:${rowStart + index + 1}`));
  };
  return { path, groups, read };
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Text that is not UTF-8 is an error like in other files, and not replaced by question marks. */
const PARSERS = {
  stringFromBytes: (bytes: Uint8Array | undefined) => bytes && utf8.decode(bytes),
  jsonFromBytes: (bytes: Uint8Array | undefined): unknown =>
    bytes && JSON.parse(utf8.decode(bytes)),
};

function bufferOf(path: string, byteLength: number): AsyncBuffer {
  return {
    byteLength,
    async slice(start, end = byteLength) {
      if (!(start >= 0 && start <= end && end <= byteLength)) {
        throw new IoError(`bytes ${start} to ${end} are asked of ${byteLength}`);
      }
      const handle = await open(path);
      try {
        const bytes = new Uint8Array(end - start);
        const { bytesRead } = await handle.read(bytes, 0, bytes.length, start);
        if (bytesRead < bytes.length) throw new IoError('it became shorter while it was read');
        return bytes.buffer;
      } finally {
        await handle.close();
      }
    },
  };
}

/**
 * A file whose answers are held back once they are abandoned. The library begins to read columns before it has looked at
 * the names of all; where one of those is wrong, nobody waits for the columns before it any more, and damage in them would
 * end the process as an error that nobody handled.
 */
function abandonable(whole: AsyncBuffer): {
  file: AsyncBuffer;
  abandon: () => void;
} {
  let isAbandoned = false;
  const unlessAbandoned = async (bytes: Promise<ArrayBuffer>): Promise<ArrayBuffer> => {
    await Promise.allSettled([bytes, nextTurn()]);
    return isAbandoned ? new Promise(() => undefined) : bytes;
  };
  return {
    file: {
      byteLength: whole.byteLength,
      slice: (start, end) => unlessAbandoned(Promise.resolve(whole.slice(start, end))),
    },
    abandon: () => (isAbandoned = true),
  };
}

/** What the library finds wrong, with the file's name. */
async function explained<Result>(
  path: string,
  read: () => Result | Promise<Result>,
): Promise<Awaited<Result>> {
  try {
    return await read();
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).split('\n')[0] ?? '';
    throw new DataError(
      `${path}: expected a Parquet file, but it cannot be read: ${reason.replace(/\.$/, '')}.`,
      { hint: HINT, cause: error },
    );
  }
}

function differs(path: string, said: string, found: string): DataError {
  return new DataError(`${path}: expected ${said} as the file's footer says, received ${found}.`, {
    hint: HINT,
  });
}

/** Refuses a footer that the file does not bear out, before memory is taken for what it says. */
function checkFooter(path: string, size: number, metadata: FileMetaData): void {
  let sum = 0;
  for (const { num_rows: rows, columns } of metadata.row_groups) {
    const count = Number(rows);
    if (!(count >= 0 && count <= MAX_GROUP_ROWS)) {
      throw differs(path, `${count} rows in a row group`, `a file of ${size} bytes`);
    }
    sum += count;
    for (const { meta_data: chunk } of columns) {
      if (chunk === undefined) continue;
      const { start, end } = chunkRange(chunk);
      if (!(start >= 0 && end <= size)) {
        throw differs(path, `a column up to byte ${end}`, `a file of ${size} bytes`);
      }
      if (Number(chunk.num_values) < count) {
        throw differs(
          path,
          `${count} rows`,
          `${String(chunk.num_values)} values of column ${JSON.stringify(chunk.path_in_schema.join('.'))}`,
        );
      }
    }
  }
  if (Number(metadata.num_rows) !== sum) {
    throw differs(path, `${String(metadata.num_rows)} rows`, `row groups of ${sum}`);
  }
}

/** Where the values of a column of a row group are. */
function chunkRange(chunk: ColumnMetaData | undefined): { start: number; end: number } {
  if (chunk === undefined) return { start: 0, end: 0 };
  const start = Number(chunk.dictionary_page_offset ?? chunk.data_page_offset);
  return { start, end: start + Number(chunk.total_compressed_size) };
}

/** Columns that hold decimals of more digits than a number has, with the most digits after their point. */
function decimalsOf({ schema }: FileMetaData): Map<string, number> {
  const found = new Map<string, number>();
  let at = 1;
  const visit = (column: string): void => {
    const element: SchemaElement | undefined = schema[at++];
    if (element === undefined) return;
    const { converted_type: type, precision = 0, scale = 0, num_children: children = 0 } = element;
    if (type === 'DECIMAL' && precision > EXACT_DIGITS)
      found.set(column, Math.max(scale, found.get(column) ?? 0));
    for (let child = 0; child < children; child++) visit(column);
  };
  while (at < schema.length) visit(schema[at]?.name ?? '');
  return found;
}

function plainRow(
  row: Readonly<Record<string, unknown>>,
  longDecimals: ReadonlyMap<string, number>,
  place: string,
): PlainRow {
  const values = Object.entries(row).map(([column, value]) => {
    const scale = longDecimals.get(column);
    const refuse = (expected: string, received: string): never => {
      throw new DataError(
        `${place}: expected ${expected} in column ${JSON.stringify(column)}, received ${received}.`,
        { hint: 'Write the column as text or as a smaller number.' },
      );
    };
    return [column, plainValue(value, scale, refuse) ?? null];
  });
  return Object.fromEntries(values) as PlainRow;
}

function plainValue(
  value: unknown,
  scale: number | undefined,
  refuse: (expected: string, received: string) => never,
): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value);
    return Number.isSafeInteger(number)
      ? number
      : refuse('an integer that a number holds exactly (below 2^53)', String(value));
  }
  if (typeof value === 'number' && scale !== undefined) {
    return Math.abs(value) * 10 ** scale < Number.MAX_SAFE_INTEGER
      ? value
      : refuse('a decimal that a number holds exactly (below 2^53 without its point)', `${value}`);
  }
  if (value instanceof Date) {
    return Number.isNaN(value.getTime())
      ? refuse('a date', describeValue(String(value)))
      : value.toISOString();
  }
  if (ArrayBuffer.isView(value)) return value instanceof Uint8Array ? [...value] : value;
  if (Array.isArray(value)) return value.map((entry) => plainValue(entry, scale, refuse) ?? null);
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value).flatMap(([name, field]) => {
        const plain = plainValue(field, scale, refuse);
        return plain === undefined || plain === null ? [] : [[name, plain]];
      }),
    );
  }
  return value;
}
