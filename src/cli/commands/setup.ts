import type { Command } from 'commander';
import { withExample } from '../options.js';
import type { CommandContext } from '../program.js';

/** Adds `setup`. */
export function registerSetup(program: Command, { io }: CommandContext): void {
  const command = program
    .command('setup')
    .description(
      'find or fetch libtorch and build the addon; commands that compute do so by themselves',
    );
  withExample(command, 'posttrain setup', 'LIBTORCH=/opt/libtorch posttrain setup');
  command.action(async () => {
    const { setUp } = await import('../setUp.js');
    await setUp();
    io.out('posttrain is set up for this machine.');
  });
}
