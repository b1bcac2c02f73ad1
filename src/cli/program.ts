/**
 * The command line: which commands there are, and how they end. Exit codes: 0 done, 1 failed, 2 called wrongly, 130 and
 * 143 stopped by SIGINT and SIGTERM with everything saved.
 *
 * Commands load what they need when they run, so that `--help` never waits for libtorch.
 */
import { Command, CommanderError } from 'commander';
import { PosttrainError, UsageError } from '../errors/index.js';
import { registerConfig } from './commands/config.js';
import { registerDashboard } from './commands/dashboard.js';
import { registerData } from './commands/data.js';
import { registerDoctor } from './commands/doctor.js';
import { registerEval } from './commands/eval.js';
import { registerGenerate } from './commands/generate.js';
import { registerInit } from './commands/init.js';
import { registerReproduce } from './commands/reproduce.js';
import { registerMerge } from './commands/merge.js';
import { registerLabel } from './commands/label.js';
import { registerPush } from './commands/push.js';
import { registerQuickstart } from './commands/quickstart.js';
import { registerSetup } from './commands/setup.js';
import { registerTrain } from './commands/train.js';
import type { Io } from './io.js';
import { withExample } from './options.js';
import { setUpBefore } from './setUp.js';
import { packageVersion } from './version.js';

/** What a command needs to know of the one who called it. */
export interface CommandContext {
  readonly io: Io;
  /** Sets another exit code than 0 for a command that ends without an error. */
  readonly setExitCode: (code: number) => void;
}

/** The program with all its commands. */
export function buildProgram(context: CommandContext): Command {
  const { io } = context;
  const program = new Command('posttrain')
    .description(
      'Post-training for language models: supervised fine-tuning, PPO, GRPO and its family, sampling, evaluation.',
    )
    .version(packageVersion(), '--version', 'print the version')
    .option('--verbose', 'show where an error was thrown, and its causes')
    .helpOption('-h, --help', 'show help')
    .helpCommand('help [command]', 'show the help of a command')
    .configureOutput({
      writeOut: (text) => io.out(text.replace(/\n$/, '')),
      writeErr: (text) => void io.stderr.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, '')),
    })
    .showSuggestionAfterError()
    .showHelpAfterError('Add --help to see how it is called.')
    .exitOverride()
    .hook('preAction', (_program, called) => setUpBefore(called, io));
  for (const register of [
    registerQuickstart,
    registerInit,
    registerTrain,
    registerGenerate,
    registerEval,
    registerDashboard,
    registerLabel,
    registerData,
    registerPush,
    registerConfig,
    registerMerge,
    registerReproduce,
    registerSetup,
    registerDoctor,
  ]) {
    register(program, context);
  }
  withExample(program, 'posttrain quickstart', 'posttrain help train grpo');
  inherit(program);
  return program;
}

/** Subcommands print and fail as the program does. */
function inherit(command: Command): void {
  for (const sub of command.commands) {
    sub.copyInheritedSettings(command);
    sub.configureHelp({ showGlobalOptions: true });
    inherit(sub);
  }
}

/**
 * Runs a command line.
 *
 * @param argv what follows the program's name
 * @returns the exit code
 */
export async function main(argv: readonly string[], io: Io): Promise<number> {
  let exitCode = 0;
  const program = buildProgram({ io, setExitCode: (code) => (exitCode = code) });
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return codeOf(error);
    const { verbose = false } = program.opts<{ verbose?: boolean }>();
    io.stderr.write(`${describeError(error, verbose)}\n`);
    return error instanceof UsageError ? 2 : 1;
  }
}

/** Help and version are no errors; everything else that commander throws is a wrong call. */
function codeOf({ code }: CommanderError): number {
  return ['commander.helpDisplayed', 'commander.version'].includes(code) ? 0 : 2;
}

/** Message and hint; with `verbose` the stack and those of all causes. An error that is ours to repair asks for it. */
export function describeError(error: unknown, verbose: boolean): string {
  const isExpected = error instanceof PosttrainError;
  const message = error instanceof Error ? error.message : String(error);
  const lines = [isExpected ? message : `Unexpected error: ${message}`];
  if (isExpected && error.hint !== undefined) lines.push(error.hint);
  if (!isExpected && !verbose) lines.push('Run it with --verbose to see where it happened.');
  if (verbose) {
    for (
      let at: unknown = error, depth = 0;
      at instanceof Error && depth < 8;
      at = at.cause, depth++
    ) {
      lines.push(`${depth === 0 ? '' : 'Caused by: '}${at.stack ?? at.message}`);
    }
  }
  return lines.join('\n');
}
