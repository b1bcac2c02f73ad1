/**
 * Finds libtorch: the folder that LIBTORCH names, a cached copy, a Python torch, or the official CPU wheel, in this
 * order. Knows what makes a folder usable; `wheel.mjs` knows how to fetch one.
 */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { hashOf, readText, statOf } from './files.mjs';
import { findProgram, identityOfFile, runProgram } from './process.mjs';
import { SetupError } from './report.mjs';
import { fetchLibtorch, wheelFolder } from './wheel.mjs';

/**
 * @typedef {object} Libtorch
 * @property {string} path Folder with lib/ and include/.
 * @property {string} version For example `2.13.0`.
 * @property {'LIBTORCH' | 'cache' | 'python' | 'download' | 'pip'} source
 * @property {boolean} cuda Whether it has CUDA kernels.
 * @property {boolean} cxx11Abi Whether its std::string is the one of the C++11 ABI (official builds: since 2.7 always).
 * @property {string} identity Changes when the folder's content is replaced.
 * @property {string[]} tried What was looked at before, and why it was not taken.
 */

/** Lowest and highest minor version of torch 2 that the addon is meant for. */
const SUPPORTED_MINOR = /** @type {const} */ ([6, 13]);
const PYTHON_TIMEOUT_SECONDS = 15;
const LIBRARY = process.platform === 'darwin' ? 'dylib' : 'so';

/**
 * The cache of the user: POSTTRAIN_CACHE, or the usual place.
 * @param {NodeJS.ProcessEnv} env
 * @returns {string}
 */
export function cacheFolder(env) {
  const own = env['POSTTRAIN_CACHE'];
  if (own !== undefined && own !== '') return resolve(own);
  const xdg = env['XDG_CACHE_HOME'];
  const base = xdg !== undefined && xdg !== '' ? xdg : join(env['HOME'] ?? homedir(), '.cache');
  return join(base, 'posttrain');
}

/**
 * @typedef {{ libtorch: Omit<Libtorch, 'source' | 'tried'> } | { reason: string }} Inspection
 */

/**
 * Whether a folder can be compiled and linked against.
 * @param {string} path
 * @returns {Inspection} The libtorch, or in a few words why not.
 */
export function inspectLibtorch(path) {
  const library = (/** @type {string} */ name) => join(path, 'lib', `lib${name}.${LIBRARY}`);
  if (statOf(path)?.isDirectory() !== true) return { reason: 'no such folder' };
  for (const name of ['torch_cpu', 'c10']) {
    if (statOf(library(name)) === undefined)
      return { reason: `no lib/lib${name}.${LIBRARY} in it` };
  }
  if (statOf(join(path, 'include/ATen/core/dispatch/Dispatcher.h')) === undefined)
    return { reason: 'no C++ headers in its include/' };
  const version = versionOfHeaders(path);
  if (version === undefined) return { reason: 'its headers tell no version' };
  const reason = unsupported(version);
  if (reason !== undefined) return { reason };
  const cuda = statOf(library('torch_cuda')) !== undefined;
  // A function of c10 that takes a std::string has the ABI in its name.
  const cxx11Abi =
    process.platform !== 'linux' ||
    readFileSync(library('c10')).includes('SourceLocationENSt7__cxx1112basic_string');
  const identity = hashOf(version, identityOfFile(library('torch_cpu')), String(cuda));
  return { libtorch: { path, version, cuda, cxx11Abi, identity } };
}

/**
 * @param {string} version
 * @returns {string | undefined} Why the addon is not meant for it.
 */
function unsupported(version) {
  const [major, minor] = version.split('.').map(Number);
  const [low, high] = SUPPORTED_MINOR;
  if (major === 2 && minor !== undefined && minor >= low && minor <= high) return undefined;
  return `version ${version}, supported are 2.${low} to 2.${high}`;
}

/** @param {string} path @returns {string | undefined} */
function versionOfHeaders(path) {
  for (const header of ['torch/headeronly/version.h', 'torch/csrc/api/include/torch/version.h']) {
    const text = readText(join(path, 'include', header)) ?? '';
    const parts = ['MAJOR', 'MINOR', 'PATCH'].map(
      (part) => text.match(new RegExp(`#define TORCH_VERSION_${part} (\\d+)`))?.[1],
    );
    if (parts.every((part) => part !== undefined)) return parts.join('.');
  }
  return undefined;
}

/**
 * Finds or fetches libtorch.
 * @param {{ env: NodeJS.ProcessEnv, log: import('./report.mjs').Log, fetchWheel?: typeof fetchLibtorch }} context
 *   `fetchWheel` stands in for the download in tests.
 * @returns {Promise<Libtorch>}
 */
export async function findLibtorch({ env, log, fetchWheel = fetchLibtorch }) {
  /** @type {string[]} */
  const tried = [];
  const named = env['LIBTORCH'];
  if (named !== undefined && named !== '') {
    const path = resolve(named);
    const found = inspectLibtorch(path);
    if ('libtorch' in found) return { ...found.libtorch, source: 'LIBTORCH', tried };
    // Somebody asked for this one: taking another silently would be a surprise.
    throw new SetupError(`LIBTORCH names ${path}, which cannot be used: ${found.reason}.`, {
      hint: 'It must be a folder with lib/ and include/ of libtorch 2.6 to 2.13, for example the torch folder in the site-packages of a Python. Unset LIBTORCH to have one found or downloaded.',
    });
  }
  tried.push('LIBTORCH is not set');

  const folder = wheelFolder(cacheFolder(env));
  if (statOf(join(folder, 'complete.json')) !== undefined) {
    const found = inspectLibtorch(folder);
    if ('libtorch' in found) return { ...found.libtorch, source: 'cache', tried };
    tried.push(`cache: ${folder} cannot be used: ${found.reason}`);
  } else tried.push(`cache: nothing in ${folder}`);

  const python = await findPythonTorch(env, tried);
  if (python !== undefined) return python;

  const source = await fetchWheel({ folder, env, log, tried });
  const found = inspectLibtorch(folder);
  if ('libtorch' in found) return { ...found.libtorch, source, tried };
  throw new SetupError(`The unpacked wheel in ${folder} cannot be used: ${found.reason}.`, {
    hint: `Remove that folder and try again.`,
  });
}

/** Asks where torch is without importing it, which would take seconds. */
const LOCATE_TORCH =
  "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s and s.origin else '')";

/**
 * @param {NodeJS.ProcessEnv} env
 * @param {string[]} tried
 * @returns {Promise<Libtorch | undefined>}
 */
async function findPythonTorch(env, tried) {
  for (const name of ['python3', 'python']) {
    const program = findProgram(name, env);
    if (program === undefined) {
      tried.push(`${name}: not in PATH`);
      continue;
    }
    // From a folder without Python files, so that a local torch.py is not taken for the package.
    const result = await runProgram(program, ['-c', LOCATE_TORCH], {
      cwd: dirname(program),
      env,
      timeoutSeconds: PYTHON_TIMEOUT_SECONDS,
    });
    const origin = result.stdout.trim().split('\n').at(-1) ?? '';
    if (result.code !== 0 || origin === '') {
      tried.push(`${name}: ${result.code === 0 ? 'has no torch' : 'does not run'} (${program})`);
      continue;
    }
    const path = dirname(origin);
    const found = inspectLibtorch(path);
    if ('libtorch' in found) return { ...found.libtorch, source: 'python', tried };
    tried.push(`${name}: its torch in ${path} cannot be used: ${found.reason}`);
  }
  return undefined;
}
