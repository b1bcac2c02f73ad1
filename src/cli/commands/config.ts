import type { Command } from 'commander';
import type { SettingRow } from '../../config/index.js';
import { UsageError } from '../../errors/index.js';
import { withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

/** Adds `config`. */
export function registerConfig(program: Command, { io }: CommandContext): void {
  const command = program
    .command('config')
    .description('list every setting of a method: default, meaning, where the default comes from')
    .argument('<method>', 'sft or grpo');
  withExample(withJson(command), 'posttrain config grpo');
  command.action(async (method: string, options: { json?: boolean }) => {
    const { describeConfig, GrpoConfig, nearestName, SftConfig } =
      await import('../../config/index.js');
    const schemas = { sft: SftConfig, grpo: GrpoConfig };
    const schema = Object.entries(schemas).find(([name]) => name === method)?.[1];
    if (schema === undefined) {
      const names = Object.keys(schemas);
      const nearest = nearestName(method, names);
      throw new UsageError(
        `config: expected a method (${names.join(', ')}), received ${JSON.stringify(method)}.${nearest === undefined ? '' : ` Did you mean ${nearest}?`}`,
      );
    }
    const rows = describeConfig(schema);
    io.out(
      options.json === true
        ? JSON.stringify({ method, settings: rows })
        : rows.map(describe).join('\n'),
    );
  });
}

function describe({ key, type, default: value, description, origin }: SettingRow): string {
  const shown = value === undefined ? 'must be set' : JSON.stringify(value);
  return `${key} = ${shown}  (${type})\n    ${description}\n    Default: ${origin}`;
}
