/** Writing files so that a crash never leaves half of one where a whole one is expected. Knows no runs. */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { IoError, PosttrainError } from '../errors/index.js';

const ADVICE: Readonly<Record<string, string>> = {
  ENOSPC: 'Free some space on the disk, then go on with --resume.',
  EDQUOT: 'Free some of the quota, then go on with --resume.',
  EACCES: 'Choose a folder that may be written, or change its permissions.',
  EPERM: 'Choose a folder that may be written, or change its permissions.',
  ENOTDIR: 'There is a file where a folder is needed: choose another folder.',
  EROFS: 'Choose a folder on a disk that may be written.',
};

/** The system's code of an error (`ENOSPC`), if it has one. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : undefined;
}

/** An error of the file system as an IoError with advice; errors of posttrain, and anything else, as they are. */
export function asIoError(error: unknown, doing: string): unknown {
  const code = systemCode(error);
  if (error instanceof PosttrainError || code === undefined || !(error instanceof Error))
    return error;
  const reason = code === 'ENOSPC' ? 'the disk is full' : error.message;
  return new IoError(`${doing}: ${reason}.`, { hint: ADVICE[code], cause: error });
}

/**
 * Writes a file that appears whole or not at all.
 *
 * @throws IoError if it cannot be written
 */
export function replaceFile(path: string, text: string): void {
  const temporary = `${path}.tmp-${randomBytes(4).toString('hex')}`;
  try {
    writeFileSync(temporary, text, { flush: true });
    renameSync(temporary, path);
  } catch (error) {
    try {
      rmSync(temporary, { force: true });
    } catch {
      // What made writing fail may make this fail too; the first error says more.
    }
    throw asIoError(error, `Writing ${path}`);
  }
}

/**
 * Writes into a file that is there, where a new one has no room: what it has on the disk may hold the text. A crash in the
 * middle leaves half of it.
 *
 * @throws IoError if it cannot be written
 */
export function overwriteFile(path: string, text: string): void {
  try {
    const file = openSync(path, 'r+');
    try {
      writeFileSync(file, text, { flush: true });
      ftruncateSync(file, Buffer.byteLength(text));
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw asIoError(error, `Writing ${path}`);
  }
}

/** Waits until a folder, everything in it and its entries are on the disk. */
export async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else await syncPath(path);
  }
  await syncPath(folder);
}

/** Waits until one file, or the entries of one folder, are on the disk. */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } catch (error) {
    // Some file systems cannot sync folders; nothing more can be done there.
    if (systemCode(error) !== 'EINVAL') throw error;
  } finally {
    await handle.close();
  }
}

/** A file that lines are appended to, each in one write, so that readers see whole lines while it grows. */
export class LineFile {
  readonly path: string;
  private file: number;

  /** @throws IoError if the file cannot be opened */
  constructor(path: string) {
    this.path = path;
    try {
      this.file = openSync(path, 'a');
    } catch (error) {
      throw asIoError(error, `Opening ${path}`);
    }
  }

  /** @throws IoError if the text cannot be written whole */
  append(text: string | Uint8Array): void {
    try {
      writeFileSync(this.file, text);
    } catch (error) {
      throw asIoError(error, `Writing ${this.path}`);
    }
  }

  /** Waits until what was appended is on the disk. */
  sync(): void {
    try {
      fsyncSync(this.file);
    } catch (error) {
      // Pipes and devices have nothing to sync.
      if (systemCode(error) !== 'EINVAL') throw asIoError(error, `Writing ${this.path}`);
    }
  }

  close(): void {
    if (this.file === -1) return;
    closeSync(this.file);
    this.file = -1;
  }
}

/**
 * Cuts a file of lines before the first one that `isSurplus` names, or before a last line that was not finished.
 *
 * @returns how many lines were cut off
 * @throws IoError if the file cannot be read or cut
 */
export function cutLines(path: string, isSurplus: (line: string) => boolean): number {
  let file: number;
  try {
    file = openSync(path, 'r+');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return 0;
    throw asIoError(error, `Opening ${path}`);
  }
  try {
    const { keptBytes, cut } = scanLines(file, isSurplus);
    if (cut > 0) ftruncateSync(file, keptBytes);
    return cut;
  } catch (error) {
    throw asIoError(error, `Cutting ${path}`);
  } finally {
    closeSync(file);
  }
}

/** Reads in pieces, because samples of a long run may not fit into memory. */
function scanLines(
  file: number,
  isSurplus: (line: string) => boolean,
): { keptBytes: number; cut: number } {
  const chunk = Buffer.alloc(1 << 20);
  let pending = Buffer.alloc(0);
  let keptBytes = 0;
  let cut = 0;
  const take = (line: Buffer, isWhole: boolean): void => {
    if (cut === 0 && isWhole && !isSurplus(line.toString('utf8'))) keptBytes += line.length + 1;
    else cut++;
  };
  for (;;) {
    const read = readSync(file, chunk);
    if (read === 0) break;
    pending = Buffer.concat([pending, chunk.subarray(0, read)]);
    for (let end = pending.indexOf(0x0a); end !== -1; end = pending.indexOf(0x0a)) {
      take(pending.subarray(0, end), true);
      pending = pending.subarray(end + 1);
    }
  }
  if (pending.length > 0) take(pending, false);
  return { keptBytes, cut };
}
