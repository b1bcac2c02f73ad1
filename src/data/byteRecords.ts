/** Cuts files of text into records without reading them as a whole. Knows line ends and quotes, not what they hold. */
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { DataError } from '../errors/index.js';

/** One line, or one record of a CSV file, without its line end. */
export interface ByteRecord {
  readonly bytes: Uint8Array;
  /** Offset of its first byte in the text. */
  readonly start: number;
  /** Line on which it begins, counted from 1. */
  readonly line: number;
}

/** Some records in order, and how many bytes of the file were read up to their end or a little beyond. */
export interface RecordBatch {
  readonly records: readonly ByteRecord[];
  readonly bytesRead: number;
}

const LINE_FEED = 0x0a;
const QUOTE = 0x22;
const CHUNK_BYTES = 2 ** 20;
/** The longest text that the engine holds: 2^29 − 24 characters. */
export const MOST_TEXT_BYTES = 2 ** 29 - 24;

/** Whether a file is read through gzip, by its name. */
export function isCompressed(path: string): boolean {
  return path.toLowerCase().endsWith('.gz');
}

/**
 * The bytes of a file, unpacked where its name ends in `.gz`, with how many bytes of the file they took.
 *
 * @throws DataError where a compressed file is damaged, incomplete, or not compressed
 */
export async function* textBytes(
  path: string,
): AsyncGenerator<{ chunk: Uint8Array; bytesRead: number }> {
  const file = createReadStream(path, { highWaterMark: CHUNK_BYTES });
  const text = isCompressed(path)
    ? // What fails is thrown by the loop below too.
      pipeline(file, createGunzip({ chunkSize: CHUNK_BYTES }), () => undefined)
    : file;
  try {
    for await (const chunk of text) yield { chunk: chunk as Uint8Array, bytesRead: file.bytesRead };
  } catch (error) {
    const isDamaged =
      error instanceof Error && 'code' in error && String(error.code).startsWith('Z_');
    if (!isDamaged) throw error;
    throw new DataError(`${path}: expected a gzip file, but ${error.message}.`, {
      hint: 'The file may be incomplete or not compressed: download or write it again.',
      cause: error,
    });
  }
}

/**
 * The records of a file in order, those of about one megabyte at a time. Every byte is looked at once and copied at most
 * once, however long a record is.
 *
 * @param kind `lines` end at every line feed; `csv` records go on where a line feed stands between double quotes
 * @param mostBytes of one record
 * @throws DataError for a longer record, before it is in memory; as `textBytes`
 */
export async function* byteRecords(
  path: string,
  kind: 'lines' | 'csv',
  mostBytes = MOST_TEXT_BYTES,
): AsyncGenerator<RecordBatch> {
  /** Parts of the record whose end was not read yet. */
  let parts: Uint8Array[] = [];
  let partBytes = 0;
  let start = 0;
  let line = 1;
  /** Line feeds in the parts, all of them in quotes. */
  let lineFeeds = 0;
  let isQuoted = false;
  let allRead = 0;
  const addPart = (part: Uint8Array): void => {
    partBytes += part.length;
    if (partBytes > mostBytes) throw tooLong({ path, line, kind, mostBytes });
    parts.push(part);
  };
  const takeRecord = (): ByteRecord => {
    const record = { bytes: joined(parts), start, line };
    start += partBytes + 1;
    line += lineFeeds + 1;
    [parts, partBytes, lineFeeds] = [[], 0, 0];
    return record;
  };
  for await (const { chunk, bytesRead } of textBytes(path)) {
    const records: ByteRecord[] = [];
    let begin = 0;
    for (let seen = 0; seen < chunk.length;) {
      const found = chunk.indexOf(LINE_FEED, seen);
      const end = found === -1 ? chunk.length : found;
      if (kind === 'csv' && countQuotes(chunk, seen, end) % 2 === 1) isQuoted = !isQuoted;
      seen = end + 1;
      if (found === -1) break;
      if (isQuoted) {
        lineFeeds++;
        continue;
      }
      addPart(chunk.subarray(begin, end));
      records.push(takeRecord());
      begin = seen;
    }
    if (begin < chunk.length) addPart(chunk.subarray(begin));
    allRead = bytesRead;
    yield { records, bytesRead };
  }
  if (partBytes > 0) yield { records: [takeRecord()], bytesRead: allRead };
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const [only] = parts;
  return only !== undefined && parts.length === 1 ? only : Buffer.concat(parts);
}

function tooLong(at: {
  path: string;
  line: number;
  kind: 'lines' | 'csv';
  mostBytes: number;
}): DataError {
  const what = at.kind === 'csv' ? 'a record' : 'a line';
  return new DataError(
    `${at.path}:${at.line}:1: expected ${what} of at most ${at.mostBytes} bytes, received a longer one.`,
    {
      hint:
        at.kind === 'csv'
          ? 'A double quote that is not closed goes on to the next one. Else split the row.'
          : 'Every row stands on a line of its own: the file may have other line ends.',
    },
  );
}

function countQuotes(bytes: Uint8Array, from: number, to: number): number {
  // A search in all bytes would go on to the next quote, however far it is, for every line that has none.
  const line = bytes.subarray(from, to);
  let count = 0;
  for (let at = line.indexOf(QUOTE); at !== -1; at = line.indexOf(QUOTE, at + 1)) count++;
  return count;
}
