/**
 * Builds the dashboard's page into dist/ui, only when one of its sources changed.
 */
import { join } from 'node:path';
import { statSync } from 'node:fs';
import { filesBelow, hashOf, readText, statOf, writeAtomic } from './files.mjs';
import { runProgram } from './process.mjs';
import { SetupError, secondsSince } from './report.mjs';

/** @typedef {import('./npmPackages.mjs').StepContext} StepContext */

/** The page, and what it shares with the server. */
const SOURCES = ['ui', 'src/dashboard/view'];
const SHARED = ['src/dashboard/protocol.ts', 'package-lock.json'];
/** Beside dist/ui, which the build empties. */
const STAMP = 'dist/.stamp-ui';
const PAGE = 'dist/ui/index.html';
const TIMEOUT_SECONDS = 5 * 60;

/** @param {string} root @returns {string} */
function keyOf(root) {
  const sources = SOURCES.flatMap((folder) =>
    filesBelow(join(root, folder), () => true).map((path) => `${folder}/${path}`),
  );
  const states = [...sources, ...SHARED].map((path) => {
    const { mtimeMs, size } = statSync(join(root, path));
    return `${path}|${mtimeMs}|${size}`;
  });
  return hashOf(states.join('\n'));
}

/**
 * @param {string} root
 * @returns {boolean} Whether dist/ui is what a build would give now.
 */
export function dashboardUiIsCurrent(root) {
  return statOf(join(root, PAGE)) !== undefined && readText(join(root, STAMP)) === keyOf(root);
}

/**
 * Builds unless dist/ui is current.
 * @param {StepContext} context
 * @returns {Promise<boolean>} Whether anything was done.
 * @throws {SetupError} When the sources cannot be built.
 */
export async function buildDashboardUi({ root, env, log }) {
  if (dashboardUiIsCurrent(root)) return false;
  const startedAt = performance.now();
  // Taken before building: a file saved meanwhile makes the next run build again.
  const key = keyOf(root);
  const vite = join(root, 'node_modules/vite/bin/vite.js');
  const args = [vite, 'build', '--config', join(root, 'ui/vite.config.mjs'), '--logLevel', 'warn'];
  const options = { cwd: root, env, timeoutSeconds: TIMEOUT_SECONDS };
  const result = await runProgram(process.execPath, args, options);
  if (result.code !== 0)
    throw new SetupError('The dashboard’s page does not build.', {
      detail: result.output,
      hint: 'Correct the errors above; if you changed nothing, run: git status',
    });
  writeAtomic(join(root, STAMP), key);
  log(`dashboard: built its page (${secondsSince(startedAt)})`);
  return true;
}
