#!/usr/bin/env node
/**
 * Makes a checkout ready to run: npm packages, libtorch, the addon, the compiled TypeScript, the dashboard's page. Uses
 * Node's built-ins only, since it runs before anything is installed. Does only what is needed; a second run starts no
 * program at all.
 *
 *     node scripts/setup.mjs
 */
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { addonPath, buildAddon, currentAddon, planAddon } from './setup/addon.mjs';
import { readJson, writeAtomic } from './setup/files.mjs';
import { buildDashboardUi, dashboardUiIsCurrent } from './setup/dashboardUi.mjs';
import { findLibtorch, inspectLibtorch } from './setup/libtorch.mjs';
import { withLock } from './setup/lock.mjs';
import { installPackages, packagesAreCurrent } from './setup/npmPackages.mjs';
import { interruptible } from './setup/process.mjs';
import { SetupError, describeFailure, logToStderr } from './setup/report.mjs';
import { buildTypescript, typescriptIsCurrent } from './setup/typescript.mjs';

/** @typedef {import('./setup/libtorch.mjs').Libtorch} Libtorch */

/**
 * @typedef {object} SetupOptions
 * @property {string} [root] The checkout.
 * @property {NodeJS.ProcessEnv} [env]
 * @property {import('./setup/report.mjs').Log} [log]
 * @property {boolean} [native] False leaves libtorch and the addon alone, for a caller that runs nothing.
 * @property {boolean} [typescript] False leaves the TypeScript and the page alone, for a caller that builds both itself.
 */

/** Lowest version of Node that the package supports; package.json says the same. */
const NODE = /** @type {const} */ ([20, 11]);
const RECORD = 'build/setup.json';

/** The checkout that this script belongs to. */
export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * @param {string} version For example `20.11.0`.
 * @throws {SetupError} When it is too old.
 */
export function checkNodeVersion(version) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major > NODE[0] || (major === NODE[0] && minor >= NODE[1])) return;
  throw new SetupError(`Node ${NODE.join('.')} or newer is needed; this is ${version}.`, {
    hint: 'Install a newer one from https://nodejs.org, or with a version manager: nvm install 22',
  });
}

/**
 * The libtorch of the last setup when a search would find the same one again; nothing is started to know that.
 * @param {any} record
 * @param {NodeJS.ProcessEnv} env
 * @returns {Libtorch | undefined}
 */
function rememberedLibtorch(record, env) {
  if (record?.libtorch === undefined || record.search !== searchKey(env)) return undefined;
  const found = inspectLibtorch(record.libtorch.path);
  const same = 'libtorch' in found && found.libtorch.identity === record.libtorch.identity;
  return same ? record.libtorch : undefined;
}

/**
 * The part of the environment that decides which libtorch is found. PATH is left out: an activated Python environment
 * should not rebuild the addon; LIBTORCH names another libtorch.
 * @param {NodeJS.ProcessEnv} env
 * @returns {string}
 */
function searchKey(env) {
  return ['LIBTORCH', 'POSTTRAIN_CACHE', 'XDG_CACHE_HOME', 'HOME']
    .map((name) => `${name}=${env[name] ?? ''}`)
    .join('\n');
}

/**
 * @param {Required<SetupOptions>} options
 * @returns {boolean} Whether there is nothing to do.
 */
function isReady({ root, env, native, typescript }) {
  if (!packagesAreCurrent(root)) return false;
  if (native && !nativeIsReady(root, env)) return false;
  return !typescript || (typescriptIsCurrent(root) && dashboardUiIsCurrent(root));
}

/** @param {string} root @param {NodeJS.ProcessEnv} env @returns {boolean} */
function nativeIsReady(root, env) {
  const libtorch = rememberedLibtorch(readJson(join(root, RECORD)), env);
  if (libtorch === undefined) return false;
  return currentAddon(root, planAddon({ root, env, libtorch })) !== undefined;
}

/**
 * Does whatever is still to be done.
 * @param {SetupOptions} [options]
 * @returns {Promise<void>}
 * @throws {SetupError} When a step fails; it says what to do.
 */
export async function setup(options = {}) {
  const all = {
    root: ROOT,
    env: process.env,
    log: logToStderr,
    native: true,
    typescript: true,
    ...options,
  };
  checkNodeVersion(process.versions.node);
  if (isReady(all)) return;
  await interruptible(() =>
    withLock(join(all.root, 'build/setup.lock'), all.log, async () => {
      const startedAt = performance.now();
      await installPackages(all);
      if (all.native) await prepareNative(all, startedAt);
      if (!all.typescript) return;
      await buildTypescript(all);
      await buildDashboardUi(all);
    }),
  );
}

/**
 * Finds libtorch, builds the addon, and records both for `posttrain doctor` and for the next setup.
 * @param {Required<SetupOptions>} options
 * @param {number} startedAt
 */
async function prepareNative(options, startedAt) {
  const { root, env, log } = options;
  const previous = readJson(join(root, RECORD));
  let libtorch = rememberedLibtorch(previous, env);
  if (libtorch === undefined) {
    libtorch = await findLibtorch({ env, log });
    const device = libtorch.cuda ? 'with CUDA' : 'for the CPU';
    log(`libtorch: ${libtorch.version} ${device} from ${libtorch.source}, ${libtorch.path}`);
  }
  const addon = await buildAddon({ root, env, log, libtorch });
  const record = {
    libtorch,
    compiler: addon.compiler,
    addon: { path: addonPath(root), builtAt: addon.builtAt, seconds: addon.seconds },
    node: process.versions.node,
    platform: `${process.platform} ${process.arch}`,
    search: searchKey(env),
    // Of the setup that built the addon: a later one with less to do does not make it look quick.
    setupSeconds:
      previous?.addon?.builtAt === addon.builtAt
        ? previous.setupSeconds
        : Math.round((performance.now() - startedAt) / 100) / 10,
  };
  writeAtomic(join(root, RECORD), `${JSON.stringify(record, undefined, 2)}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    await setup();
  } catch (error) {
    process.stderr.write(`${describeFailure(error)}\n`);
    process.exitCode = 1;
  }
}
