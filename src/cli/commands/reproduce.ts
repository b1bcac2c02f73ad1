import type { Command } from 'commander';
import { UsageError } from '../../errors/index.js';
import { withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

interface ReproduceOptions {
  readonly out: string;
  readonly seeds: string;
  readonly methods?: string;
  readonly json?: boolean;
}

/** Adds `reproduce`. */
export function registerReproduce(program: Command, { io }: CommandContext): void {
  const command = program
    .command('reproduce')
    .description(
      'check a claim on models made on the spot; writes report.md, plot.svg, results.json',
    )
    .argument('<claim>', 'methods: every on-policy method from the same SFT checkpoint')
    .requiredOption('--out <folder>', 'a new folder')
    .option('--seeds <list>', 'seeds, such as 0,1,2', '0,1,2')
    .option('--methods <list>', 'only some of the methods, such as ppo,dapo');
  withExample(withJson(command), 'posttrain reproduce methods --out runs/methods --seeds 0');
  command.action(async (claim: string, options: ReproduceOptions) => {
    if (claim !== 'methods') {
      throw new UsageError(`reproduce: expected methods, received ${JSON.stringify(claim)}.`);
    }
    const { METHODS, methodsReport, reproduceMethods } = await import('../../reproduce/index.js');
    const methods = options.methods?.split(',');
    const unknown = methods?.find((name) => !METHODS.some((known) => known === name));
    if (unknown !== undefined) {
      throw new UsageError(
        `--methods: expected some of ${METHODS.join(',')}, received ${JSON.stringify(unknown)}.`,
      );
    }
    const seeds = options.seeds.split(',').map(Number);
    if (!seeds.every((seed) => Number.isInteger(seed) && seed >= 0)) {
      throw new UsageError(`--seeds: expected integers of at least 0, received ${options.seeds}.`);
    }
    const runs = await reproduceMethods({ out: options.out, seeds, methods, progress: io.stderr });
    io.out(options.json === true ? JSON.stringify(runs) : methodsReport(runs));
  });
}
