/** Loads files of judges. Knows modules and their exports, not what judges think. */
import { RewardError } from '../errors/index.js';
import { importUserModule } from '../userCode/index.js';
import type { PairwiseJudge } from './judge.js';
import type { LoadRewardOptions } from './loadReward.js';

const FILE = /\.[cm]?[jt]s$/;
const FILE_HINT =
  'Export a function: export default ({ prompt, completions: [a, b], row }) => (a.length < b.length ? 0 : 1).';

/**
 * The judge that a TypeScript or JavaScript file (`./judge.ts`) exports by default or under the name `judge`. TypeScript
 * files run as they are and may import `posttrain/rewards`.
 *
 * @throws RewardError if it is no such path, the file does not exist, fails while it is loaded, or exports no function
 */
export async function loadJudge(
  spec: string,
  options: LoadRewardOptions = {},
): Promise<PairwiseJudge> {
  if (!FILE.test(spec)) {
    throw new RewardError(
      `loadJudge: expected a file that ends in .ts or .js, received ${JSON.stringify(spec)}.`,
      { hint: 'A file is written with its extension, for example ./judge.ts.' },
    );
  }
  const { path, exports } = await importUserModule(spec, {
    where: 'loadJudge',
    what: 'judge',
    cwd: options.cwd,
    Failure: RewardError,
  });
  const judge = exports['default'] ?? exports['judge'];
  if (isJudge(judge)) return judge;
  throw new RewardError(
    `loadJudge: expected ${path} to export a function by default or named judge, but it exports none.`,
    { hint: FILE_HINT },
  );
}

function isJudge(value: unknown): value is PairwiseJudge {
  return typeof value === 'function';
}
