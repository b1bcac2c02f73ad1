/**
 * Runs a compiled program of this checkout as if it had been started directly.
 */
import { spawn } from 'node:child_process';
import { setup } from './setup.mjs';
import { describeFailure } from './setup/report.mjs';

/**
 * Sets up, then runs `program` with the arguments, terminal, signals and exit code of this process.
 * @param {string} program
 * @returns {Promise<void>}
 */
export async function runAfterSetup(program) {
  try {
    await setup();
  } catch (error) {
    process.stderr.write(`${describeFailure(error)}\n`);
    process.exitCode = 1;
    return;
  }
  const args = ['--enable-source-maps', program, ...process.argv.slice(2)];
  const child = spawn(process.execPath, args, { stdio: 'inherit' });
  // A terminal sends Ctrl-C to both processes, so SIGINT is only kept from ending this one first. When npm or a script
  // sends a signal to this process alone, the program must hear of it.
  const forward = (/** @type {NodeJS.Signals} */ signal) => {
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
  };
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']))
    process.on(signal, forward);
  child.on('error', (error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
  child.on('close', (code, signal) => {
    process.exitCode = code ?? (signal === 'SIGINT' ? 130 : 143);
    for (const name of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']))
      process.off(name, forward);
  });
}
