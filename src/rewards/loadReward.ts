/** Loads reward files. Knows modules and their exports, not what rewards compute. */
import { basename, extname } from 'node:path';
import { RewardError } from '../errors/index.js';
import { importUserModule } from '../userCode/index.js';
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

  const { path, exports } = await importUserModule(parsed.path, {
    where: 'loadReward',
    what: 'reward',
    cwd: options.cwd,
    Failure: RewardError,
  });
  const rewards = rewardsOf(exports, path);
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
