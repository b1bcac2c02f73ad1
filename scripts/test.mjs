#!/usr/bin/env node
/**
 * Sets up what is missing and runs the tests; the last line of standard output is `N passed, N failed`.
 *
 *     node scripts/test.mjs                   everything but the tests below
 *     node scripts/test.mjs src/torch         the files whose path has this in it
 *     node scripts/test.mjs --learns          the tests of learning only (*.learns.test.ts)
 *     node scripts/test.mjs --browser         those that need a Chromium only (*.browser.test.ts)
 */
import { availableParallelism } from 'node:os';
import { pathToFileURL } from 'node:url';
import { findTests, runTestFiles } from './checks/testFiles.mjs';
import { ROOT, setup } from './setup.mjs';
import { interruptible } from './setup/process.mjs';
import { describeFailure } from './setup/report.mjs';

/** @typedef {import('./checks/testFiles.mjs').Counts} Counts */
/** @typedef {import('./checks/testFiles.mjs').TestKind} TestKind */

const UNIT_TIMEOUT_SECONDS = 10 * 60;
const LEARNS_TIMEOUT_SECONDS = 60 * 60;

/**
 * Runs the test files of a built checkout.
 * @param {{ kind?: TestKind, filters?: readonly string[] }} [options]
 * @returns {Promise<Counts>}
 */
export async function runTests({ kind = 'unit', filters = [] } = {}) {
  const sources = findTests(ROOT, { kind, filters });
  if (sources.length === 0) {
    process.stderr.write(`No test file matches ${filters.join(' ') || 'at all'}.\n`);
    return { passed: 0, failed: 0, skipped: 0 };
  }
  const learns = kind === 'learns';
  return interruptible(() =>
    runTestFiles(ROOT, sources, {
      // Unit tests are many and small: two processes with one thread each. A test of learning has the machine alone.
      concurrency: learns ? 1 : Math.min(2, availableParallelism()),
      timeoutSeconds: learns ? LEARNS_TIMEOUT_SECONDS : UNIT_TIMEOUT_SECONDS,
      // No test asks the network: what stands for the Hub is started by the test.
      env: { ...process.env, HF_HUB_OFFLINE: '1', ...(!learns && { OMP_NUM_THREADS: '1' }) },
      print: (text) => process.stdout.write(`${text}\n`),
    }),
  );
}

/**
 * Prints the last line and sets the exit code. No test at all is a failure too.
 * @param {Counts} counts
 */
export function conclude({ passed, failed, skipped }) {
  if (skipped > 0) process.stdout.write(`${skipped} skipped\n`);
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const args = process.argv.slice(2);
  const kinds = /** @type {const} */ (['learns', 'browser']);
  const kind = kinds.find((name) => args.includes(`--${name}`)) ?? 'unit';
  const filters = args.filter((arg) => !arg.startsWith('--'));
  try {
    await setup();
    conclude(await runTests({ kind, filters }));
  } catch (error) {
    process.stderr.write(`${describeFailure(error)}\n`);
    conclude({ passed: 0, failed: 1, skipped: 0 });
  }
}
