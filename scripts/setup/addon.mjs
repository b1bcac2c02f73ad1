/**
 * Compiles native/src/*.cpp into posttrain.node, and only what changed: an object file when its source, a header, the
 * flags, the compiler or libtorch changed; the addon when an object file did. A checkout has it in build/native, an
 * installed package in the user's cache.
 */
import { mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import {
  filesBelow,
  hashOf,
  readJson,
  removeAbandoned,
  statOf,
  temporaryName,
  writeAtomic,
} from './files.mjs';
import { findProgram, identityOfFile, runProgram } from './process.mjs';
import { SetupError, secondsSince } from './report.mjs';

/** @typedef {import('./libtorch.mjs').Libtorch} Libtorch */

/**
 * @typedef {object} AddonContext
 * @property {string} root The checkout or the installed package.
 * @property {string | undefined} [home] Where an installed package has its addons; undefined for a checkout.
 * @property {NodeJS.ProcessEnv} env
 * @property {Libtorch} libtorch
 */

/**
 * @typedef {object} Compiler
 * @property {string} path
 * @property {string[]} args What `$CXX` says after the program, for example in `ccache g++`.
 * @property {string} identity
 */

/**
 * @typedef {object} AddonPlan
 * @property {Compiler} compiler
 * @property {string[]} compileFlags
 * @property {string[]} linkFlags
 * @property {{ source: string, object: string, key: string }[]} units
 * @property {string} key Hash of everything that the addon is made from, and of no path of checkout or package.
 * @property {string} folder Where it is built.
 */

/**
 * @typedef {object} AddonRecord
 * @property {string} key
 * @property {Record<string, string>} objects Key of each object file by name.
 * @property {string} builtAt
 * @property {number} seconds
 * @property {number} sizeBytes
 * @property {{ path: string, version: string }} compiler
 */

const NODE_API = 'node-api-headers/package.json';
const COMPILER_HINT =
  'Install a C++20 compiler (Debian and Ubuntu: sudo apt install g++; macOS: xcode-select --install), or name one in CXX.';

/**
 * @param {NodeJS.ProcessEnv} env
 * @returns {Compiler}
 */
export function findCompiler(env) {
  const asked = env['CXX']?.trim() ?? '';
  const candidates = asked === '' ? ['g++', 'clang++', 'c++'] : [asked];
  for (const candidate of candidates) {
    const [program = '', ...args] = candidate.split(/\s+/);
    const path = findProgram(program, env);
    if (path !== undefined) return { path, args, identity: `${identityOfFile(path)}|${candidate}` };
  }
  throw new SetupError(
    asked === ''
      ? `No C++ compiler was found (looked for ${candidates.join(', ')} in PATH).`
      : `The compiler that CXX names, ${asked}, was not found.`,
    { hint: COMPILER_HINT },
  );
}

/**
 * What has to be compiled and how; reads the sources and starts nothing.
 * @param {AddonContext} context
 * @returns {AddonPlan}
 */
export function planAddon({ root, home, env, libtorch }) {
  const compiler = findCompiler(env);
  const sources = join(root, 'native/src');
  const names = filesBelow(sources, (name) => /\.(cpp|cc|h|hpp|inc)$/.test(name));
  const units = names.filter((name) => /\.(cpp|cc)$/.test(name));
  if (units.length === 0) throw new SetupError(`No C++ source was found in ${sources}.`);
  const options = [
    ...['-std=c++20', '-O2', '-fPIC', '-fvisibility=hidden'],
    `-D_GLIBCXX_USE_CXX11_ABI=${libtorch.cxx11Abi ? 1 : 0}`,
  ];
  const nodeApi = dirname(createRequire(join(root, 'package.json')).resolve(NODE_API));
  const compileFlags = [
    ...options,
    ...['-I', join(nodeApi, 'include')],
    // As system headers, so that a warning about our code is not lost among theirs.
    ...['-isystem', join(libtorch.path, 'include')],
    ...['-isystem', join(libtorch.path, 'include/torch/csrc/api/include')],
  ];
  const lib = join(libtorch.path, 'lib');
  const linkFlags = [
    '-shared',
    ...(process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : []),
    `-L${lib}`,
    ...['-Xlinker', '-rpath', '-Xlinker', lib],
    // Nothing refers to torch_cuda by name: it registers its kernels when it is loaded.
    ...(libtorch.cuda ? ['-Wl,--no-as-needed', '-ltorch_cuda', '-lc10_cuda', '-ltorch'] : []),
    ...['-ltorch_cpu', '-lc10'],
  ];
  const nodeHeaders = readFileSync(join(nodeApi, 'package.json'));
  const shared = hashOf(
    // Node-API is the same for every Node. Where this checkout and its packages lie does not matter either.
    ...[libtorch.identity, compiler.identity, nodeHeaders, options.join('\n')],
    ...names
      .filter((name) => !units.includes(name))
      .flatMap((name) => [name, readFileSync(join(sources, name))]),
  );
  const planned = units.map((name) => ({
    source: join(sources, name),
    object: `${name.replaceAll('/', '.')}.o`,
    key: hashOf(shared, name, readFileSync(join(sources, name))),
  }));
  const key = hashOf(...planned.map((unit) => unit.key), linkFlags.join('\n'));
  // Projects on one machine share an addon, and keep one for each libtorch that they have asked for.
  const folder = home === undefined ? join(root, 'build/native') : join(home, key.slice(0, 16));
  return { compiler, compileFlags, linkFlags, units: planned, key, folder };
}

/** @param {AddonPlan} plan @returns {string} */
export const addonPath = (plan) => join(plan.folder, 'posttrain.node');

/**
 * @param {AddonPlan} plan
 * @returns {AddonRecord | undefined} How the addon that stands there was built; undefined when it must be built.
 */
export function currentAddon(plan) {
  /** @type {AddonRecord | undefined} */
  const record = readJson(join(plan.folder, 'built.json'));
  const size = statOf(addonPath(plan))?.size;
  return record?.key === plan.key && record.sizeBytes === size ? record : undefined;
}

/**
 * Builds the addon unless it is current.
 * @param {AddonPlan} plan
 * @param {{ env: NodeJS.ProcessEnv, log: import('./report.mjs').Log, keepObjects: boolean }} context `keepObjects` makes
 *   the next build of changed sources quick.
 * @returns {Promise<AddonRecord>}
 */
export async function buildAddon(plan, { env, log, keepObjects }) {
  const current = currentAddon(plan);
  if (current !== undefined) return current;
  const startedAt = performance.now();
  const { folder } = plan;
  mkdirSync(join(folder, 'obj'), { recursive: true });
  const version = await compilerVersion(plan.compiler, env);
  const keys = /** @type {Record<string, string>} */ (readJson(join(folder, 'objects.json')) ?? {});
  const changed = plan.units.filter(
    (unit) =>
      keys[unit.object] !== unit.key || statOf(join(folder, 'obj', unit.object)) === undefined,
  );
  log(`addon: compiling ${changed.length} of ${plan.units.length} files with ${version}`);
  await compileAll(changed, async (unit) => {
    const object = join(folder, 'obj', unit.object);
    removeAbandoned(object);
    const temporary = temporaryName(object);
    const { compileFlags } = plan;
    const args = [...compileFlags, '-c', unit.source, '-o', temporary];
    await compile(plan.compiler, args, { env, what: basename(unit.source), temporary });
    renameSync(temporary, object);
    keys[unit.object] = unit.key;
    // Written after every file: what is compiled stays compiled when a later file has an error.
    writeAtomic(join(folder, 'objects.json'), JSON.stringify(keys));
  });
  const target = addonPath(plan);
  removeAbandoned(target);
  const temporary = temporaryName(target);
  const objects = plan.units.map((unit) => join(folder, 'obj', unit.object));
  const args = [...objects, ...plan.linkFlags, '-o', temporary];
  await compile(plan.compiler, args, { env, what: 'the addon (linking)', temporary });
  renameSync(temporary, target);
  const record = {
    key: plan.key,
    objects: keys,
    builtAt: new Date().toISOString(),
    seconds: Math.round(performance.now() - startedAt) / 1000,
    sizeBytes: statOf(target)?.size ?? 0,
    compiler: { path: plan.compiler.path, version },
  };
  writeAtomic(join(folder, 'built.json'), JSON.stringify(record, undefined, 2));
  if (!keepObjects)
    for (const name of ['obj', 'objects.json']) rmSync(join(folder, name), { recursive: true });
  log(`addon: built ${target} (${secondsSince(startedAt)})`);
  return record;
}

/**
 * At most one compilation per processor; the first error waits for those under way and is thrown alone.
 * @template T
 * @param {readonly T[]} units
 * @param {(unit: T) => Promise<void>} one
 */
async function compileAll(units, one) {
  const waiting = [...units];
  const worker = async () => {
    for (let unit = waiting.shift(); unit !== undefined; unit = waiting.shift()) {
      try {
        await one(unit);
      } catch (error) {
        waiting.length = 0;
        throw error;
      }
    }
  };
  const count = Math.min(availableParallelism(), units.length);
  const results = await Promise.allSettled(Array.from({ length: count }, worker));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

/**
 * @param {Compiler} compiler
 * @param {readonly string[]} args
 * @param {{ env: NodeJS.ProcessEnv, what: string, temporary: string }} options
 */
async function compile(compiler, args, { env, what, temporary }) {
  const result = await runProgram(compiler.path, [...compiler.args, ...args], { env });
  if (result.code === 0) return;
  rmSync(temporary, { force: true });
  const killed = result.code === null && result.startError === undefined;
  const lines = result.output.trimEnd().split('\n');
  throw new SetupError(`Compiling ${what} failed (${compiler.path}).`, {
    detail: [...lines.slice(0, 60), ...(lines.length > 60 ? ['…'] : [])].join('\n'),
    hint: killed
      ? 'The compiler was ended from outside, most often for lack of memory: about 2 GB per file are needed.'
      : `The compiler must know C++20 (g++ 11 or clang 14 and newer). ${COMPILER_HINT}`,
  });
}

/** @param {Compiler} compiler @param {NodeJS.ProcessEnv} env @returns {Promise<string>} */
async function compilerVersion(compiler, env) {
  const args = [...compiler.args, '--version'];
  const result = await runProgram(compiler.path, args, { env, timeoutSeconds: 20 });
  return result.stdout.split('\n')[0]?.trim() || compiler.path;
}
