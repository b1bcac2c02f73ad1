import type { Command } from 'commander';
import type { GrpoPreset, SettingRow } from '../../config/index.js';
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
    .argument('<method>', 'sft, reward, dpo, kto, ppo, grpo, … or a preset of grpo: dapo, gspo, rloo, …')
    .option('--preset <name>', 'a preset of grpo');
  withExample(withJson(command), 'posttrain config grpo', 'posttrain config grpo --preset dapo');
  command.action(async (method: string, options: { json?: boolean; preset?: string }) => {
    const { describeConfig, GRPO_PRESETS, grpoPreset, METHOD_CONFIGS, nearestName } =
      await import('../../config/index.js');
    const isPreset = method !== 'grpo' && Object.hasOwn(GRPO_PRESETS, method);
    const schema = Object.entries(METHOD_CONFIGS).find(([name]) => name === method)?.[1];
    if (schema === undefined && !isPreset) {
      const names = [...Object.keys(METHOD_CONFIGS), ...Object.keys(GRPO_PRESETS)];
      const nearest = nearestName(method, names);
      throw new UsageError(
        `config: expected a method (${[...new Set(names)].join(', ')}), received ${JSON.stringify(method)}.${nearest === undefined ? '' : ` Did you mean ${nearest}?`}`,
      );
    }
    if (isPreset && options.preset !== undefined) {
      throw new UsageError(
        `config: expected one preset, received ${method} and --preset ${options.preset}.`,
      );
    }
    const presetName = isPreset ? method : options.preset;
    if (presetName !== undefined && !isPreset && method !== 'grpo') {
      throw new UsageError(`config: expected grpo with --preset, received ${method}.`);
    }
    const rows = describeConfig(schema ?? METHOD_CONFIGS.grpo);
    if (presetName === undefined) {
      io.out(
        options.json === true
          ? JSON.stringify({ method, settings: rows })
          : rows.map(describe).join('\n'),
      );
      return;
    }
    const preset = grpoPreset(presetName);
    io.out(
      options.json === true
        ? JSON.stringify({ method: 'grpo', preset })
        : describePreset(preset, rows),
    );
  });
}

function describe({ key, type, default: value, description, origin }: SettingRow): string {
  const shown = value === undefined ? 'must be set' : JSON.stringify(value);
  return `${key} = ${shown}  (${type})\n    ${description}\n    Default: ${origin}`;
}

function describePreset(preset: GrpoPreset, rows: readonly SettingRow[]): string {
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
    'Every other setting has its default: posttrain config grpo',
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
