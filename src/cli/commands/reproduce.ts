import type { Command } from 'commander';
import { UsageError } from '../../errors/index.js';
import { EXIT_CODES, withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

interface ReproduceOptions {
  readonly out?: string;
  readonly seeds: string;
  readonly methods?: string;
  readonly json?: boolean;
}

/** Adds `reproduce`. */
export function registerReproduce(program: Command, context: CommandContext): void {
  const command = program
    .command('reproduce')
    .description(
      'check a published claim on models made on the spot; writes report.md, plot.svg and results.json',
    )
    .argument(
      '<claim>',
      'methods, dapo-ladder, maj-pass, staleness, scst, calculator, optimal-policy, frontier, preference-methods, overoptimisation, sft-dpo-ppo-grpo or prm-vs-orm',
    )
    .option('--out <folder>', 'a new folder (default: runs/reproduce-<claim>)')
    .option('--seeds <list>', 'seeds', '0,1,2')
    .option('--methods <list>', 'of methods only some, such as ppo,dapo');
  withExample(
    withJson(command),
    'posttrain reproduce methods --out runs/methods',
    'posttrain reproduce maj-pass --seeds 0',
  );
  command.action((claim: string, options: ReproduceOptions) => reproduce(context, claim, options));
}

async function reproduce(
  { io, setExitCode }: CommandContext,
  claim: string,
  options: ReproduceOptions,
): Promise<void> {
  const { EXPERIMENTS, METHODS, reproduceMethods } = await import('../../reproduce/index.js');
  const given = {
    ...{ out: options.out ?? `runs/reproduce-${claim}`, seeds: seedsOf(options.seeds) },
    progress: io.stderr,
  };
  const methods = options.methods?.split(',');
  if (methods !== undefined && claim !== 'methods') {
    throw new UsageError(`--methods: expected the claim methods, received ${claim}.`);
  }
  const unknown = methods?.find((name) => !METHODS.some((known) => known === name));
  if (unknown !== undefined) {
    throw new UsageError(
      `--methods: expected some of ${METHODS.join(',')}, received ${JSON.stringify(unknown)}.`,
    );
  }
  const experiment = EXPERIMENTS.find(({ name }) => name === claim);
  if (experiment === undefined && claim !== 'methods') {
    const names = ['methods', ...EXPERIMENTS.map(({ name }) => name)];
    throw new UsageError(
      `reproduce: expected one of ${names.join(', ')}, received ${JSON.stringify(claim)}.`,
    );
  }
  const found = await (experiment?.run(given) ?? reproduceMethods({ ...given, methods }));
  if (typeof found === 'string') {
    setExitCode(EXIT_CODES[found === 'SIGTERM' ? 'SIGTERM' : 'SIGINT']);
    return;
  }
  io.out(options.json === true ? JSON.stringify(found) : found.report);
}

/** A list such as "0,1,2". */
function seedsOf(text: string): number[] {
  const parts = text.split(',').map((part) => part.trim());
  if (
    !parts.every((part) => /^\d+$/.test(part)) ||
    new Set(parts.map(Number)).size < parts.length
  ) {
    throw new UsageError(
      `--seeds: expected different integers of at least 0, received ${JSON.stringify(text)}.`,
    );
  }
  return parts.map(Number);
}
