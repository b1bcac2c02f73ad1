/** How long a user waits before anything happens: fresh processes of the built command line and library. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { IoError } from '../src/errors/index.js';
import type { StartupJob } from './jobs.js';
import { ROOT } from './machine.js';

/** @returns milliseconds of each process from start to end, by what it does; the first of each is not counted */
export function measureStartup({ model, rounds }: StartupJob): Record<string, number[]> {
  const cli = join(ROOT, 'dist', 'src', 'cli', 'main.js');
  const library = pathToFileURL(join(ROOT, 'dist', 'src', 'index.js')).href;
  if (!existsSync(cli)) {
    throw new IoError(`bench: expected the built command line, but there is no ${cli}.`, {
      hint: 'Run `npm run setup` first.',
    });
  }
  const generate = ['generate', '--model', model, '--prompt', 'abc', '--max-new-tokens', '1'];
  const processes = {
    'node alone, ms': ['--eval', '0'],
    'posttrain --help, ms': [cli, '--help'],
    'import of the library, ms': ['--input-type=module', '--eval', `await import('${library}')`],
    'first token of the tiny model, ms': [cli, ...generate],
  };
  return Object.fromEntries(
    Object.entries(processes).map(([name, args]) => {
      run(args);
      return [name, Array.from({ length: rounds }, () => run(args))];
    }),
  );
}

/** Names of what is measured. */
export const STARTUP_QUANTITIES = [
  'node alone, ms',
  'posttrain --help, ms',
  'import of the library, ms',
  'first token of the tiny model, ms',
] as const;

function run(args: readonly string[]): number {
  const start = performance.now();
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  const milliseconds = performance.now() - start;
  if (status === 0) return milliseconds;
  throw new IoError(
    `bench: expected node ${args.join(' ')} to end with code 0, received ${status}.`,
    {
      hint: stderr,
    },
  );
}
