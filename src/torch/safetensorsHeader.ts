/**
 * The header of a safetensors file: eight bytes of length, then JSON that says where each tensor lies. Knows the format
 * and trusts nothing in it; knows no tensors.
 *
 * Source: https://huggingface.co/docs/safetensors (format), with its rules on order, gaps and sizes.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { CheckpointError, IoError } from '../errors/index.js';
import { DTYPE_BYTES, type Dtype } from './dtype.js';

/** The largest header that the format allows, in bytes. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Where one tensor lies. */
export interface TensorEntry {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly start: number;
  readonly bytes: number;
}

/** What a header says. */
export interface SafetensorsHeader {
  /** Entries in the order in which they lie in the file. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly fileBytes: number;
  /** Which file it was, and in which state: see `stateOf`. */
  readonly state: string;
}

/** What the text begins with that stands for a large file in a clone without Git LFS: `version https://git-lfs…`. */
const LFS_POINTER = 'version ';

/** The format's names of the element types that posttrain has. */
const DTYPES: Readonly<Record<string, Dtype>> = {
  F64: 'float64',
  F32: 'float32',
  BF16: 'bfloat16',
  F16: 'float16',
  I64: 'int64',
  I32: 'int32',
  U8: 'uint8',
  BOOL: 'bool',
  C64: 'complex64',
};

/**
 * The types in the order in which the reference implementation writes them, widest alignment first. A file of ours is
 * then byte for byte the one that it would write.
 */
const WRITE_ORDER = ['I64', 'F64', 'C64', 'F32', 'I32', 'BF16', 'F16', 'U8', 'BOOL'] as const;
const RANKS = new Map<Dtype, number>(
  WRITE_ORDER.map((name, rank) => [DTYPES[name] ?? 'uint8', rank]),
);
const NAMES = new Map<Dtype, string>(
  Object.entries(DTYPES).map(([name, dtype]) => [dtype, name] as const),
);

/** Tells an opened file from another one of its name, and from itself after it was written to. */
export function stateOf(file: number): string {
  const { ino, mtimeMs, size } = fstatSync(file);
  return `${ino} ${mtimeMs} ${size}`;
}

/**
 * Reads and checks the header of a file. Every claim in it is checked against the file's true size before anything of
 * that size is allocated.
 *
 * @throws CheckpointError naming file and tensor for anything that breaks the format; IoError when the file cannot be read
 */
export function readHeader(path: string): SafetensorsHeader {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (cause) {
    throw new IoError(`readSafetensors: ${path} cannot be opened: ${reasonOf(cause)}`, { cause });
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) throw torn(path, 'expected a file, found something else');
    const length = headerLength(path, stat.size, readExactly(file, path, 0, 8));
    const text = decode(path, readExactly(file, path, 8, length));
    const { size } = stat;
    return { ...parseHeader(path, text, 8 + length, size), fileBytes: size, state: stateOf(file) };
  } finally {
    closeSync(file);
  }
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function torn(
  path: string,
  what: string,
  hint = 'The file may be cut off or damaged; fetch or save it again.',
): CheckpointError {
  return new CheckpointError(`readSafetensors: ${path} is not a valid safetensors file: ${what}.`, {
    hint,
  });
}

function readExactly(file: number, path: string, position: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  let done = 0;
  while (done < bytes) {
    let count: number;
    try {
      count = readSync(file, buffer, done, bytes - done, position + done);
    } catch (cause) {
      throw new IoError(`readSafetensors: ${path} cannot be read: ${reasonOf(cause)}`, { cause });
    }
    if (count === 0)
      throw torn(path, `expected ${bytes} bytes at ${position}, the file ends earlier`);
    done += count;
  }
  return buffer;
}

function headerLength(path: string, fileBytes: number, prefix: Buffer): number {
  if (prefix.toString('latin1') === LFS_POINTER)
    throw torn(
      path,
      'it is a pointer of Git LFS',
      'Fetch the weights themselves: git lfs pull in the folder of the model, or name the model as org/name.',
    );
  const length = prefix.readBigUInt64LE(0);
  if (length > BigInt(MAX_HEADER_BYTES))
    throw torn(path, `expected a header of at most ${MAX_HEADER_BYTES} bytes, it claims ${length}`);
  if (Number(length) + 8 > fileBytes)
    throw torn(path, `its header claims ${length} bytes, the file has ${fileBytes}`);
  if (length < 2n) throw torn(path, `its header of ${length} bytes is too short`);
  return Number(length);
}

function decode(path: string, bytes: Buffer): string {
  if (bytes[0] !== 0x7b) throw torn(path, 'its header does not begin with "{"');
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw torn(path, 'its header is not UTF-8');
  }
}

