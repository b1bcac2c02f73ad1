/** Starts measuring processes, ours and Python's, each fresh. Knows nothing of what they measure. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { IoError, UsageError } from '../src/errors/index.js';
import type { Job, WorkerReport } from './jobs.js';
import { busySeconds, ROOT } from './machine.js';
import type { Measurement } from './statistics.js';

/** The command that installs the Python side, below the checkout. */
export const INSTALL_PYTHON =
  'python3 -m venv build/bench-python && build/bench-python/bin/pip install torch==2.13.0 tokenizers==0.23.3 transformers==5.18.0 trl==1.13.0 peft==0.21.2';

/** The command that installs llama.cpp, below the checkout. */
export const INSTALL_LLAMA =
  'npm install --prefix build/bench-llama --omit=optional node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1';

/**
 * The interpreter of the Python side.
 *
 * @param path from `--python`; else POSTTRAIN_BENCH_PYTHON, else the environment that `INSTALL_PYTHON` makes
 * @throws UsageError when there is no such file
 */
export function pythonPath(path: string | undefined): string {
  const found =
    path ??
    process.env['POSTTRAIN_BENCH_PYTHON'] ??
    join(ROOT, 'build', 'bench-python', 'bin', 'python');
  if (existsSync(found)) return found;
  throw new UsageError(`bench: expected a Python interpreter, but there is no ${found}.`, {
    hint: `Install the Python side with \`${INSTALL_PYTHON}\`, or name an interpreter that has torch with --python.`,
  });
}

/** Of all cores' time; more than that by other programs and a measurement says little. */
const QUIET_SHARE = 0.04;
const QUIET_SECONDS = 3;
const MOST_REPEATS = 20;

/**
 * Runs a measuring process and finds out how much of the machine others took meanwhile.
 *
 * @param quiet wait for a machine at rest first, and repeat the process when it was disturbed, up to 20 times. Where the
 *   system does not tell how busy it is, this does nothing.
 */
export async function measureUndisturbed(
  run: () => Promise<WorkerReport>,
  quiet: boolean,
): Promise<Measurement> {
  for (let attempt = 1; ; attempt++) {
    if (quiet) await waitForRest();
    const [busy, start] = [busySeconds(), performance.now()];
    const report = await run();
    const [busyAfter, seconds] = [busySeconds(), (performance.now() - start) / 1000];
    const { cpuSeconds } = report;
    if (busy === undefined || busyAfter === undefined || cpuSeconds === null) {
      return { ...report, othersShare: null };
    }
    const others = busyAfter - busy - cpuSeconds;
    const share = Math.max(0, others / (seconds * availableParallelism()));
    const othersShare = Math.round(share * 1000) / 1000;
    if (!quiet || share <= QUIET_SHARE || attempt > MOST_REPEATS) return { ...report, othersShare };
    process.stderr.write(`others took ${Math.round(share * 100)} % of the machine: once more\n`);
  }
}

async function waitForRest(): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    if (attempt === 1) process.stderr.write('waiting for the machine to be at rest\n');
    const before = busySeconds();
    if (before === undefined) return;
    await new Promise((resolve) => setTimeout(resolve, QUIET_SECONDS * 1000));
    const busy = (busySeconds() ?? 0) - before;
    if (busy <= QUIET_SHARE * QUIET_SECONDS * availableParallelism()) return;
  }
}

/** Measures our side in a fresh process. */
export function measureOurs(job: Job, options: { profile?: boolean } = {}): Promise<WorkerReport> {
  return measureHere('worker', job, options.profile === true ? ['--profile'] : []);
}

/** Runs a file of this folder with a job, in this process's Node. */
function measureHere(
  file: 'worker' | 'llama',
  job: Job,
  further: readonly string[] = [],
): Promise<WorkerReport> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const path = fileURLToPath(new URL(`${file}.${extension}`, import.meta.url));
  return lastLine(process.execPath, [...process.execArgv, path, JSON.stringify(job), ...further]);
}

/** What ours is compared with. */
export interface OtherSide {
  readonly name: string;
  /** An interpreter, where the other side is a script of Python. */
  readonly python?: string;
}

/**
 * @param python from `--python`
 * @throws UsageError where the other side is not installed
 */
export function otherSide(name: string, python: string | undefined): OtherSide {
  if (name !== 'llama.cpp') return { name, python: pythonPath(python) };
  const folder = join(ROOT, 'build', 'bench-llama', 'node_modules', 'node-llama-cpp');
  if (existsSync(folder)) return { name };
  throw new UsageError(`bench: expected node-llama-cpp, but there is no ${folder}.`, {
    hint: `Install it with \`${INSTALL_LLAMA}\`.`,
  });
}

/** Scripts of bench/python by the other side and the kind of the job, where it is not the kind's own name. */
const SCRIPTS: Readonly<Record<string, string>> = {
  'trl train': 'trl_train.py',
  'torch train': 'ppo.py',
  'transformers generate': 'transformers_generate.py',
};

/** Measures the other side in a fresh process. */
export function measureOther(other: OtherSide, job: Job): Promise<WorkerReport> {
  if (other.python === undefined) return measureHere('llama', job);
  const script = SCRIPTS[`${other.name} ${job.kind}`] ?? `${job.kind}.py`;
  return runPython(other.python, script, job);
}

/** Runs a script of bench/python with one argument, and reads what it prints as its last line. */
export function runPython<Result>(
  python: string,
  script: string,
  argument: unknown,
): Promise<Result> {
  const path = join(ROOT, 'bench', 'python', script);
  return lastLine(python, ['-B', path, JSON.stringify(argument)]);
}

/** @throws IoError when the program cannot be started or fails */
function lastLine<Result>(program: string, args: readonly string[]): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    child.on('error', (cause) => {
      reject(new IoError(`bench: ${program} cannot be started: ${cause.message}`, { cause }));
    });
    child.on('close', (code, signal) => {
      if (code !== 0) {
        reject(
          new IoError(
            `bench: expected ${program} to end with code 0, received ${code ?? signal}.`,
            {
              hint: 'What it printed stands above.',
            },
          ),
        );
        return;
      }
      resolve(JSON.parse(output.trimEnd().split('\n').at(-1) ?? '') as Result);
    });
  });
}
