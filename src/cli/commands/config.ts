import type { Command } from 'commander';
import type { Preset, SettingRow } from '../../config/index.js';
import { UsageError } from '../../errors/index.js';
import { withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

/** Adds `config`. */
export function registerConfig(program: Command, { io }: CommandContext): void {
  const command = program
    .command('config')
    .description(
      'list every setting of a method: default, meaning, where the default comes from; with a preset, what it sets and from which sentence',
    )
    .argument(
      '<method>',
      'sft, reward, prm, dpo, kto, ppo, grpo, rejection, … or a preset: dapo, gspo, rloo, raft, …',
    )
    .option('--preset <name>', 'a preset of grpo or rejection');
  withExample(withJson(command), 'posttrain config grpo', 'posttrain config grpo --preset dapo');
  command.action(async (method: string, options: { json?: boolean; preset?: string }) => {
    const config = await import('../../config/index.js');
    const schemas = config.METHOD_CONFIGS;
    const presets = { grpo: config.GRPO_PRESETS, rejection: config.REJECTION_PRESETS };
    const ofPreset = Object.entries(presets).find(
      ([name, known]) => method !== name && Object.hasOwn(known, method),
    )?.[0];
    const schema = Object.entries(schemas).find(([name]) => name === (ofPreset ?? method))?.[1];
    if (schema === undefined) {
      const names = [...Object.keys(schemas), ...Object.values(presets).flatMap(Object.keys)];
      const nearest = config.nearestName(method, names);
      throw new UsageError(
        `config: expected a method (${[...new Set(names)].join(', ')}), received ${JSON.stringify(method)}.${nearest === undefined ? '' : ` Did you mean ${nearest}?`}`,
      );
    }
    if (ofPreset !== undefined && options.preset !== undefined) {
      throw new UsageError(
        `config: expected one preset, received ${method} and --preset ${options.preset}.`,
      );
    }
    const rows = config.describeConfig(schema);
    const presetName = ofPreset === undefined ? options.preset : method;
    if (presetName === undefined) {
      io.out(
        options.json === true
          ? JSON.stringify({ method, settings: rows })
          : rows.map(describe).join('\n'),
      );
      return;
    }
    const of = ofPreset ?? method;
    if (of !== 'grpo' && of !== 'rejection') {
      throw new UsageError(`config: expected grpo or rejection with --preset, received ${method}.`);
    }
    const preset =
      of === 'grpo' ? config.grpoPreset(presetName) : config.rejectionPreset(presetName);
    io.out(
      options.json === true
        ? JSON.stringify({ method: of, preset })
        : describePreset(preset, rows, of),
    );
  });
}

function describe({ key, type, default: value, description, origin }: SettingRow): string {
  const shown = value === undefined ? 'must be set' : JSON.stringify(value);
  return `${key} = ${shown}  (${type})\n    ${description}\n    Default: ${origin}`;
}

function describePreset(
  preset: Preset<object>,
  rows: readonly SettingRow[],
  method: string,
): string {
  const { name, summary, paper, settings, sources, departures } = preset;
  const set = Object.entries(sources).map(([key, source]) => {
    const known = rows.find((row) => row.key === key);
    const value = JSON.stringify(valueAt(settings, key.split('.')));
    const before =
      known?.default === undefined ? '' : `  (default ${JSON.stringify(known.default)})`;
    return `${key} = ${value}${before}\n    ${known?.description ?? ''}\n    Source: ${source}`;
  });
  const differs = departures.map((departure) => `  - ${departure}`);
  return [
    `${name}: ${summary}`,
    `Paper: ${paper}`,
    '',
    ...set,
    ...(differs.length > 0 ? ['', 'What differs from the paper:', ...differs] : []),
    '',
    `Every other setting has its default: posttrain config ${method}`,
  ].join('\n');
}

function valueAt(values: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (at, key) =>
      typeof at === 'object' && at !== null
        ? Object.entries(at).find(([name]) => name === key)?.[1]
        : undefined,
    values,
  );
}
