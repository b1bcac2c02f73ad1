/**
 * Runs compiled test files, each in a process of its own, and counts. A process that crashes, hangs or runs no test is
 * a failure, whatever its tests reported before.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { filesBelow } from '../setup/files.mjs';
import { runProgram } from '../setup/process.mjs';

/** @typedef {import('./reporter.mjs').TestEvent} TestEvent */
/** @typedef {{ passed: number, failed: number, skipped: number }} Counts */
/** @typedef {'unit' | 'learns' | 'browser'} TestKind What a test file needs: nothing, much time, a browser. */

/**
 * @typedef {object} FileResult
 * @property {string} source The TypeScript file, relative to the root.
 * @property {TestEvent[]} events
 * @property {string | undefined} fault What happened to the process as a whole.
 * @property {string} output What the file printed.
 * @property {number} seconds
 */

const REPORTER = fileURLToPath(new URL('reporter.mjs', import.meta.url));
const OUTPUT_LINES = 60;

/** @param {string} path @returns {TestKind} */
function kindOf(path) {
  if (path.endsWith('.learns.test.js')) return 'learns';
  return path.endsWith('.browser.test.js') ? 'browser' : 'unit';
}

/**
 * Test files below dist/, as their TypeScript sources.
 * @param {string} root
 * @param {{ kind: TestKind, filters: readonly string[] }} options Filters are parts of a path; none means all.
 * @returns {string[]}
 */
export function findTests(root, { kind, filters }) {
  const parts = filters.map((filter) =>
    filter.replace(/^(\.\/)?(dist\/)?/, '').replace(/\.(ts|js)$/, ''),
  );
  return filesBelow(join(root, 'dist'), (name) => name.endsWith('.test.js'))
    .filter((path) => kindOf(path) === kind)
    .filter((path) => parts.length === 0 || parts.some((part) => path.includes(part)))
    .map((path) => path.replace(/\.js$/, '.ts'));
}

/**
 * @param {string} root
 * @param {readonly string[]} sources
 * @param {{ concurrency: number, timeoutSeconds: number, env: NodeJS.ProcessEnv, print: (text: string) => void }} options
 * @returns {Promise<Counts>}
 */
export async function runTestFiles(root, sources, options) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const waiting = [...sources];
  const worker = async () => {
    for (let source = waiting.shift(); source !== undefined; source = waiting.shift()) {
      const result = await runTestFile(root, source, options);
      const { passed, failed, skipped } = countsOf(result);
      counts.passed += passed;
      counts.failed += failed;
      counts.skipped += skipped;
      options.print(describeResult(result));
    }
  };
  await Promise.all(Array.from({ length: options.concurrency }, worker));
  return counts;
}

/**
 * @param {string} root
 * @param {string} source
 * @param {{ timeoutSeconds: number, env: NodeJS.ProcessEnv }} options
 * @returns {Promise<FileResult>}
 */
async function runTestFile(root, source, { timeoutSeconds, env }) {
  const startedAt = performance.now();
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-test-'));
  const report = join(folder, 'events.jsonl');
  const file = join(root, 'dist', source.replace(/\.ts$/, '.js'));
  const reporting = [`--test-reporter=${REPORTER}`, `--test-reporter-destination=${report}`];
  const clean = { ...env };
  delete clean['NODE_TEST_CONTEXT']; // set when this runs inside a test; the file would report to that one
  try {
    const args = ['--enable-source-maps', ...reporting, file];
    const result = await runProgram(process.execPath, args, {
      cwd: root,
      env: clean,
      timeoutSeconds,
    });
    const events = readEvents(report);
    return {
      source,
      events,
      fault: faultOf(result, events, timeoutSeconds),
      output: result.output,
      seconds: (performance.now() - startedAt) / 1000,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param {string} report @returns {TestEvent[]} A crash may have cut the last line. */
function readEvents(report) {
  /** @type {TestEvent[]} */
  const events = [];
  let text = '';
  try {
    text = readFileSync(report, 'utf8');
  } catch {
    return events;
  }
  for (const line of text.split('\n')) {
    if (!line.endsWith('}')) continue;
    try {
      events.push(JSON.parse(line));
    } catch {
      break;
    }
  }
  return events;
}

/**
 * @param {import('../setup/process.mjs').ProgramResult} result
 * @param {readonly TestEvent[]} events
 * @param {number} timeoutSeconds
 * @returns {string | undefined}
 */
function faultOf(result, events, timeoutSeconds) {
  if (result.timedOut) return `did not end within ${timeoutSeconds} s`;
  if (result.code === null) return 'was ended by a signal (a crash, or out of memory)';
  const failed = events.some((event) => event.outcome === 'fail');
  if (result.code !== 0 && !failed) return `ended with exit code ${result.code}`;
  if (events.at(-1)?.outcome !== 'end') return 'ended before its tests';
  if (events.every(({ outcome }) => outcome === 'note' || outcome === 'end')) return 'ran no test';
  return undefined;
}

/** @param {FileResult} result @returns {Counts} */
function countsOf({ events, fault }) {
  const count = (/** @type {TestEvent['outcome']} */ outcome) =>
    events.filter((event) => event.outcome === outcome).length;
  return {
    passed: count('pass'),
    failed: count('fail') + (fault === undefined ? 0 : 1),
    skipped: count('skip'),
  };
}

/** @param {FileResult} result @returns {string} One line, and the failures in full. */
function describeResult(result) {
  const { passed, failed, skipped } = countsOf(result);
  const numbers = [`${passed} passed`];
  if (failed > 0) numbers.push(`${failed} failed`);
  if (skipped > 0) numbers.push(`${skipped} skipped`);
  const mark = failed > 0 ? 'FAIL' : 'ok  ';
  const lines = [`${mark} ${result.source}  ${numbers.join(', ')}  ${result.seconds.toFixed(1)} s`];
  for (const event of result.events) {
    if (event.outcome === 'fail') lines.push(`  ✖ ${event.name}`, indented(event.error ?? ''));
    if (event.outcome === 'note' && failed > 0) lines.push(`  ${event.name}`);
  }
  if (result.fault !== undefined) lines.push(`  ✖ the process ${result.fault}`);
  if (failed > 0 && result.output.trim() !== '')
    lines.push(
      '  output:',
      indented(result.output.trim().split('\n').slice(-OUTPUT_LINES).join('\n')),
    );
  return lines.join('\n');
}

/** @param {string} text @returns {string} */
const indented = (text) => text.replaceAll(/^/gm, '      ');
