#!/usr/bin/env node
/**
 * Makes a checkout ready to run: npm packages, libtorch, the addon, the compiled TypeScript, the dashboard's page. Uses
 * Node's built-ins only, since it runs before anything is installed. Does only what is needed; a second run starts no
 * program at all.
 *
 *     node scripts/setup.mjs
 *     node scripts/setup.mjs --no-native       without libtorch and the addon: what the package is packed from
 *     node scripts/setup.mjs --build-only      what npm has installed compiles: TypeScript and page (npm's `prepare`)
 *     node scripts/setup.mjs --home FOLDER     of an installed package: libtorch and the addon, which goes to FOLDER
 *
 * The last is what `posttrain setup` calls. The folder of the package is left as npm has made it, since it may be
 * read-only and is replaced by the next installation.
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
 * @property {string} [root] The checkout or the installed package.
 * @property {string | undefined} [home] Where an installed package keeps what is built for it; undefined for a checkout.
 * @property {NodeJS.ProcessEnv} [env]
 * @property {import('./setup/report.mjs').Log} [log]
 * @property {boolean} [packages] False takes the npm packages that are there.
 * @property {boolean} [native] False leaves libtorch and the addon alone, for a caller that runs nothing.
 * @property {boolean} [typescript] False leaves the TypeScript and the page alone, for a caller that builds both itself.
 */

/** @typedef {Required<SetupOptions>} AllOptions */

/** Lowest version of Node that the package supports; package.json says the same. */
const NODE = /** @type {const} */ ([20, 11]);

/**
 * @param {string} name
 * @param {AllOptions} options
 * @returns {string} Where a file of the setup's own is.
 */
const own = (name, { root, home }) => join(home ?? join(root, 'build'), name);

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
 * @param {AllOptions} options
 * @returns {boolean} Whether there is nothing to do.
 */
function isReady(options) {
  const { root, packages, native, typescript } = options;
  if (packages && !packagesAreCurrent(root)) return false;
  if (native && !nativeIsReady(options)) return false;
  return !typescript || (typescriptIsCurrent(root) && dashboardUiIsCurrent(root));
}

/** @param {AllOptions} options @returns {boolean} */
function nativeIsReady(options) {
  const libtorch = rememberedLibtorch(readJson(own('setup.json', options)), options.env);
  if (libtorch === undefined) return false;
  return currentAddon(planAddon({ ...options, libtorch })) !== undefined;
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
    home: undefined,
    env: process.env,
    log: logToStderr,
    packages: options.home === undefined,
    native: true,
    typescript: options.home === undefined,
    ...options,
  };
  checkNodeVersion(process.versions.node);
  if (isReady(all)) return;
  await interruptible(() =>
    withLock(own('setup.lock', all), all.log, async () => {
      const startedAt = performance.now();
      if (all.packages) await installPackages(all);
      if (all.native) await prepareNative(all, startedAt);
      if (!all.typescript) return;
      await buildTypescript(all);
      await buildDashboardUi(all);
    }),
  );
}

/**
 * Finds libtorch, builds the addon, and records both for `posttrain doctor` and for the next setup.
 * @param {AllOptions} options
 * @param {number} startedAt
 */
async function prepareNative(options, startedAt) {
  const { home, env, log } = options;
  const previous = readJson(own('setup.json', options));
  let libtorch = rememberedLibtorch(previous, env);
  if (libtorch === undefined) {
    libtorch = await findLibtorch({ env, log });
    const device = libtorch.cuda ? 'with CUDA' : 'for the CPU';
    log(`libtorch: ${libtorch.version} ${device} from ${libtorch.source}, ${libtorch.path}`);
  }
  const plan = planAddon({ ...options, libtorch });
  const addon = await buildAddon(plan, { env, log, keepObjects: home === undefined });
  const record = {
    libtorch,
    compiler: addon.compiler,
    addon: { path: addonPath(plan), builtAt: addon.builtAt, seconds: addon.seconds },
    node: process.versions.node,
    platform: `${process.platform} ${process.arch}`,
    search: searchKey(env),
    // Of the setup that built the addon: a later one with less to do does not make it look quick.
    setupSeconds:
      previous?.addon?.builtAt === addon.builtAt
        ? previous.setupSeconds
        : Math.round((performance.now() - startedAt) / 100) / 10,
  };
  writeAtomic(own('setup.json', options), `${JSON.stringify(record, undefined, 2)}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [flag, home] = process.argv.slice(2);
  try {
    await setup({
      native: flag !== '--no-native' && flag !== '--build-only',
      ...(flag === '--build-only' ? { packages: false } : {}),
      ...(flag === '--home' ? { home } : {}),
    });
  } catch (error) {
    process.stderr.write(`${describeFailure(error)}\n`);
    process.exitCode = 1;
  }
}
