/** Gets libtorch and builds the addon, where a command needs them for the first time. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Command } from 'commander';
import { NativeError } from '../errors/index.js';
import type { Io } from './io.js';

/** Commands that compute. The others work before the set-up. */
const COMPUTING: ReadonlySet<string> = new Set([
  ...['quickstart', 'init', 'train', 'generate', 'eval', 'label', 'merge', 'reproduce'],
]);

/** Sets up unless that was done, before a command that computes. @throws NativeError as `setUp` does */
export async function setUpBefore(called: Command, io: Io): Promise<void> {
  let command = called;
  while (command.parent?.parent) command = command.parent; // `train` of `posttrain train sft`
  if (!COMPUTING.has(command.name())) return;
  const { addonFile } = await import('../torch/installation.js');
  if (addonFile() !== undefined) return;
  io.stderr.write('posttrain is set up for this machine, once:\n');
  await setUp();
}

/**
 * Runs the set-up, which does only what is still to be done and tells it on standard error.
 *
 * @throws NativeError where it fails
 */
export async function setUp(): Promise<void> {
  const { installedHome, packageRoot } = await import('../torch/installation.js');
  const root = packageRoot();
  const home = installedHome(root);
  // A process of its own: scripts/ runs before anything is compiled, and is no part of what is.
  const args = [
    join(root, 'scripts', 'setup.mjs'),
    ...(home === undefined ? [] : ['--home', home]),
  ];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 2, 2] });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (code === 0) return;
  throw new NativeError(`setup: expected it to succeed, but it ended with code ${String(code)}.`, {
    hint: 'What to do stands above. Then run: npx posttrain setup',
  });
}
