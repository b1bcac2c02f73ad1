/** Our own command line in another process, for runs whose memory is measured. */
import { spawn } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { IoError } from '../errors/index.js';
import type { ProgressStream } from '../runs/index.js';
import { Stopped } from './experiment.js';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/**
 * Runs a command, whose peak memory is then that of one run. What it says goes to `progress`; a signal ends both.
 *
 * @throws IoError where the command fails, with the end of what it said
 */
export async function trainInProcess(
  args: readonly string[],
  progress: ProgressStream | null,
): Promise<void> {
  const main = fileURLToPath(new URL(`../cli/main${extname(import.meta.url)}`, import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, main, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (part: Buffer) => {
    progress?.write(part.toString());
    said = `${said}${part.toString()}`.slice(-2000);
  });
  let stoppedBy: NodeJS.Signals | undefined;
  const stop = (signal: NodeJS.Signals): void => {
    stoppedBy = signal;
    child.kill(signal);
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    if (stoppedBy) throw new Stopped(stoppedBy);
    if (code !== 0) {
      throw new IoError(`reproduce: ${args.slice(0, 2).join(' ')} ended with ${code}: ${said}`);
    }
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}
