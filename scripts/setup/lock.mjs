/**
 * One setup at a time per checkout, across processes. The lock is a folder (making one is atomic everywhere) that says
 * who holds it, so that the lock of a killed process is taken over.
 */
import { mkdirSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { isAlive, readJson, statOf, temporaryName } from './files.mjs';
import { SetupError, systemCode } from './report.mjs';

const POLL_MS = 150;
/** The holder touches the lock this often; */
const BEAT_MS = 5_000;
/** one that was not touched for so long has no holder any more (it may have run on another machine). */
const STALE_MS = 60_000;

/**
 * Runs `body` while holding the lock at `path`, waiting for it first.
 * @template T
 * @param {string} path
 * @param {import('./report.mjs').Log} log
 * @param {() => Promise<T>} body
 * @returns {Promise<T>}
 */
export async function withLock(path, log, body) {
  try {
    mkdirSync(dirname(path), { recursive: true });
  } catch (error) {
    throw unwritable(path, error);
  }
  let announced = false;
  while (!tryToTake(path)) {
    if (removeIfStale(path)) continue;
    if (!announced) {
      announced = true;
      log(`waiting for another setup (process ${readJson(join(path, 'owner.json'))?.pid ?? '?'})`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  const release = () => rmSync(path, { recursive: true, force: true });
  const beat = setInterval(() => {
    try {
      utimesSync(path, new Date(), new Date());
    } catch {
      // The folder was removed by hand; the work goes on.
    }
  }, BEAT_MS);
  process.on('exit', release);
  try {
    return await body();
  } finally {
    clearInterval(beat);
    process.off('exit', release);
    release();
  }
}

/** @param {string} path @param {unknown} cause @returns {SetupError} */
function unwritable(path, cause) {
  const code = systemCode(cause) ?? String(cause);
  return new SetupError(`The folder ${dirname(path)} cannot be written (${code}).`, {
    hint: 'Make it writable. An installed package takes another cache from POSTTRAIN_CACHE.',
    cause,
  });
}

/** @param {string} path @returns {boolean} */
function tryToTake(path) {
  try {
    mkdirSync(path);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw unwritable(path, error);
  }
  const owner = { pid: process.pid, host: hostname(), since: new Date().toISOString() };
  writeFileSync(join(path, 'owner.json'), JSON.stringify(owner));
  return true;
}

/**
 * @param {string} path
 * @returns {boolean} Whether the lock is gone now.
 */
function removeIfStale(path) {
  const stat = statOf(path);
  if (stat === undefined) return true;
  const owner = readJson(join(path, 'owner.json'));
  const stale =
    Date.now() - stat.mtimeMs > STALE_MS ||
    (owner !== undefined && owner.host === hostname() && !isAlive(owner.pid));
  if (!stale) return false;
  // Two processes may see the same stale lock. Renaming lets one of them have it, and the look at what was caught
  // puts back a lock that somebody else took in between.
  const caught = temporaryName(path);
  try {
    renameSync(path, caught);
  } catch {
    return true;
  }
  if (readJson(join(caught, 'owner.json'))?.since !== owner?.since) {
    try {
      renameSync(caught, path);
      return false;
    } catch {
      // A third process holds the lock by now; the caught one has to go.
    }
  }
  rmSync(caught, { recursive: true, force: true });
  return true;
}
