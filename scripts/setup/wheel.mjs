/**
 * The official CPU wheel of PyTorch as a source of libtorch: fetched from PyTorch's own index or by pip, checked,
 * unpacked into the cache. The cached folder appears whole or not at all.
 */
import { createHash } from 'node:crypto';
import {
  createReadStream,
  mkdirSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { download } from './download.mjs';
import { listing, readJson, statOf, temporaryName, withTemporary } from './files.mjs';
import { findProgram, runProgram } from './process.mjs';
import { SetupError, megabytes, secondsSince, systemCode } from './report.mjs';
import { unpackZip } from './zip.mjs';

/** The wheel that is fetched; the checksum is the one that the project verified. */
export const PINNED = {
  version: '2.13.0',
  platform: 'linux x64',
  url: 'https://download.pytorch.org/whl/cpu/torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl',
  file: 'torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl',
  bytes: 191_794_682,
  sha256: '6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b',
  requirement: 'torch==2.13.0+cpu',
};

/** The wheel and what is unpacked of it, with some room. */
const NEEDED_BYTES = 900 * 2 ** 20;
const PIP_TIMEOUT_SECONDS = 30 * 60;
const LIBRARIES =
  /^torch\/lib\/(libtorch|libtorch_cpu|libc10|libtorch_global_deps|libshm|libgomp[^/]*)\.so[^/]*$/;

/**
 * @typedef {object} FetchContext
 * @property {string} folder Where libtorch shall stand.
 * @property {NodeJS.ProcessEnv} env
 * @property {import('./report.mjs').Log} log
 * @property {string[]} tried Receives a line for each attempt.
 * @property {typeof PINNED} [wheel] Another wheel, for tests.
 * @property {string} [platform] Another platform, for tests.
 */

/**
 * @param {string} cache
 * @returns {string} The folder of the pinned libtorch in a cache.
 */
export function wheelFolder(cache) {
  return join(cache, `libtorch-${PINNED.version}-cpu-${PINNED.sha256.slice(0, 12)}`);
}

/**
 * Which files of the wheel are kept, and where.
 * @param {string} name
 * @returns {string | undefined}
 */
export function wantedOfWheel(name) {
  if (name.startsWith('torch/include/') || LIBRARIES.test(name)) return name.slice('torch/'.length);
  return undefined;
}

/**
 * Fetches the wheel, first from PyTorch's own index, then by pip, and unpacks it into `folder`.
 * @param {FetchContext} context
 * @returns {Promise<'download' | 'pip'>} What brought it.
 */
export async function fetchLibtorch(context) {
  const { folder, env, log, tried, wheel = PINNED } = context;
  const platform = context.platform ?? `${process.platform} ${process.arch}`;
  if (platform !== wheel.platform)
    throw failure(`No libtorch was found, and there is none to download for ${platform}.`, tried);
  try {
    mkdirSync(dirname(folder), { recursive: true });
    return await withTemporary(`${folder}.fetch`, async (temporary) => {
      mkdirSync(temporary);
      checkSpace(temporary);
      const file = join(temporary, wheel.file);
      const source = await fetchWheelFile({ file, env, log, tried, wheel });
      const startedAt = performance.now();
      const unpacked = await unpackInto(folder, file, wheel);
      log(
        `libtorch: unpacked ${unpacked.files} files, ${megabytes(unpacked.bytes)} (${secondsSince(startedAt)})`,
      );
      return source;
    });
  } catch (error) {
    throw explained(error, folder);
  }
}

/**
 * Unpacks a wheel beside `folder` and renames it there. Of two processes that do so at once, both succeed and one copy
 * stays.
 * @param {string} folder
 * @param {string} file
 * @param {typeof PINNED} wheel
 * @returns {Promise<{ files: number, bytes: number }>}
 */
export async function unpackInto(folder, file, wheel) {
  return withTemporary(folder, async (temporary) => {
    mkdirSync(temporary);
    const unpacked = await unpackZip(file, temporary, wantedOfWheel);
    const marker = { version: wheel.version, wheel: wheel.file, sha256: wheel.sha256, ...unpacked };
    writeFileSync(join(temporary, 'complete.json'), `${JSON.stringify(marker, undefined, 2)}\n`);
    moveIntoPlace(temporary, folder);
    return unpacked;
  });
}

/** @param {string} temporary @param {string} folder */
function moveIntoPlace(temporary, folder) {
  try {
    renameSync(temporary, folder);
  } catch (error) {
    const code = systemCode(error);
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
    // Another process was faster, and what it made is as good. A folder that lost its marker is not.
    if (readJson(join(folder, 'complete.json')) !== undefined) return;
    const broken = temporaryName(folder);
    renameSync(folder, broken);
    renameSync(temporary, folder);
    rmSync(broken, { recursive: true, force: true });
  }
}

/**
 * @param {{ file: string, env: NodeJS.ProcessEnv, log: import('./report.mjs').Log, tried: string[], wheel: typeof PINNED }} context
 * @returns {Promise<'download' | 'pip'>}
 */
async function fetchWheelFile({ file, env, log, tried, wheel }) {
  const startedAt = performance.now();
  const host = new URL(wheel.url).host;
  log(
    `libtorch: downloading ${wheel.version} for the CPU, ${megabytes(wheel.bytes)}, from ${host}`,
  );
  const direct = await download(wheel.url, file, { log });
  if (direct.failure === undefined) {
    checkSum(direct.sha256, wheel, host);
    log(`libtorch: downloaded (${secondsSince(startedAt)})`);
    return 'download';
  }
  tried.push(`download from ${host}: ${direct.failure}`);
  log(`libtorch: ${host}: ${direct.failure}; trying pip`);
  const pip = await pipDownload({ file, env, tried, wheel });
  if (pip === undefined)
    throw failure('libtorch was not found and could not be downloaded.', tried);
  checkSum(await sha256OfFile(file), wheel, pip);
  log(`libtorch: downloaded by ${pip} (${secondsSince(startedAt)})`);
  return 'pip';
}

/**
 * Lets pip fetch the wheel: it knows the indexes and proxies that are configured on this machine.
 * @param {{ file: string, env: NodeJS.ProcessEnv, tried: string[], wheel: typeof PINNED }} context
 * @returns {Promise<string | undefined>} The pip that did it.
 */
async function pipDownload({ file, env, tried, wheel }) {
  for (const pip of ['python3 -m pip', 'pip3', 'pip']) {
    const [name = '', ...first] = pip.split(' ');
    const program = findProgram(name, env);
    if (program === undefined) {
      tried.push(`${pip}: not in PATH`);
      continue;
    }
    const which = ['--python-version', '3.11', '--implementation', 'cp', '--abi', 'cp311'];
    const where = ['--platform', 'manylinux_2_28_x86_64', '-d', dirname(file)];
    const patience = ['--timeout', '20', '--retries', '1', '--disable-pip-version-check'];
    const args = ['download', '--no-deps', '--only-binary=:all:', '--no-cache-dir', ...patience];
    const result = await runProgram(
      program,
      [...first, ...args, ...which, ...where, wheel.requirement],
      {
        env,
        timeoutSeconds: PIP_TIMEOUT_SECONDS,
      },
    );
    if (result.code === 0 && statOf(file) !== undefined) return pip;
    tried.push(`${pip}: ${whyPipFailed(result, dirname(file))}`);
  }
  return undefined;
}

/** @param {import('./process.mjs').ProgramResult} result @param {string} folder @returns {string} */
function whyPipFailed(result, folder) {
  if (result.timedOut) return `not finished after ${PIP_TIMEOUT_SECONDS / 60} minutes`;
  if (result.startError !== undefined) return result.startError;
  if (result.code === 0) return `brought ${listing(folder).join(', ') || 'nothing'}`;
  const lines = result.output.trim().split('\n');
  const error = lines.filter((line) => /error/i.test(line)).at(-1) ?? lines.at(-1) ?? '';
  return error.trim().slice(0, 300) || `exit code ${result.code}`;
}

/** @param {string} sha256 @param {typeof PINNED} wheel @param {string} from */
function checkSum(sha256, wheel, from) {
  if (sha256 === wheel.sha256) return;
  throw new SetupError(
    `The wheel from ${from} has the sha256 ${sha256}, expected ${wheel.sha256}. It was not used.`,
    {
      hint: 'The file was damaged or replaced on its way. Try again; if it stays so, do not trust that source, and set LIBTORCH to a libtorch that you trust.',
    },
  );
}

/** @param {string} file @returns {Promise<string>} */
async function sha256OfFile(file) {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 20 })) hash.update(chunk);
  return hash.digest('hex');
}

