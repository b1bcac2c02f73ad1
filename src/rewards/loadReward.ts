/** Loads reward files. Knows modules and their exports, not what rewards compute. */
import { existsSync, statSync } from 'node:fs';
import { basename, extname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createJiti } from 'jiti';
import { RewardError } from '../errors/index.js';
import { parseRewardSpec } from './rewardSpec.js';
import type { NamedReward, RewardFunction } from './reward.js';

const FILE_HINT =
  'Export a function: export default ({ completion, row }) => (completion === row.answer ? 1 : 0).';

/** Settings of `loadReward`. */
export interface LoadRewardOptions {
  /** Folder that relative paths start from. The current one unless set. */
  readonly cwd?: string | undefined;
}

/**
 * The rewards that a specification stands for (see `parseRewardSpec`), each with weight 1. A file exports its rewards as
 * a default function (named after the function, or the file), a function named `reward`, a default object of functions,
 * or any named functions. TypeScript files run as they are and may import `posttrain/rewards`.
 *
 * @throws RewardError if the specification is malformed, the file does not exist, fails while it is loaded, or exports
 *   no function
 */
export async function loadReward(
  spec: string,
  options: LoadRewardOptions = {},
): Promise<NamedReward[]> {
  const parsed = parseRewardSpec(spec);
  if (parsed.kind === 'builtin') return [parsed.reward];

  const path = resolve(options.cwd ?? process.cwd(), parsed.path);
  if (!existsSync(path) || !statSync(path).isFile()) {
    throw new RewardError(`loadReward: expected a reward file at ${path}, but there is none.`, {
      hint: 'Paths are relative to the current folder.',
    });
  }
  const rewards = rewardsOf(await importFile(path), path);
  if (rewards.length === 0) {
    throw new RewardError(
      `loadReward: expected ${path} to export a function, but it exports none.`,
      {
        hint: FILE_HINT,
      },
    );
  }
  if (parsed.only === undefined) return rewards;
  const chosen = rewards.filter(({ name }) => name === parsed.only);
  if (chosen.length === 0) {
    throw new RewardError(
      `loadReward: expected ${path} to export a reward named ${parsed.only}, but it exports ${rewards.map(({ name }) => name).join(', ')}.`,
    );
  }
  return chosen;
}

async function importFile(path: string): Promise<Readonly<Record<string, unknown>>> {
  // From the sources this file is .ts, built it is .js: the entry beside it has the same extension.
  const entry = new URL(`./index${extname(import.meta.url)}`, import.meta.url);
  const jiti = createJiti(import.meta.url, {
    alias: { 'posttrain/rewards': fileURLToPath(entry) },
    // Nothing is written beside the user's file, and an edited file is never taken from an old cache.
    fsCache: false,
    moduleCache: false,
    interopDefault: false,
  });
  try {
    const module: unknown = await jiti.import(path);
    if (typeof module === 'function') return { default: module }; // CommonJS: module.exports = …
    return typeof module === 'object' && module !== null
      ? Object.fromEntries(Object.entries(module))
      : {};
  } catch (error) {
    throw new RewardError(
      `loadReward: expected ${path} to load, but it threw ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}.`,
      { hint: 'Fix the file, or run it alone to see where it fails.', cause: error },
    );
  }
}

function rewardsOf(module: Readonly<Record<string, unknown>>, path: string): NamedReward[] {
  const main = module['default'] ?? module['reward'];
  if (isReward(main)) {
    const file = basename(path, extname(path));
    // An unnamed default export is called "default" by the language and "_default" by the compiler.
    const named = !['', 'default', '_default', 'reward'].includes(main.name);
    return [{ name: named ? main.name : file, weight: 1, fn: main }];
  }
  const entries =
    typeof main === 'object' && main !== null ? Object.entries(main) : Object.entries(module);
  return entries.flatMap(([name, fn]) => (isReward(fn) ? [{ name, weight: 1, fn }] : []));
}

function isReward(value: unknown): value is RewardFunction {
  return typeof value === 'function';
}
