/**
 * Writes a Parquet file of texts, for measurements: required columns of UTF-8, values PLAIN, pages not compressed. Source:
 * the format's parquet.thrift, in Thrift's compact protocol. Knows one physical type, one page per column and group.
 */
import { writeFileSync } from 'node:fs';

const MAGIC = Buffer.from('PAR1');
/** Of parquet.thrift. */
const BYTE_ARRAY = 6;
const REQUIRED = 0;
const UTF8 = 0;
const PLAIN = 0;
const RLE = 3;
const UNCOMPRESSED = 0;
const DATA_PAGE = 0;
/** Of Thrift's compact protocol. */
const I32 = 5;
const I64 = 6;
const BINARY = 8;
const LIST = 9;
const STRUCT = 12;

type Field = readonly [id: number, type: number, bytes: Buffer];

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

/** Counts are never negative, so that zigzag is a doubling. */
const integer = (value: number): Buffer => varint(2 * value);
const i32 = (id: number, value: number): Field => [id, I32, integer(value)];
const i64 = (id: number, value: number): Field => [id, I64, integer(value)];
const bytesOf = (text: string): Buffer => {
  const bytes = Buffer.from(text);
  return Buffer.concat([varint(bytes.length), bytes]);
};
const list = (id: number, type: number, items: readonly Buffer[]): Field => [
  id,
  LIST,
  Buffer.concat([
    items.length < 15
      ? Buffer.from([(items.length << 4) | type])
      : Buffer.concat([Buffer.from([0xf0 | type]), varint(items.length)]),
    ...items,
  ]),
];

/** Fields by rising id, none more than 15 behind the one before. */
function struct(...fields: readonly Field[]): Buffer {
  let last = 0;
  const parts = fields.flatMap(([id, type, bytes]) => {
    const header = Buffer.from([((id - last) << 4) | type]);
    last = id;
    return [header, bytes];
  });
  return Buffer.concat([...parts, Buffer.from([0])]);
}

/**
 * @param columns one list of texts for each name, all equally long
 * @param groupRows rows of a row group; the last one may have fewer
 */
export function writeParquet(
  path: string,
  columns: Readonly<Record<string, readonly string[]>>,
  groupRows: number,
): void {
  const names = Object.keys(columns);
  const rowCount = names.length === 0 ? 0 : (columns[names[0] ?? '']?.length ?? 0);
  const parts: Buffer[] = [MAGIC];
  let offset = MAGIC.length;
  const groups: Buffer[] = [];
  for (let from = 0; from < rowCount; from += groupRows) {
    let groupBytes = 0;
    const chunks = names.map((name) => {
      const texts = columns[name]?.slice(from, from + groupRows) ?? [];
      const { page, start } = { page: pageOf(texts), start: offset };
      parts.push(page);
      offset += page.length;
      groupBytes += page.length;
      const metadata = struct(
        ...[i32(1, BYTE_ARRAY), list(2, I32, [integer(PLAIN)])],
        list(3, BINARY, [bytesOf(name)]),
        ...[i32(4, UNCOMPRESSED), i64(5, texts.length)],
        ...[i64(6, page.length), i64(7, page.length), i64(9, start)],
      );
      return struct(i64(2, start), [3, STRUCT, metadata]);
    });
    const rows = Math.min(groupRows, rowCount - from);
    groups.push(struct(list(1, STRUCT, chunks), i64(2, groupBytes), i64(3, rows)));
  }
  const root = struct([4, BINARY, bytesOf('schema')], i32(5, names.length));
  const schema = names.map((name) =>
    struct(i32(1, BYTE_ARRAY), i32(3, REQUIRED), [4, BINARY, bytesOf(name)], i32(6, UTF8)),
  );
  const footer = struct(
    i32(1, 1),
    list(2, STRUCT, [root, ...schema]),
    i64(3, rowCount),
    list(4, STRUCT, groups),
  );
  const size = Buffer.alloc(4);
  size.writeUInt32LE(footer.length);
  writeFileSync(path, Buffer.concat([...parts, footer, size, MAGIC]));
}

/** A page of values, each after its length. */
function pageOf(texts: readonly string[]): Buffer {
  const values = Buffer.concat(
    texts.flatMap((text) => {
      const bytes = Buffer.from(text);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes.length);
      return [length, bytes];
    }),
  );
  const data = struct(i32(1, texts.length), i32(2, PLAIN), i32(3, RLE), i32(4, RLE));
  const { length } = values;
  const header = struct(i32(1, DATA_PAGE), i32(2, length), i32(3, length), [5, STRUCT, data]);
  return Buffer.concat([header, values]);
}
