/**
 * A lock between processes: a file that its holder touches while it works. It saves a second download of the same file;
 * that the cache stays whole does not depend on it (see `downloadBlob`).
 *
 * Python's locks are those of the operating system (flock), which Node does not have, so that ours have other names.
 */
import { randomUUID } from 'node:crypto';
import { open, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { guarded } from './hubCache.js';
import { makeFolder } from './makeFolder.js';

const TOUCH_SECONDS = 5;
/** A holder that did not touch its lock for so long is gone. */
const STALE_SECONDS = 30;

/**
 * Works while no other process holds the lock.
 *
 * @param wait called while another process holds it; it should take a moment
 * @throws IoError if the lock cannot be written
 */
export async function withFileLock<Value>(
  path: string,
  wait: () => Promise<unknown>,
  work: () => Promise<Value>,
): Promise<Value> {
  await guarded(path, () => Promise.resolve(makeFolder(dirname(path))));
  while (!(await guarded(path, () => take(path)))) {
    if (await isStale(path)) await steal(path);
    else await wait();
  }
  const touch = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => {}); // Stolen: the work goes on, and harms nobody.
  }, TOUCH_SECONDS * 1000);
  touch.unref();
  try {
    return await work();
  } finally {
    clearInterval(touch);
    await rm(path, { force: true });
  }
}

async function take(path: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx');
    await file.writeFile(JSON.stringify({ pid: process.pid, host: hostname() }));
    await file.close();
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

/** Whether a lock's holder is gone: a process of this machine that runs no more, or one that was silent for long. */
async function isStale(path: string): Promise<boolean> {
  try {
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > STALE_SECONDS * 1000) return true;
    const holder: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (typeof holder !== 'object' || holder === null) return false;
    if (!('host' in holder && holder.host === hostname() && 'pid' in holder)) return false;
    return typeof holder.pid === 'number' && !isRunning(holder.pid);
  } catch {
    return false; // Given back, or not written yet.
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it runs, and is somebody else's.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** Of several processes that find a lock stale, one gets it out of the way. */
async function steal(path: string): Promise<void> {
  const aside = `${path}.${randomUUID()}.stale`;
  try {
    await rename(path, aside);
    await rm(aside, { force: true });
  } catch {
    // Another one was first.
  }
}
