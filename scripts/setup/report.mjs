/**
 * What the setup says and how it fails. Knows nothing of the steps themselves.
 */

/** @typedef {(line: string) => void} Log One line for the reader, without a line break. */

/** A step of the setup failed in a way that the reader can do something about. */
export class SetupError extends Error {
  /**
   * @param {string} message What happened.
   * @param {{ hint?: string, detail?: string, cause?: unknown }} [options] `hint` says what to do next; `detail` is the
   *   output of the program that failed.
   */
  constructor(message, options = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SetupError';
    this.hint = options.hint;
    this.detail = options.detail;
  }
}

/** @type {Log} Standard output belongs to the command that follows, so every line goes to standard error. */
export const logToStderr = (line) => {
  process.stderr.write(`[setup] ${line}\n`);
};

/**
 * The text of a failure as a person should see it: no stack for an expected failure, the stack for a bug.
 * @param {unknown} error
 * @returns {string}
 */
export function describeFailure(error) {
  if (!(error instanceof SetupError)) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  const parts = [error.message];
  if (error.detail !== undefined && error.detail.trim() !== '')
    parts.unshift(error.detail.trimEnd());
  if (error.hint !== undefined) parts.push(error.hint);
  return parts.join('\n');
}

/**
 * Seconds with one digit, for the line of a step.
 * @param {number} startedAt From `performance.now()`.
 * @returns {string}
 */
export function secondsSince(startedAt) {
  return `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;
}

/**
 * @param {number} bytes
 * @returns {string} For example `183 MB` (MB = 2^20 bytes).
 */
export function megabytes(bytes) {
  return `${Math.round(bytes / 2 ** 20)} MB`;
}

/**
 * The system's code of an error (`ENOSPC`, `ENOENT`), looked up through its causes.
 * @param {unknown} error
 * @returns {string | undefined}
 */
export function systemCode(error) {
  for (let e = error; e instanceof Error; e = e.cause) {
    if ('code' in e && typeof e.code === 'string') return e.code;
  }
  return undefined;
}
