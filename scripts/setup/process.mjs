/**
 * Running other programs: output caught, a time limit, nothing on standard output.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';

/**
 * @typedef {object} ProgramResult
 * @property {number | null} code Exit code; null when it was killed or could not be started.
 * @property {string} stdout
 * @property {string} output Standard output and standard error as they came.
 * @property {boolean} timedOut
 * @property {string | undefined} startError Why it could not be started, for example `ENOENT`.
 */

/** @type {Set<import('node:child_process').ChildProcess>} */
const running = new Set();

/**
 * Ends a program with everything that it started: each runs in a process group of its own.
 * @param {import('node:child_process').ChildProcess} child
 * @param {NodeJS.Signals} signal
 */
function endGroup(child, signal) {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  } catch {
    child.kill(signal);
  }
}

/**
 * Runs `body`; when the process is interrupted meanwhile, ends the programs that it started (a compiler, pip) and
 * exits, so that what `withTemporary` made is removed.
 * @template T
 * @param {() => Promise<T>} body
 * @returns {Promise<T>}
 */
export async function interruptible(body) {
  const stop = (/** @type {NodeJS.Signals} */ signal) => {
    for (const child of running) endGroup(child, 'SIGTERM');
    process.exit(signal === 'SIGINT' ? 130 : 143);
  };
  const signals = /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']);
  for (const signal of signals) process.on(signal, stop);
  try {
    return await body();
  } finally {
    for (const signal of signals) process.off(signal, stop);
  }
}

/**
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, timeoutSeconds?: number }} [options]
 * @returns {Promise<ProgramResult>} Never rejects.
 */
export function runProgram(program, args, options = {}) {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    running.add(child);
    let stdout = '';
    let output = '';
    let timedOut = false;
    /** @type {string | undefined} */
    let startError;
    child.stdout.setEncoding('utf8').on('data', (/** @type {string} */ text) => {
      stdout += text;
      output += text;
    });
    child.stderr.setEncoding('utf8').on('data', (/** @type {string} */ text) => {
      output += text;
    });
    const timer =
      options.timeoutSeconds === undefined
        ? undefined
        : setTimeout(() => {
            timedOut = true;
            endGroup(child, 'SIGKILL');
          }, options.timeoutSeconds * 1000);
    const finish = (/** @type {number | null} */ code) => {
      clearTimeout(timer);
      running.delete(child);
      resolve({ code, stdout, output, timedOut, startError });
    };
    child.on('error', (error) => {
      startError = 'code' in error ? String(error.code) : error.message;
      finish(null);
    });
    child.on('close', finish);
  });
}

/**
 * Where a program is, without starting it.
 * @param {string} name A name to look for in PATH, or a path.
 * @param {NodeJS.ProcessEnv} env
 * @returns {string | undefined}
 */
export function findProgram(name, env) {
  const candidates =
    isAbsolute(name) || name.includes('/')
      ? [name]
      : (env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, name));
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return statSync(path).isFile();
    } catch {
      return false;
    }
  });
}

/**
 * What tells one program from its replacement after an upgrade: real path, size and time of change.
 * @param {string} path
 * @returns {string}
 */
export function identityOfFile(path) {
  const real = realpathSync(path);
  const { size, mtimeMs } = statSync(real);
  return `${real}|${size}|${mtimeMs}`;
}
