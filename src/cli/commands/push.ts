import type { Command } from 'commander';
import { withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

interface PushCommandOptions {
  readonly private?: boolean;
  readonly dryRun?: boolean;
  readonly message?: string;
  readonly base?: string;
  readonly json?: boolean;
}

/** Adds `push`. */
export function registerPush(program: Command, { io }: CommandContext): void {
  const command = program
    .command('push')
    .description(
      "upload a run's model to the Hugging Face Hub, with a card that tells how it was made",
    )
    .argument('<run>', 'run directory, or folder of a model or adapter')
    .argument('<repo>', 'repository as org/name; made where there is none')
    .option('--private', 'make a new repository private')
    .option('--message <text>', 'title of the commit')
    .option(
      '--base <name>',
      'base model of an adapter as org/name[@revision], where the adapter names a folder of this machine',
    )
    .option('--dry-run', 'upload nothing: print the card and the list of files');
  withExample(
    withJson(command),
    'posttrain push runs/grpo me/my-model --dry-run',
    'posttrain push runs/grpo me/my-model --private',
  );
  command.action(async (source: string, repo: string, options: PushCommandOptions) => {
    const { planPush, pushPlan } = await import('../../publishing/index.js');
    const plan = await planPush(source, repo, { base: options.base });
    if (options.dryRun === true) {
      const files = plan.files.map(({ path, size }) => ({ path, size }));
      if (options.json === true) io.out(JSON.stringify({ repo, card: plan.card, files }));
      else {
        io.out(plan.card);
        for (const { path, size } of files) io.out(`${String(size).padStart(12)}  ${path}`);
      }
      return;
    }
    const result = await pushPlan(plan, {
      isPrivate: options.private,
      message: options.message,
      progress: io.stderr,
    });
    io.out(
      options.json === true
        ? JSON.stringify(result)
        : `${result.files.length} files are at ${result.url}, commit ${result.commit}.`,
    );
  });
}