/** @param {string} folder */
function checkSpace(folder) {
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  if (free < NEEDED_BYTES)
    throw new SetupError(
      `${dirname(folder)} has ${megabytes(free)} free; libtorch needs ${megabytes(NEEDED_BYTES)} while it is unpacked.`,
      { hint: 'Make room, or set POSTTRAIN_CACHE to a folder with more.' },
    );
}

/** @param {string} message @param {string[]} tried @returns {SetupError} */
function failure(message, tried) {
  return new SetupError(`${message}\nTried:\n${tried.map((line) => `  - ${line}`).join('\n')}`, {
    hint: `Do one of these and try again: give this machine access to https://download.pytorch.org or to a pip index that has ${PINNED.requirement}; install a Python torch (python3 -m pip install torch==${PINNED.version}); set LIBTORCH to a folder with lib/ and include/ of libtorch.`,
  });
}

/** @param {unknown} error @param {string} folder @returns {unknown} */
function explained(error, folder) {
  if (error instanceof SetupError) return error;
  const code = systemCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new SetupError(`The disk of ${dirname(folder)} is full.`, {
      hint: 'Make room (1 GB), or set POSTTRAIN_CACHE to a folder on another disk.',
      cause: error,
    });
  if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM')
    return new SetupError(`${dirname(folder)} cannot be written (${code}).`, {
      hint: 'Set POSTTRAIN_CACHE to a folder that you may write.',
      cause: error,
    });
  return error;
}
