/**
 * Run folders below the folders that are watched, and their files. The only place that opens files of runs: what it
 * opens lies inside of a watched folder, has one of the names below and is a plain file. A run folder may come from a
 * stranger, so no link is followed and nothing that a file says is used as a path.
 */
import { constants } from 'node:fs';
import { lstat, open, opendir, realpath, type FileHandle } from 'node:fs/promises';
import { basename, join, sep } from 'node:path';
import { createHash } from 'node:crypto';
import { IoError, UsageError } from '../errors/index.js';

/** Files of a run folder that are read. Segments of samples (`samples-000001.jsonl`) beside them. */
export const RUN_FILES = [
  'config.json',
  'status.json',
  'metrics.jsonl',
  'samples.jsonl',
  'log.txt',
] as const;

/** One of the names, or that of a segment of samples. */
export type RunFileName = (typeof RUN_FILES)[number] | `samples-${number}.jsonl`;

const SEGMENT = /^samples-\d{6}\.jsonl$/;
/** Folders inside of a run that hold no runs. */
const NOT_SEARCHED = new Set(['checkpoints', 'model', 'inputs', 'node_modules', 'dist']);
/** A run of a pipeline lies three folders deep; more is a mistake, such as the folder of all projects. */
const MAX_DEPTH = 6;
/** Folders and entries looked at in one search. */
const MAX_ENTRIES = 50_000;

/** A folder whose runs are shown. */
export interface WatchedFolder {
  /** As it was given. */
  readonly given: string;
  /** Absolute, without links. */
  readonly path: string;
}

/** Where a run lies. */
export interface RunPlace {
  /** Letters and digits. */
  readonly id: string;
  readonly watched: WatchedFolder;
  /** Names of folders below the watched one; none for the watched folder itself. */
  readonly parts: readonly string[];
}

/** What a search found. */
export interface FoundRuns {
  readonly places: readonly RunPlace[];
  readonly unreadable: readonly { readonly name: string; readonly reason: string }[];
}

/**
 * The folders as they are on the disk, each once.
 *
 * @throws UsageError for one that does not exist or is no folder
 */
export async function watchFolders(given: readonly string[]): Promise<WatchedFolder[]> {
  const found = new Map<string, WatchedFolder>();
  for (const name of given) {
    try {
      const path = await realpath(name);
      if (!(await lstat(path)).isDirectory()) throw notAFolder(name, 'something else');
      if (!found.has(path)) found.set(path, { given: name, path });
    } catch (error) {
      if (error instanceof UsageError) throw error;
      throw notAFolder(name, 'nothing there');
    }
  }
  return [...found.values()];
}

function notAFolder(name: string, received: string): UsageError {
  return new UsageError(
    `dashboard: expected a folder of runs at ${JSON.stringify(name)}, found ${received}.`,
    { hint: 'Give the --out folder of a run, or a folder that holds some.' },
  );
}

/** The name of a run for people: its folder below the watched one. */
export function nameOfPlace({ watched, parts }: RunPlace): string {
  return parts.length === 0 ? basename(watched.path) : parts.join('/');
}

/** Searches for run folders: those with a config.json. Links are not followed. */
export async function findRuns(folders: readonly WatchedFolder[]): Promise<FoundRuns> {
  const places: RunPlace[] = [];
  const unreadable: { name: string; reason: string }[] = [];
  for (const watched of folders) {
    const budget = { entries: MAX_ENTRIES };
    await search(watched, [], { places, unreadable, budget });
    if (budget.entries <= 0) {
      const reason = `it holds more than ${MAX_ENTRIES} entries; the rest was not searched`;
      unreadable.push({ name: watched.given, reason });
    }
  }
  return { places, unreadable };
}

async function search(
  watched: WatchedFolder,
  parts: readonly string[],
  found: {
    places: RunPlace[];
    unreadable: { name: string; reason: string }[];
    budget: { entries: number };
  },
): Promise<void> {
  const folders: string[] = [];
  let isRun = false;
  try {
    for await (const entry of await opendir(join(watched.path, ...parts))) {
      if (--found.budget.entries < 0) break;
      if (entry.name === 'config.json' && entry.isFile()) isRun = true;
      if (entry.isDirectory() && !entry.name.startsWith('.') && !NOT_SEARCHED.has(entry.name))
        folders.push(entry.name);
      if (entry.isSymbolicLink() && (entry.name === 'config.json' || parts.length === 0)) {
        const name = [...parts, entry.name].join('/');
        found.unreadable.push({ name, reason: 'it is a link; links are not followed' });
      }
    }
  } catch (error) {
    // Gone in the meantime, or not for us to read.
    if (codeOf(error) !== 'ENOENT')
      found.unreadable.push({ name: parts.join('/'), reason: codeOf(error) ?? 'unknown' });
    return;
  }
  if (isRun) found.places.push({ id: idOf(watched, parts), watched, parts });
  if (parts.length >= MAX_DEPTH) return;
  for (const name of folders.sort()) await search(watched, [...parts, name], found);
}