function parseHeader(
  path: string,
  text: string,
  dataStart: number,
  fileBytes: number,
): Omit<SafetensorsHeader, 'fileBytes' | 'state'> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw torn(path, `its header is not JSON (${reasonOf(cause)})`);
  }
  if (!isRecord(json)) throw torn(path, 'its header is not an object');
  const twice = repeatedKey(text);
  if (twice !== undefined) throw torn(path, `its header has ${twice} twice in one object`);
  let metadata: Record<string, string> = {};
  const entries: [string, TensorEntry][] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') metadata = parseMetadata(path, value);
    else entries.push([name, parseEntry(path, name, value, dataStart)]);
  }
  entries.sort(([, a], [, b]) => a.start - b.start || a.bytes - b.bytes);
  let end = dataStart;
  for (const [name, { start, bytes }] of entries) {
    if (start !== end) {
      const what = start < end ? 'overlaps the one before it' : 'leaves a gap before it';
      throw torn(path, `tensor ${JSON.stringify(name)} ${what}`);
    }
    end = start + bytes;
  }
  if (end !== fileBytes)
    throw torn(path, `its tensors end at byte ${end}, the file has ${fileBytes} bytes`);
  return { entries: new Map(entries), metadata };
}

/**
 * A key that stands twice in one object of valid JSON, as it is written there. `JSON.parse` takes the last of them and
 * other readers the first: one file would be two models.
 */
function repeatedKey(json: string): string | undefined {
  const objects: (Set<string> | null)[] = []; // those that are open; null stands for a list
  let text = '';
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]:]/g)) {
    if (token === '{') objects.push(new Set());
    else if (token === '[') objects.push(null);
    else if (token === '}' || token === ']') objects.pop();
    else if (token !== ':') text = token;
    else {
      const keys = objects.at(-1);
      const key: unknown = JSON.parse(text);
      if (typeof key !== 'string' || !keys) continue;
      if (keys.has(key)) return text;
      keys.add(key);
    }
  }
  return undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseMetadata(path: string, value: unknown): Record<string, string> {
  if (!isRecord(value) || Object.values(value).some((text) => typeof text !== 'string'))
    throw torn(path, 'its __metadata__ is not an object of strings');
  return value as Record<string, string>;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function parseEntry(path: string, name: string, value: unknown, dataStart: number): TensorEntry {
  const fail = (what: string): CheckpointError =>
    torn(path, `tensor ${JSON.stringify(name)} ${what}`);
  if (!isRecord(value)) throw fail('is not described by an object');
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  if (typeof dtypeName !== 'string') throw fail('has no dtype');
  const dtype = Object.hasOwn(DTYPES, dtypeName) ? DTYPES[dtypeName] : undefined;
  if (dtype === undefined)
    throw torn(
      path,
      `tensor ${JSON.stringify(name)} has the dtype ${JSON.stringify(dtypeName)}; posttrain reads ${Object.keys(DTYPES).join(', ')}`,
      'Quantised weights are not read: fetch them in bfloat16, float16 or float32.',
    );
  if (!Array.isArray(shape) || !shape.every(isCount))
    throw fail('has a shape that is not a list of integers ≥ 0');
  // Zeros count as ones here, so that no stride of an empty tensor can overflow either.
  if (!Number.isSafeInteger(shape.reduce((product, size) => product * Math.max(size, 1), 16)))
    throw fail('has a shape with more elements than can be counted');
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    throw fail('has data_offsets that are not two integers ≥ 0');
  const [begin, end] = offsets as [number, number];
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
  if (end - begin !== bytes)
    throw fail(`spans ${end - begin} bytes, its shape and dtype need ${bytes}`);
  return { dtype, shape, start: dataStart + begin, bytes };
}

/** A tensor to be written. */
export interface TensorPlan {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

/**
 * The bytes that stand before the data, and the tensors in the order in which they follow. The order is the reference
 * implementation's (alignment falling, then names), so the same tensors always give the same file.
 *
 * @throws CheckpointError for a dtype or a name that the format does not have
 */
export function makeHeader(
  plans: readonly TensorPlan[],
  metadata: Readonly<Record<string, string>>,
): { bytes: Buffer; ordered: readonly TensorPlan[] } {
  const ordered = plans.toSorted(
    (a, b) =>
      (RANKS.get(a.dtype) ?? 0) - (RANKS.get(b.dtype) ?? 0) ||
      Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)),
  );
  const fields = [`"__metadata__":${JSON.stringify(metadata)}`];
  let offset = 0;
  for (const { name, dtype, shape } of ordered) {
    const code = NAMES.get(dtype);
    if (code === undefined || name === '__metadata__')
      throw new CheckpointError(
        `writeSafetensors: tensor ${JSON.stringify(name)} of dtype ${dtype} cannot be written in this format.`,
      );
    const end = offset + shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
    const entry = { dtype: code, shape, data_offsets: [offset, end] };
    fields.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
    offset = end;
  }
  const json = Buffer.from(`{${fields.join(',')}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  const bytes = Buffer.alloc(8 + padded, ' ');
  bytes.writeBigUInt64LE(BigInt(padded), 0);
  json.copy(bytes, 8);
  return { bytes, ordered };
}
