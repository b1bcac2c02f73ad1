#!/usr/bin/env node
/**
 * Everything that a change must pass: format, lint with types, types, documentation, tests. Sets up what is missing; the
 * last line of standard output is `N passed, N failed`, where each check that is not a test counts as one.
 *
 *     node scripts/check.mjs                  all of them
 *     node scripts/check.mjs lint types       the named ones (format, lint, types, docs, tests)
 *     node scripts/check.mjs --quickstart     all of them, and the quickstart
 *     node scripts/check.mjs --package        all of them, and the package in a project of its own
 *     node scripts/check.mjs package          that alone; --compile builds its addon anew
 */
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { checkPackage } from './checks/package.mjs';
import { checkQuickstart } from './checks/quickstart.mjs';
import { checkDocs } from './docsCheck.mjs';
import { ROOT, setup } from './setup.mjs';
import { buildDashboardUi } from './setup/dashboardUi.mjs';
import { interruptible, runProgram } from './setup/process.mjs';
import { SetupError, describeFailure, logToStderr } from './setup/report.mjs';
import { buildTypescript } from './setup/typescript.mjs';
import { conclude, runTests } from './test.mjs';

/** @typedef {() => Promise<string | undefined>} Check Gives what is wrong, or undefined. */

/**
 * @param {string} script A program of an npm package, relative to node_modules.
 * @param {readonly string[]} args
 * @returns {Check}
 */
const program = (script, args) => async () => {
  const all = [join(ROOT, 'node_modules', script), ...args];
  const result = await runProgram(process.execPath, all, { cwd: ROOT });
  return result.code === 0 ? undefined : stripVTControlCharacters(result.output).trimEnd();
};

/** @type {Check} */
async function types() {
  try {
    const context = { root: ROOT, env: process.env, log: logToStderr };
    await buildTypescript(context);
    await buildDashboardUi(context);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return describeFailure(error);
  }
  for (const project of ['scripts', 'ui']) {
    const check = program('typescript/bin/tsc', ['-p', project, '--pretty', 'false']);
    const fault = await check();
    if (fault !== undefined) return fault;
  }
  return undefined;
}

/** @type {Record<string, Check>} In the order in which they run; `types` compiles what the later ones use. */
const CHECKS = {
  format: program('prettier/bin/prettier.cjs', ['--check', '--log-level', 'warn', '.']),
  lint: program('oxlint/bin/oxlint', ['--type-aware', '--deny-warnings']),
  types,
  docs: async () => (await checkDocs(ROOT)).join('\n') || undefined,
};

/**
 * @param {string} name
 * @param {Check} check
 * @returns {Promise<boolean>} Whether it passed.
 */
async function perform(name, check) {
  const startedAt = performance.now();
  const fault = await interruptible(check).catch(describeFailure);
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  process.stdout.write(`${fault === undefined ? 'ok  ' : 'FAIL'} ${name}  ${seconds} s\n`);
  if (fault !== undefined) process.stdout.write(`${fault}\n`);
  return fault === undefined;
}

const args = process.argv.slice(2);
const asked = args.filter((arg) => !arg.startsWith('--'));
const all = asked.length === 0;
const counts = { passed: 0, failed: 0, skipped: 0 };
try {
  const running = ['docs', 'package', 'tests'];
  await setup({ typescript: false, native: all || running.some((name) => asked.includes(name)) });
  if (asked.includes('docs') || asked.includes('package')) await types();
  const isAsked = (/** @type {string} */ name) =>
    args.some((arg) => arg.replace('--', '') === name);
  const checks = {
    ...CHECKS,
    ...(isAsked('package') ? { package: () => checkPackage({ compile: isAsked('compile') }) } : {}),
    ...(isAsked('quickstart') ? { quickstart: checkQuickstart } : {}),
  };
  for (const [name, check] of Object.entries(checks)) {
    if (!all && !asked.includes(name)) continue;
    if (await perform(name, check)) counts.passed += 1;
    else counts.failed += 1;
  }
  if (all || asked.includes('tests')) {
    const tests = await runTests();
    counts.passed += tests.passed;
    counts.skipped += tests.skipped;
    // No test at all is a failure: something is wrong with the build.
    counts.failed += tests.passed + tests.failed === 0 ? 1 : tests.failed;
  }
} catch (error) {
  process.stderr.write(`${describeFailure(error)}\n`);
  counts.failed += 1;
}
conclude(counts);
