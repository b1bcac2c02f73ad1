import type { Command } from 'commander';
import { asCount, EXIT_CODES, withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

interface QuickstartOptions {
  readonly out?: string;
  readonly seed: number;
  readonly json?: boolean;
}

/** Adds `quickstart`. */
export function registerQuickstart(program: Command, { io, setExitCode }: CommandContext): void {
  const command = program
    .command('quickstart')
    .description('train a small model made on the spot, by SFT and then GRPO (about three minutes)')
    .option('--out <folder>', 'where to write (default: runs/quickstart)')
    .option('--seed <n>', 'seed of task, model and training', asCount, 0);
  withExample(withJson(command), 'posttrain quickstart --seed 1');
  command.action(async ({ out, seed, json }: QuickstartOptions) => {
    const { quickstart } = await import('../../quickstart/quickstart.js');
    const result = await quickstart({ out, seed, progress: io.stderr });
    if (typeof result === 'string') {
      setExitCode(EXIT_CODES[result === 'SIGTERM' ? 'SIGTERM' : 'SIGINT']);
      return;
    }
    if (json === true) {
      const { seconds, ...rest } = result;
      io.out(JSON.stringify({ ...rest, seconds: seconds.total, phaseSeconds: seconds }));
      return;
    }
    const { quickstartReport } = await import('../../quickstart/report.js');
    io.out(quickstartReport(result));
  });
}