/** Not the path itself: an id that is never taken apart cannot lead anywhere else. */
function idOf(watched: WatchedFolder, parts: readonly string[]): string {
  const path = join(watched.path, ...parts);
  return createHash('sha256').update(path).digest('hex').slice(0, 16);
}

/**
 * Opens a file of a run for reading.
 *
 * @returns undefined where there is none
 * @throws IoError where it is a link, a device or anything but a plain file inside of the run's folder
 */
export async function openRunFile(
  { watched, parts }: RunPlace,
  name: RunFileName,
): Promise<FileHandle | undefined> {
  const path = join(watched.path, ...parts, name);
  if (!(RUN_FILES as readonly string[]).includes(name) && !SEGMENT.test(name))
    throw refused(path, 'a file that runs do not have');
  let handle: FileHandle;
  try {
    // Not blocking: opening a pipe would wait for its writer.
    handle = await open(
      path,
      constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0),
    );
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw refused(path, code === 'ELOOP' ? 'a link' : `an error (${code ?? 'unknown'})`);
  }
  try {
    const [opened, real] = await Promise.all([handle.stat(), realpath(path)]);
    const lies = await lstat(real);
    if (!opened.isFile()) throw refused(path, 'no plain file');
    // A folder on the way may have become a link; what was opened must be what lies at the path without links.
    if (real !== path || !real.startsWith(watched.path + sep))
      throw refused(path, 'one that lies elsewhere');
    if (lies.ino !== opened.ino || lies.dev !== opened.dev) throw refused(path, 'another file');
    return handle;
  } catch (error) {
    await handle.close();
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * The whole text of a small file of a run.
 *
 * @returns undefined where there is none
 * @throws IoError where it is larger than `maxBytes`, or as `openRunFile`
 */
export async function readRunFile(
  place: RunPlace,
  name: RunFileName,
  maxBytes: number,
): Promise<string | undefined> {
  const handle = await openRunFile(place, name);
  if (handle === undefined) return undefined;
  try {
    const { size } = await handle.stat();
    if (size > maxBytes)
      throw new IoError(`${name}: expected at most ${maxBytes} bytes, found ${size}.`);
    const bytes = Buffer.alloc(size);
    const { bytesRead } = await handle.read(bytes, 0, size, 0);
    return bytes.toString('utf8', 0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** The last bytes of a file of a run, from the beginning of a line; empty where there is none. */
export async function readRunFileEnd(
  place: RunPlace,
  name: RunFileName,
  maxBytes: number,
): Promise<{ text: string; truncated: boolean }> {
  const handle = await openRunFile(place, name);
  if (handle === undefined) return { text: '', truncated: false };
  try {
    const { size } = await handle.stat();
    const start = Math.max(0, size - maxBytes);
    const bytes = Buffer.alloc(size - start);
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, start);
    const from = start === 0 ? 0 : bytes.indexOf(0x0a) + 1;
    return { text: bytes.toString('utf8', from, bytesRead), truncated: start > 0 };
  } finally {
    await handle.close();
  }
}

/** Segments of samples that were put aside, oldest first, and names of the checkpoints. */
export async function listRunFolder(
  { watched, parts }: RunPlace,
  folder: 'segments' | 'checkpoints',
): Promise<string[]> {
  const path = join(watched.path, ...parts, ...(folder === 'checkpoints' ? ['checkpoints'] : []));
  const wanted = folder === 'checkpoints' ? /^step-\d{1,12}$/ : SEGMENT;
  const names: string[] = [];
  try {
    if ((await realpath(path)) !== path) return [];
    for await (const entry of await opendir(path)) {
      if (wanted.test(entry.name) && !entry.isSymbolicLink()) names.push(entry.name);
      if (names.length >= 10_000) break;
    }
  } catch {
    return []; // gone, or none yet
  }
  return names.sort((a, b) => Number(/\d+/.exec(a)?.[0]) - Number(/\d+/.exec(b)?.[0]));
}

function refused(path: string, received: string): IoError {
  return new IoError(`${path}: expected a plain file of a run, found ${received}.`);
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : undefined;
}
