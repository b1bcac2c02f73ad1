/** Starts measuring processes, ours and Python's, each fresh. Knows nothing of what they measure. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { IoError, UsageError } from '../src/errors/index.js';
import type { Job, WorkerReport } from './jobs.js';
import { ROOT } from './machine.js';

/** The command that installs the Python side, below the checkout. */
export const INSTALL_PYTHON =
  'python3 -m venv build/bench-python && build/bench-python/bin/pip install torch==2.13.0';

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

/** Measures our side in a fresh process. */
export function measureOurs(job: Job, options: { profile?: boolean } = {}): Promise<WorkerReport> {
  const worker = fileURLToPath(
    new URL(import.meta.url.endsWith('.ts') ? 'worker.ts' : 'worker.js', import.meta.url),
  );
  const args = [...process.execArgv, worker, JSON.stringify(job)];
  return lastLine(process.execPath, options.profile === true ? [...args, '--profile'] : args);
}

/** Measures PyTorch from Python in a fresh process. */
export function measurePython(python: string, job: Job): Promise<WorkerReport> {
  return runPython(python, `${job.kind}.py`, job);
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
