/**
 * Compiles the TypeScript into dist/, only when a source changed, and keeps dist/ free of what has no source any more.
 */
import { chmodSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow, hashOf, readText, statOf, writeAtomic } from './files.mjs';
import { runProgram } from './process.mjs';
import { SetupError, secondsSince } from './report.mjs';

/** @typedef {import('./npmPackages.mjs').StepContext} StepContext */

/** The folders of tsconfig.json's `include`. */
const SOURCES = ['src', 'test', 'bench', 'examples', 'tools'];
const STAMP = 'dist/.stamp';
const TIMEOUT_SECONDS = 10 * 60;

/** @param {string} root @returns {string[]} */
function sourceFiles(root) {
  const isSource = (/** @type {string} */ name) => name.endsWith('.ts') && !name.endsWith('.d.ts');
  return SOURCES.flatMap((folder) =>
    filesBelow(join(root, folder), isSource).map((path) => `${folder}/${path}`),
  );
}

/** @param {string} root @param {readonly string[]} sources @returns {string} */
function keyOf(root, sources) {
  const settings = ['tsconfig.json', 'package.json', 'package-lock.json'];
  const states = sources.map((path) => {
    const { mtimeMs, size } = statSync(join(root, path));
    return `${path}|${mtimeMs}|${size}`;
  });
  return hashOf(...settings.map((file) => readText(join(root, file)) ?? ''), states.join('\n'));
}

/** @param {string} source @returns {string} */
const outputOf = (source) => `dist/${source.slice(0, -'.ts'.length)}.js`;

/**
 * @param {string} root
 * @param {readonly string[]} sources
 * @returns {string[]} Sources whose output is missing.
 */
function missingOutputs(root, sources) {
  return sources.filter((source) => statOf(join(root, outputOf(source))) === undefined);
}

/**
 * @param {string} root
 * @returns {boolean} Whether dist/ is what a compilation would give now.
 */
export function typescriptIsCurrent(root) {
  const sources = sourceFiles(root);
  return (
    readText(join(root, STAMP)) === keyOf(root, sources) &&
    missingOutputs(root, sources).length === 0
  );
}

/**
 * Removes the outputs of sources that are gone, so that a deleted test does not run on.
 * @param {string} root
 * @returns {string[]} What was removed, relative to dist/.
 */
export function removeStaleOutputs(root) {
  const expected = new Set(sourceFiles(root).map((path) => path.slice(0, -'.ts'.length)));
  const dist = join(root, 'dist');
  const outputs = filesBelow(dist, (name) => /\.(d\.ts|js|js\.map)$/.test(name)).filter(
    (path) => !path.startsWith('ui/'), // the dashboard's page, which has a build of its own
  );
  const stale = outputs.filter((path) => !expected.has(path.replace(/\.(d\.ts|js\.map|js)$/, '')));
  for (const path of stale) rmSync(join(dist, path));
  return stale;
}

/**
 * Compiles unless dist/ is current.
 * @param {StepContext} context
 * @returns {Promise<boolean>} Whether anything was done.
 * @throws {SetupError} On a type error. What could be emitted is there nevertheless.
 */
export async function buildTypescript({ root, env, log }) {
  if (typescriptIsCurrent(root)) return false;
  const startedAt = performance.now();
  const sources = sourceFiles(root);
  // Taken before compiling: a file saved meanwhile makes the next run compile again.
  const key = keyOf(root, sources);
  rmSync(join(root, STAMP), { force: true });
  removeStaleOutputs(root);
  // The incremental state believes that what it once wrote is still there.
  if (missingOutputs(root, sources).length > 0)
    rmSync(join(root, 'dist/.tsbuildinfo'), { force: true });
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const args = [compiler, '-p', join(root, 'tsconfig.json'), '--pretty', 'false'];
  const result = await runProgram(process.execPath, args, {
    cwd: root,
    env,
    timeoutSeconds: TIMEOUT_SECONDS,
  });
  const main = join(root, 'dist/src/cli/main.js');
  if (statOf(main) !== undefined) chmodSync(main, 0o755);
  if (result.code !== 0)
    throw new SetupError('The TypeScript sources do not compile.', {
      detail: result.output,
      hint: 'Correct the errors above; if you changed nothing, run: git status',
    });
  writeAtomic(join(root, STAMP), key);
  log(`TypeScript: compiled ${sources.length} files (${secondsSince(startedAt)})`);
  return true;
}
