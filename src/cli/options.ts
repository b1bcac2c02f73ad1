/** Options that several commands share, and the reading of their values. */
import { InvalidArgumentError, type Command } from 'commander';

/** Collects an option that may be given several times. */
export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}

/** Reads a number. */
export function asNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value))
    throw new InvalidArgumentError('Expected a number.');
  return value;
}

/** Reads an integer of at least 0. */
export function asCount(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('Expected an integer of at least 0.');
  return Number(text);
}

/** Reads an integer of at least 1. */
export function asPositive(text: string): number {
  if (!/^\d+$/.test(text) || Number(text) < 1)
    throw new InvalidArgumentError('Expected an integer of at least 1.');
  return Number(text);
}

/** Reads integers of at least 1 between commas. */
export function asPositives(text: string): number[] {
  return text.split(',').map((part) => asPositive(part.trim()));
}

/** Adds `--json`. */
export function withJson(command: Command): Command {
  return command.option('--json', 'print the result as one line of JSON');
}

/** What `--base` is for. */
export const BASE_HELP =
  'base model of an adapter, where it is not what adapter_config.json names: a folder, or org/name[@revision] of the Hub';

/** Adds where and in which numbers a model is computed, and where the base of an adapter lies. */
export function withPlacement(command: Command): Command {
  return command
    .option('--device <device>', 'auto, cpu or cuda', 'auto')
    .option('--dtype <dtype>', 'float32, bfloat16 or float64', 'float32')
    .option('--base <model>', BASE_HELP);
}

/** Ends a command's help with an example. */
export function withExample(command: Command, ...lines: readonly string[]): Command {
  const heading = lines.length === 1 ? 'Example' : 'Examples';
  return command.addHelpText(
    'after',
    `\n${heading}:\n${lines.map((line) => `  $ ${line}`).join('\n')}`,
  );
}

/** Exit codes of commands that a signal stopped, everything saved: 128 and the signal's number, as shells have it. */
export const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;
