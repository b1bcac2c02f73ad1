/**
 * A reporter of node:test for another program: one JSON line per finished test. Loaded by node itself in the process of
 * the test file (`--test-reporter`), so it depends on nothing.
 */
import { inspect } from 'node:util';

/**
 * @typedef {object} TestEvent
 * @property {'pass' | 'fail' | 'skip' | 'note' | 'end'} outcome A note is a warning of node:test itself; the end comes when
 *   every test has been reported, which a process that exits within a test never reaches.
 * @property {string} name Of the groups and the test, joined by ` > `.
 * @property {number} milliseconds
 * @property {string} [error]
 */

/**
 * @param {AsyncIterable<{ type: string, data: any }>} source
 * @returns {AsyncGenerator<string>}
 */
export default async function* report(source) {
  /** @type {string[]} Names of the groups and tests that are open, by nesting. */
  const path = [];
  for await (const { type, data } of source) {
    if (type === 'test:start') {
      path.length = data.nesting;
      path[data.nesting] = data.name;
    }
    if (type === 'test:diagnostic' && /^(Warning|Error): /.test(data.message))
      yield `${JSON.stringify({ outcome: 'note', name: data.message, milliseconds: 0 })}\n`;
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const event = outcomeOf(type, data);
    if (event === undefined) continue;
    const name = [...path.slice(0, data.nesting), data.name].join(' > ');
    yield `${JSON.stringify({ ...event, name, milliseconds: data.details.duration_ms })}\n`;
  }
  yield `${JSON.stringify({ outcome: 'end', name: '', milliseconds: 0 })}\n`;
}

/**
 * @param {string} type
 * @param {any} data
 * @returns {{ outcome: TestEvent['outcome'], error?: string } | undefined} Undefined for what is no test of its own: a
 *   group, and a parent that failed only since a child did.
 */
function outcomeOf(type, data) {
  const error = data.details.error;
  if (type === 'test:fail') {
    if (error?.failureType === 'subtestsFailed') return undefined;
    return { outcome: 'fail', error: describe(error) };
  }
  if (data.details.type === 'suite') return undefined;
  const skipped = (data.skip ?? data.todo) !== undefined;
  return { outcome: skipped ? 'skip' : 'pass' };
}

/** @param {any} error @returns {string} node:test wraps what a test threw. */
function describe(error) {
  const cause = error?.cause ?? error;
  if (typeof cause === 'string') return cause;
  const text =
    cause instanceof Error && cause.cause === undefined && typeof cause.stack === 'string'
      ? cause.stack
      : inspect(cause, { depth: 4, breakLength: 100 });
  const lines = text
    .split('\n')
    .filter((line) => !/^\s+at .*node:(internal|async_hooks)/.test(line));
  return lines.join('\n');
}
