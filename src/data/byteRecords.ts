/** Cuts files of text into records without reading them as a whole. Knows line ends and quotes, not what they hold. */
import { createReadStream } from 'node:fs';

/** One line, or one record of a CSV file, without its line end. */
export interface ByteRecord {
  readonly bytes: Uint8Array;
  /** Offset of its first byte in the file. */
  readonly start: number;
  /** Line on which it begins, counted from 1. */
  readonly line: number;
}

const LINE_FEED = 0x0a;
const QUOTE = 0x22;
const CHUNK_BYTES = 2 ** 20;

/**
 * The records of a file in order, those of about one megabyte at a time.
 *
 * @param kind `lines` end at every line feed; `csv` records go on where a line feed stands between double quotes
 */
export async function* byteRecords(
  path: string,
  kind: 'lines' | 'csv',
): AsyncGenerator<readonly ByteRecord[]> {
  let rest: Uint8Array = new Uint8Array(0);
  let restStart = 0;
  let line = 1;
  /** Bytes of `rest` that were looked at, with the line feeds among them. */
  let seen = 0;
  let lineFeeds = 0;
  let isQuoted = false;
  for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES })) {
    const bytes = joined(rest, chunk as Uint8Array);
    const records: ByteRecord[] = [];
    let begin = 0;
    while (seen < bytes.length) {
      const found = bytes.indexOf(LINE_FEED, seen);
      const end = found === -1 ? bytes.length : found;
      if (kind === 'csv' && countQuotes(bytes, seen, end) % 2 === 1) isQuoted = !isQuoted;
      seen = Math.min(end + 1, bytes.length);
      if (found === -1) break;
      lineFeeds++;
      if (isQuoted) continue;
      records.push({ bytes: bytes.subarray(begin, end), start: restStart + begin, line });
      line += lineFeeds;
      lineFeeds = 0;
      begin = seen;
    }
    rest = bytes.subarray(begin);
    restStart += begin;
    seen -= begin;
    yield records;
  }
  if (rest.length > 0) yield [{ bytes: rest, start: restStart, line }];
}

function joined(rest: Uint8Array, chunk: Uint8Array): Uint8Array {
  return rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
}

function countQuotes(bytes: Uint8Array, from: number, to: number): number {
  // A search in all bytes would go on to the next quote, however far it is, for every line that has none.
  const line = bytes.subarray(from, to);
  let count = 0;
  for (let at = line.indexOf(QUOTE); at !== -1; at = line.indexOf(QUOTE, at + 1)) count++;
  return count;
}
