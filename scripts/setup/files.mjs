/**
 * Reading, hashing, replacing and cleaning up files. Every file that another process may read is written under a
 * temporary name and renamed, so that a reader never sees half of it.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';

/**
 * @param {string} path
 * @returns {import('node:fs').Stats | undefined} Undefined when nothing is there.
 */
export function statOf(path) {
  return statSync(path, { throwIfNoEntry: false });
}

/**
 * @param {string} path
 * @returns {any} The parsed file, or undefined when it is missing or torn.
 */
export function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * @param {string} path
 * @returns {string | undefined} Undefined when the file is missing.
 */
export function readText(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/**
 * Writes a file that is either the old one or the whole new one.
 * @param {string} path
 * @param {string} text
 */
export function writeAtomic(path, text) {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = temporaryName(path);
  writeFileSync(temporary, text);
  renameSync(temporary, path);
}

/**
 * @param {...(string | Buffer)} parts
 * @returns {string} sha256 in hex; parts are kept apart, so that ('ab','c') and ('a','bc') differ.
 */
export function hashOf(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.length}:`).update(part);
  return hash.digest('hex');
}

/**
 * A name in the same folder (so that renaming is atomic) that says which process of which machine made it.
 * @param {string} path
 * @returns {string}
 */
export function temporaryName(path) {
  const owner = `${hostname().replaceAll(/[^\w-]/g, '_')}.${process.pid}`;
  return join(dirname(path), `${basename(path)}.tmp.${owner}.${randomBytes(4).toString('hex')}`);
}

/**
 * Removes what killed processes of this machine left beside `path` under names of `temporaryName`.
 * @param {string} path
 */
export function removeAbandoned(path) {
  const own = hostname().replaceAll(/[^\w-]/g, '_');
  for (const name of listing(dirname(path))) {
    const [, host, pid] = name.match(/\.tmp\.([\w-]+)\.(\d+)\.[0-9a-f]{8}$/) ?? [];
    if (!name.startsWith(`${basename(path)}.tmp.`) || host !== own) continue;
    if (!isAlive(Number(pid))) rmSync(join(dirname(path), name), { recursive: true, force: true });
  }
}

/**
 * @param {number} pid A process of this machine.
 * @returns {boolean}
 */
export function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/**
 * @param {string} folder
 * @returns {string[]} Sorted names; empty when the folder is missing.
 */
export function listing(folder) {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

/**
 * Files below a folder, as paths relative to it with `/`, sorted. Skips `node_modules` and hidden folders.
 * @param {string} folder
 * @param {(name: string) => boolean} wanted
 * @returns {string[]}
 */
export function filesBelow(folder, wanted) {
  /** @type {string[]} */
  const found = [];
  /** @param {string} below */
  const walk = (below) => {
    let entries;
    try {
      entries = readdirSync(join(folder, below), { withFileTypes: true });
    } catch {
      return;
    }
    for (const entry of entries) {
      const path = below === '' ? entry.name : `${below}/${entry.name}`;
      if (entry.isDirectory()) {
        if (entry.name !== 'node_modules' && !entry.name.startsWith('.')) walk(path);
      } else if (wanted(entry.name)) found.push(path);
    }
  };
  walk('');
  return found.sort();
}

/** @type {Set<string>} Paths to remove if the process ends before they get their final name. */
const unfinished = new Set();
let cleaningAtExit = false;

/**
 * Runs `body` with a temporary path beside `path` and removes whatever is left there afterwards, on success, failure
 * and when the process is interrupted.
 * @template T
 * @param {string} path
 * @param {(temporary: string) => Promise<T>} body
 * @returns {Promise<T>}
 */
export async function withTemporary(path, body) {
  mkdirSync(dirname(path), { recursive: true });
  removeAbandoned(path);
  if (!cleaningAtExit) {
    cleaningAtExit = true;
    process.on('exit', () => {
      for (const left of unfinished) rmSync(left, { recursive: true, force: true });
    });
  }
  const temporary = temporaryName(path);
  unfinished.add(temporary);
  try {
    return await body(temporary);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
    unfinished.delete(temporary);
  }
}
