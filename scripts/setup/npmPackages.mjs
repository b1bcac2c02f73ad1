/**
 * The npm packages, exactly as package-lock.json lists them.
 */
import { join } from 'node:path';
import { hashOf, readText, writeAtomic } from './files.mjs';
import { findProgram, runProgram } from './process.mjs';
import { SetupError, secondsSince } from './report.mjs';

const TIMEOUT_SECONDS = 15 * 60;
/** Without scripts: no package here needs one, and our own would build before there is all of them. */
const ARGS = ['--ignore-scripts', '--no-audit', '--no-fund'];
/** Lies inside node_modules, so that it disappears together with what it vouches for. */
const STAMP = 'node_modules/.posttrain-lock';

/** @typedef {{ root: string, env: NodeJS.ProcessEnv, log: import('./report.mjs').Log }} StepContext */

/**
 * @param {string} root
 * @returns {boolean} Whether what is installed is what the lock file asks for.
 */
export function packagesAreCurrent(root) {
  const lock = readText(join(root, 'package-lock.json'));
  return lock !== undefined && readText(join(root, STAMP))?.trim() === hashOf(lock);
}

/**
 * Installs the npm packages unless they are there already.
 * @param {StepContext} context
 * @returns {Promise<boolean>} Whether anything was done.
 */
export async function installPackages({ root, env, log }) {
  if (packagesAreCurrent(root)) return false;
  const lock = readText(join(root, 'package-lock.json'));
  if (lock === undefined)
    throw new SetupError(`${join(root, 'package-lock.json')} is missing.`, {
      hint: 'Restore it: git checkout package-lock.json',
    });
  const npm = findProgram('npm', env);
  if (npm === undefined)
    throw new SetupError('npm was not found in PATH.', {
      hint: 'Install it (Debian and Ubuntu: sudo apt install npm; or Node from https://nodejs.org).',
    });
  const startedAt = performance.now();
  log('npm packages: installing');
  const options = { cwd: root, env: environmentForNpm(env), timeoutSeconds: TIMEOUT_SECONDS };
  let result = await runProgram(npm, ['ci', ...ARGS], options);
  if (result.code !== 0 && onlyForeignPlatformsMissing(result.output))
    result = await runProgram(npm, ['install', '--no-save', ...ARGS], options);
  if (result.code !== 0)
    throw new SetupError(
      result.timedOut
        ? 'npm did not finish within 15 minutes.'
        : 'npm could not install the packages.',
      {
        detail: result.output.trim().split('\n').slice(0, 30).join('\n'),
        hint: 'Check the network and the registry (npm config get registry), then try again.',
      },
    );
  writeAtomic(join(root, STAMP), `${hashOf(lock)}\n`);
  log(`npm packages: installed (${secondsSince(startedAt)})`);
  return true;
}

/**
 * `npm ci` refuses a lock file that was made against a registry without the binaries of other platforms: it lists them
 * without a version. `npm install` takes the same locked versions and leaves them out.
 * @param {string} output
 * @returns {boolean}
 */
export function onlyForeignPlatformsMissing(output) {
  const faults = output.match(/^npm error (Missing|Invalid): .*$/gm) ?? [];
  return faults.length > 0 && faults.every((line) => /Missing: \S+@ from lock file$/.test(line));
}

/**
 * The environment without what an outer `npm run` set: NODE_ENV=production would leave the compiler out.
 * @param {NodeJS.ProcessEnv} env
 * @returns {NodeJS.ProcessEnv}
 */
function environmentForNpm(env) {
  const clean = { ...env };
  delete clean['NODE_ENV'];
  delete clean['npm_config_omit'];
  delete clean['npm_config_production'];
  return clean;
}
