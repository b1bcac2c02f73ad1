/** Where the inputs of a pipeline are: names in a file of settings start from that file, those of a command from here. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { ConfigSource, RlhfConfig } from '../config/index.js';
import { parseHubId } from '../hub/index.js';
import { parseRewardSpec } from '../rewards/index.js';

/** Names of inputs that hold a reward. */
const REWARDS: readonly string[] = ['annotator', 'evalReward'];

/** Inputs as a command is given them, with paths from the current folder. */
export type RlhfGivenInputs = {
  readonly [Name in keyof RlhfConfig['inputs']]?: string | readonly string[] | undefined;
};

/**
 * Settings whose inputs have absolute paths. What is neither a path nor a list of paths is left to the check of the
 * settings.
 *
 * @param folder that of the file of settings; `--set` starts from the current one
 * @param given is stronger than the settings
 */
export function withInputs(
  source: ConfigSource,
  folder: string,
  given: RlhfGivenInputs = {},
): ConfigSource {
  const written = source.values['inputs'];
  const isMap = typeof written === 'object' && written !== null && !Array.isArray(written);
  if (written !== undefined && !isMap) return source;
  const fromFile = Object.entries(written ?? {}).map(([name, value]) => {
    const isSet = source.place(['inputs', name]).startsWith('--set ');
    return [name, absolute(name, value, isSet ? '.' : folder)];
  });
  const fromCommand = Object.entries(given)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => [name, absolute(name, value, '.')]);
  const inputs = Object.fromEntries([...fromFile, ...fromCommand]) as Record<string, unknown>;
  return {
    values: { ...source.values, ...(Object.keys(inputs).length > 0 && { inputs }) },
    place: (path) => {
      const [first, name] = path;
      const isGiven = first === 'inputs' && given[name as keyof RlhfGivenInputs] !== undefined;
      return isGiven ? OPTIONS[name as keyof RlhfGivenInputs] : source.place(path);
    },
  };
}

/** The option of the command for each input. */
const OPTIONS: Readonly<Record<keyof RlhfGivenInputs, string>> = {
  model: '--model',
  base: '--base',
  demonstrations: '--demonstrations',
  prompts: '--prompts',
  preferences: '--preferences',
  evalPrompts: '--eval-prompts',
  annotator: '--annotator',
  evalReward: '--eval-reward',
};

/** A path of a folder of settings. A name of the Hub stays, unless something of that name lies there. */
function located(folder: string, value: string): string {
  const path = resolve(folder, value);
  const isHubId =
    parseHubId(value) !== undefined && !/\.(jsonl|ndjson|json|csv|parquet)$/i.test(value);
  return isHubId && !existsSync(path) ? value : path;
}

function absolute(name: string, value: unknown, folder: string): unknown {
  if (Array.isArray(value)) return value.map((part) => absolute(name, part, folder));
  if (typeof value !== 'string') return value;
  if (!REWARDS.includes(name)) return located(folder, value);
  if (value.startsWith('model:')) return `model:${located(folder, value.slice('model:'.length))}`;
  // A specification that is none is told where it is read.
  if (!/\.[cm]?[jt]s(#\w+)?$/.test(value)) return value;
  const parsed = parseRewardSpec(value);
  if (parsed.kind !== 'file') return value;
  return `${resolve(folder, parsed.path)}${parsed.only === undefined ? '' : `#${parsed.only}`}`;
}
