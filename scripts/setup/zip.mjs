/**
 * Unpacks chosen files of a zip archive (a Python wheel is one). Knows stored and deflated entries; refuses everything
 * that a wheel does not need: encryption, zip64, links, and names that lead out of the target folder.
 */
import { createReadStream, createWriteStream, mkdirSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import zlib from 'node:zlib';
import { SetupError } from './report.mjs';

/**
 * @typedef {object} ZipEntry
 * @property {string} name Path with `/`; checked not to lead out of the archive.
 * @property {number} method 0 stored, 8 deflated.
 * @property {number} crc32
 * @property {number} compressedSize
 * @property {number} size Bytes after unpacking.
 * @property {number} headerOffset
 * @property {number} mode Unix permissions, 0 when the archive tells none.
 */

const END_OF_DIRECTORY = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const LOCAL_HEADER = 0x04034b50;
const END_SIZE = 22;
const LOCAL_HEADER_SIZE = 30;
const MAX_COMMENT = 0xffff;
/** Entries up to this size are unpacked in memory. */
const WHOLE_BYTES = 2 ** 20;
const UNIX_LINK = 0o120000;
const UNIX_TYPE = 0o170000;

/** @param {string} archive @param {string} why @returns {SetupError} */
const damaged = (archive, why) => new SetupError(`${archive} is not a sound zip archive: ${why}.`);

/**
 * The central directory of an archive.
 * @param {string} archive
 * @returns {Promise<ZipEntry[]>}
 */
export async function listZip(archive) {
  const file = await open(archive, 'r');
  try {
    const { size } = await file.stat();
    const tail = Buffer.alloc(Math.min(size, END_SIZE + MAX_COMMENT));
    await file.read(tail, 0, tail.length, size - tail.length);
    let end = tail.length - END_SIZE;
    while (end >= 0 && tail.readUInt32LE(end) !== END_OF_DIRECTORY) end -= 1;
    if (end < 0) throw damaged(archive, 'its directory is missing (the file is cut short)');
    const count = tail.readUInt16LE(end + 10);
    const length = tail.readUInt32LE(end + 12);
    const offset = tail.readUInt32LE(end + 16);
    if (count === 0xffff || offset === 0xffffffff) throw damaged(archive, 'zip64 is not supported');
    if (offset + length > size - tail.length + end)
      throw damaged(archive, 'its directory lies outside the file');
    const directory = Buffer.alloc(length);
    await file.read(directory, 0, length, offset);
    return readDirectory(archive, directory, count);
  } finally {
    await file.close();
  }
}

/** @param {string} archive @param {Buffer} directory @param {number} count @returns {ZipEntry[]} */
function readDirectory(archive, directory, count) {
  /** @type {ZipEntry[]} */
  const entries = [];
  let at = 0;
  for (let i = 0; i < count; i += 1) {
    if (at + 46 > directory.length || directory.readUInt32LE(at) !== DIRECTORY_ENTRY)
      throw damaged(archive, `entry ${i} of its directory is broken`);
    const nameEnd = at + 46 + directory.readUInt16LE(at + 28);
    const name = directory.toString('utf8', at + 46, nameEnd);
    const mode = directory.readUInt16LE(at + 40);
    if ((directory.readUInt16LE(at + 8) & 1) !== 0) throw damaged(archive, `${name} is encrypted`);
    if (!isSafeName(name) || (mode & UNIX_TYPE) === UNIX_LINK)
      throw damaged(archive, `the entry ${JSON.stringify(name)} leads out of the archive`);
    entries.push({
      name,
      mode: mode & 0o777,
      method: directory.readUInt16LE(at + 10),
      crc32: directory.readUInt32LE(at + 16),
      compressedSize: directory.readUInt32LE(at + 20),
      size: directory.readUInt32LE(at + 24),
      headerOffset: directory.readUInt32LE(at + 42),
    });
    at = nameEnd + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
  }
  return entries;
}

/** @param {string} name @returns {boolean} */
function isSafeName(name) {
  if (name === '' || name.startsWith('/') || /[\\\0]|^[A-Za-z]:/.test(name)) return false;
  return !name.split('/').includes('..');
}

/**
 * Unpacks the files for which `wanted` gives a path (relative to `target`), and checks the size and CRC-32 of each.
 * @param {string} archive
 * @param {string} target An existing or new folder; no file in it is overwritten.
 * @param {(name: string) => string | undefined} wanted
 * @returns {Promise<{ files: number, bytes: number }>}
 */
export async function unpackZip(archive, target, wanted) {
  const entries = await listZip(archive);
  const file = await open(archive, 'r');
  const unpacked = { files: 0, bytes: 0 };
  try {
    const folders = new Set();
    for (const entry of entries) {
      const path = entry.name.endsWith('/') ? undefined : wanted(entry.name);
      if (path === undefined) continue;
      const destination = join(target, path);
      if (!folders.has(dirname(destination))) {
        mkdirSync(dirname(destination), { recursive: true });
        folders.add(dirname(destination));
      }
      await unpackEntry(archive, file, entry, destination);
      unpacked.files += 1;
      unpacked.bytes += entry.size;
    }
  } finally {
    await file.close();
  }
  return unpacked;
}

/**
 * @param {string} archive
 * @param {import('node:fs/promises').FileHandle} file
 * @param {ZipEntry} entry
 * @param {string} destination
 */
async function unpackEntry(archive, file, entry, destination) {
  const header = Buffer.alloc(LOCAL_HEADER_SIZE);
  await file.read(header, 0, LOCAL_HEADER_SIZE, entry.headerOffset);
  if (header.readUInt32LE(0) !== LOCAL_HEADER)
    throw damaged(archive, `${entry.name} does not begin where the directory says`);
  if (entry.method !== 0 && entry.method !== 8)
    throw damaged(archive, `${entry.name} uses compression method ${entry.method}`);
  const start =
    entry.headerOffset + LOCAL_HEADER_SIZE + header.readUInt16LE(26) + header.readUInt16LE(28);
  const mode = (entry.mode & 0o111) === 0 ? 0o644 : 0o755;
  const sum =
    Math.max(entry.size, entry.compressedSize) <= WHOLE_BYTES
      ? await unpackWhole(file, entry, start, destination, mode)
      : await unpackStream(archive, entry, start, destination, mode);
  if (sum.size !== entry.size) throw damaged(archive, `${entry.name} has not the size it says`);
  if (sum.crc !== entry.crc32) throw damaged(archive, `${entry.name} has a wrong checksum`);
}

/** @typedef {{ size: number, crc: number }} Sum What was unpacked, to be compared with what the directory says. */

/**
 * Thousands of small headers: one read and one write each.
 * @param {import('node:fs/promises').FileHandle} file
 * @param {ZipEntry} entry
 * @param {number} start
 * @param {string} destination
 * @param {number} mode
 * @returns {Promise<Sum>}
 */
async function unpackWhole(file, entry, start, destination, mode) {
  const packed = Buffer.alloc(entry.compressedSize);
  const { bytesRead } = await file.read(packed, 0, packed.length, start);
  if (bytesRead !== packed.length) return { size: -1, crc: 0 };
  let bytes = packed;
  if (entry.method === 8) {
    try {
      bytes = zlib.inflateRawSync(packed, { maxOutputLength: entry.size + 1 });
    } catch {
      return { size: -1, crc: 0 };
    }
  }
  writeFileSync(destination, bytes, { flag: 'wx', mode });
  return { size: bytes.length, crc: crc32(bytes) };
}

/**
 * The libraries: up to half a gigabyte, never whole in memory.
 * @param {string} archive
 * @param {ZipEntry} entry
 * @param {number} start
 * @param {string} destination
 * @param {number} mode
 * @returns {Promise<Sum>}
 */
async function unpackStream(archive, entry, start, destination, mode) {
  const sum = { size: 0, crc: 0 };
  const check = new Transform({
    transform(/** @type {Buffer} */ chunk, _encoding, done) {
      sum.size += chunk.length;
      sum.crc = crc32(chunk, sum.crc);
      // A declared size is a promise: an archive that unpacks to more would fill the disk.
      if (sum.size > entry.size) done(damaged(archive, `${entry.name} has not the size it says`));
      else done(null, chunk);
    },
  });
  const input = createReadStream(archive, { start, end: start + entry.compressedSize - 1 });
  const output = createWriteStream(destination, { flags: 'wx', mode });
  try {
    if (entry.method === 8) await pipeline(input, zlib.createInflateRaw(), check, output);
    else await pipeline(input, check, output);
  } catch (error) {
    if (error instanceof Error && 'code' in error && String(error.code).startsWith('Z_'))
      throw damaged(archive, `${entry.name} does not unpack (${error.message})`);
    throw error;
  }
  return sum;
}

/** @type {Uint32Array | undefined} */
let table;

/**
 * CRC-32 as zip uses it. Node has its own only from 20.15 on.
 * @param {Buffer} bytes
 * @param {number} [start] The checksum of what came before.
 * @returns {number}
 */
export function crc32(bytes, start = 0) {
  if ('crc32' in zlib && typeof zlib.crc32 === 'function') return zlib.crc32(bytes, start);
  table ??= Uint32Array.from({ length: 256 }, (_, n) => {
    let c = n;
    for (let bit = 0; bit < 8; bit += 1) c = (c & 1) === 0 ? c >>> 1 : (c >>> 1) ^ 0xedb88320;
    return c;
  });
  let crc = ~start;
  for (let i = 0; i < bytes.length; i += 1)
    crc =
      /** @type {number} */ (table[(crc ^ /** @type {number} */ (bytes[i])) & 0xff]) ^ (crc >>> 8);
  return ~crc >>> 0;
}
