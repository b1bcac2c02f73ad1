/** `train … --dashboard`: a dashboard in a process of its own, so that training never waits for it. */
import { spawn } from 'node:child_process';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

/**
 * Starts a dashboard over the folder of a run that is about to begin. It ends with this process, whatever ends it: its
 * standard input is a pipe from here, and ends when we do.
 *
 * @param say tells where it cannot be started; training goes on
 */
export function startDashboardBeside(folder: string, say: (text: string) => void): void {
  const program = fileURLToPath(new URL('./main.js', import.meta.url));
  const child = spawn(process.execPath, [program, 'dashboard', folder, '--beside-run'], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  child.on('error', (error) => say(`The dashboard did not start: ${error.message}\n`));
  child.stdin.on('error', () => undefined); // it has ended by itself
  child.unref();
  // The pipe would keep this process alive.
  if (child.stdin instanceof Socket) child.stdin.unref();
}
