/** Looks at the machine. Nothing here may throw: what cannot be looked at is itself a finding. */
import { execFileSync } from 'node:child_process';
import { readdir, statfs } from 'node:fs/promises';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { setupRecord, type SetupRecord } from '../torch/installation.js';
import { packageFolder } from './version.js';

/** One thing that was looked at. */
export interface Check {
  readonly name: string;
  /** Whether posttrain can work with what was found. */
  readonly isFine: boolean;
  readonly found: string;
  /** What to do, where something is missing or could be better. */
  readonly advice?: string | undefined;
}

/** What was found on the machine. */
export interface Examination {
  readonly isUsable: boolean;
  readonly checks: readonly Check[];
}

const OLDEST_NODE = [20, 11] as const;
const SETUP_COMMAND = 'npx posttrain setup';
const GIGABYTE = 2 ** 30;

/** Looks at Node, the compiler, libtorch, the addon, devices, threads, memory, disk, and the cache and token of the Hub. */
export async function examine(folder = packageFolder()): Promise<Examination> {
  const setup = setupRecord(folder);
  const checks = [
    checkNode(),
    checkCompiler(setup),
    checkLibtorch(setup),
    ...(await checkAddon()),
    checkMemory(),
    await checkDisk(),
    ...(await checkHub()),
  ];
  const required = new Set(['Node', 'addon']);
  return { isUsable: checks.every(({ name, isFine }) => isFine || !required.has(name)), checks };
}

function checkNode(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const isFine = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  return {
    name: 'Node',
    isFine,
    found: `${process.versions.node}, ${process.platform} ${process.arch}`,
    advice: isFine ? undefined : `Install Node ${OLDEST_NODE.join('.')} or newer.`,
  };
}

function checkCompiler(setup: SetupRecord | undefined): Check {
  const known = setup?.compiler;
  if (known?.version !== undefined) {
    return { name: 'compiler', isFine: true, found: `${known.version} (${known.path ?? '?'})` };
  }
  for (const program of [process.env['CXX'], 'c++', 'g++', 'clang++']) {
    if (program === undefined || program === '') continue;
    try {
      const output = execFileSync(program, ['--version'], { encoding: 'utf8', stdio: 'pipe' });
      return { name: 'compiler', isFine: true, found: output.split('\n')[0] ?? program };
    } catch {
      // Not this one.
    }
  }
  return {
    name: 'compiler',
    isFine: false,
    found: 'no C++ compiler',
    advice: 'Install one (Debian and Ubuntu: apt install g++; macOS: xcode-select --install).',
  };
}

function checkLibtorch(setup: SetupRecord | undefined): Check {
  const { version, path, source, tried = [] } = setup?.libtorch ?? {};
  if (version === undefined) {
    const looked = tried.length === 0 ? '' : `; looked at: ${tried.join('; ')}`;
    return {
      name: 'libtorch',
      isFine: false,
      found: `not set up${looked}`,
      advice: `Run \`${SETUP_COMMAND}\`, or set LIBTORCH to a folder that has it.`,
    };
  }
  return {
    name: 'libtorch',
    isFine: true,
    found: `${version}, from ${source ?? '?'} (${path ?? '?'})`,
  };
}

/** Loads the addon, and asks it for devices and threads. */
async function checkAddon(): Promise<Check[]> {
  try {
    const { getNumThreads, ones, runtimeInfo } = await import('../torch/index.js');
    const sum = ones([2]).sum().item();
    const info = runtimeInfo();
    const cores = availableParallelism();
    const threads = getNumThreads();
    const cuda = info.cudaDevices;
    return [
      {
        name: 'addon',
        isFine: sum === 2,
        found: `loads and computes; libtorch ${info.version}, ${info.cpuCapability}${info.hasMkldnn ? ', oneDNN' : ''}`,
        advice:
          sum === 2 ? undefined : `1 + 1 gave ${String(sum)}. Run \`${SETUP_COMMAND}\` again.`,
      },
      {
        name: 'devices',
        isFine: true,
        found: cuda > 0 ? `cpu, ${cuda} CUDA` : 'cpu',
        advice:
          cuda > 0
            ? undefined
            : `For a GPU, set LIBTORCH to a libtorch with CUDA and run \`${SETUP_COMMAND}\`.`,
      },
      {
        name: 'threads',
        isFine: true,
        found: `${threads} for one operator, ${cores} cores`,
        advice:
          threads < cores
            ? 'Set OMP_NUM_THREADS, or leave it unset, to use more cores.'
            : undefined,
      },
    ];
  } catch (error) {
    const hint = error instanceof Error && 'hint' in error ? error.hint : undefined;
    return [
      {
        name: 'addon',
        isFine: false,
        found: error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error),
        advice: typeof hint === 'string' ? hint : `Run \`${SETUP_COMMAND}\`.`,
      },
    ];
  }
}

function checkMemory(): Check {
  const limit = process.constrainedMemory?.() ?? 0;
  // Without a limit the system reports 0, or a number beyond all memory.
  const total = limit > 0 && limit < totalmem() ? limit : totalmem();
  const isFine = total >= 2 * GIGABYTE;
  return {
    name: 'memory',
    isFine,
    found: `${gigabytes(total)} in all, ${gigabytes(Math.min(freemem(), total))} free`,
    advice: isFine
      ? undefined
      : 'The quickstart needs 2 GB. Close other programs, or use another machine.',
  };
}

async function checkDisk(): Promise<Check> {
  try {
    const { bavail, bsize } = await statfs('.');
    const free = bavail * bsize;
    const isFine = free >= GIGABYTE;
    return {
      name: 'disk',
      isFine,
      found: `${gigabytes(free)} free here`,
      advice: isFine
        ? undefined
        : 'Free some space: libtorch takes about 1 GB, checkpoints come on top.',
    };
  } catch (error) {
    return { name: 'disk', isFine: false, found: `cannot be looked at: ${String(error)}` };
  }
}

/** Where models of the Hub are kept, and whether there is a token, which is not shown. Asks nobody. */
async function checkHub(): Promise<Check[]> {
  const { hubSettings } = await import('../hub/index.js');
  const { cacheFolder, endpoint, isOffline, tokenSource } = hubSettings();
  const repos = await readdir(cacheFolder).catch(() => []);
  const count = repos.filter((name) => /^(model|dataset)s--/.test(name)).length;
  return [
    {
      name: 'Hub cache',
      isFine: true,
      found: `${cacheFolder}, ${count} repositories${isOffline ? '; HF_HUB_OFFLINE is set' : ''}`,
    },
    {
      name: 'Hub token',
      isFine: true,
      found: `${tokenSource === undefined ? 'none' : `from ${tokenSource}`}, for ${endpoint}`,
      advice:
        tokenSource === undefined
          ? 'Public models need none. For others set HF_TOKEN, or run `hf auth login`.'
          : undefined,
    },
  ];
}

function gigabytes(bytes: number): string {
  return `${(bytes / GIGABYTE).toFixed(1)} GB`;
}
