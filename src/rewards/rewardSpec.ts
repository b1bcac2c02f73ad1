/** The text form of rewards on a command line or in a configuration. */
import { RewardError } from '../errors/index.js';
import { exactMatch, formatMatch, lengthReward, numericMatch } from './builtin.js';
import type { NamedReward } from './reward.js';
import {
  bleuReward,
  corpusCiderReward,
  rougeLReward,
  rougeNReward,
} from './textMetrics/metricRewards.js';

/** What a specification stands for. */
export type RewardSpec =
  | { readonly kind: 'builtin'; readonly reward: NamedReward }
  | {
      readonly kind: 'file';
      readonly path: string;
      /** The export or entry that is wanted alone (`./rewards.ts#concise`). */
      readonly only: string | undefined;
    };

/** How each built-in reward is written, for help texts. */
export const BUILTIN_REWARDS: Readonly<Record<string, string>> = {
  'exact-match':
    'exact-match[:column]: 1 if the completion equals the column (answer unless given)',
  'numeric-match':
    'numeric-match[:column]: 1 if the last number of the completion equals the last number of the column',
  format: 'format:/regex/flags: 1 if the pattern occurs in the completion',
  length: 'length:N or length:target=N: at most N tokens, or about N tokens',
  bleu: 'bleu[:column]: sentence BLEU, 0 to 1, against the column (references unless given)',
  'rouge-1': 'rouge-1[:column]: F1 of the words shared with the column (references unless given)',
  'rouge-2':
    'rouge-2[:column]: F1 of the word pairs shared with the column (references unless given)',
  'rouge-l':
    'rouge-l[:column]: F1 of the longest common subsequence with the column (references unless given)',
  'cider-d':
    'cider-d[:column]: CIDEr-D, 0 to 10, with the document frequencies of the column (references unless given)',
  cider:
    'cider[:column]: CIDEr, 0 to 10, with the document frequencies of the column (references unless given)',
};

/** The built-in rewards that compare with a column, and the column where none is given. */
const COLUMNS: ReadonlyMap<string, string> = new Map([
  ['exact-match', 'answer'],
  ['numeric-match', 'answer'],
  ...['bleu', 'rouge-1', 'rouge-2', 'rouge-l', 'cider-d', 'cider'].map(
    (name) => [name, 'references'] as const,
  ),
]);

const FILE = /\.(?:[cm]?[jt]s)(?:#(\w+))?$/;

/**
 * Parses a reward: the path of a TypeScript or JavaScript file (`./reward.ts`, `./rewards.ts#concise` for one of
 * several), or a built-in one (`exact-match`, `exact-match:solution`, `numeric-match`, `format:/<answer>/i`,
 * `length:200`, `length:target=50`, `bleu`, `rouge-l:summary`, `cider-d`). The document frequencies of `cider-d` and
 * `cider` are those of the rows that the reward's `prepare` is called with.
 *
 * @throws RewardError if it is neither, or an argument is malformed
 */
export function parseRewardSpec(spec: string): RewardSpec {
  const file = FILE.exec(spec);
  if (file !== null) {
    const only = file[1];
    return {
      kind: 'file',
      path: only === undefined ? spec : spec.slice(0, -only.length - 1),
      only,
    };
  }
  const { name, argument } = splitSpec(spec);
  return { kind: 'builtin', reward: { name, weight: 1, ...builtin(spec, name, argument) } };
}

/**
 * The column that a built-in reward compares with, or undefined for other rewards: what every row must have for it.
 */
export function rewardColumn(spec: string): string | undefined {
  if (FILE.test(spec)) return undefined;
  const { name, argument } = splitSpec(spec);
  const column = COLUMNS.get(name);
  return column === undefined ? undefined : (argument ?? column);
}

function splitSpec(spec: string): { name: string; argument: string | undefined } {
  const colon = spec.indexOf(':');
  return colon === -1
    ? { name: spec, argument: undefined }
    : { name: spec.slice(0, colon), argument: spec.slice(colon + 1) };
}

function builtin(
  spec: string,
  name: string,
  argument: string | undefined,
): Pick<NamedReward, 'fn' | 'prepare'> {
  if (COLUMNS.has(name) && argument === '') {
    throw malformed(spec, 'a column after the colon', name);
  }
  const column = argument;
  switch (name) {
    case 'exact-match':
      return { fn: exactMatch({ column }) };
    case 'numeric-match':
      return { fn: numericMatch({ column }) };
    case 'bleu':
      return { fn: bleuReward({ column }) };
    case 'rouge-1':
      return { fn: rougeNReward({ n: 1, column }) };
    case 'rouge-2':
      return { fn: rougeNReward({ n: 2, column }) };
    case 'rouge-l':
      return { fn: rougeLReward({ column }) };
    case 'cider-d':
    case 'cider':
      return corpusCiderReward(name, { column });
    case 'format': {
      const parts = /^\/(.+)\/([a-z]*)$/s.exec(argument ?? '');
      if (parts === null) throw malformed(spec, 'a pattern between slashes', name);
      return { fn: formatMatch(compile(spec, parts[1] ?? '', parts[2] ?? '')) };
    }
    case 'length': {
      const parts = /^(target=)?(\d+)$/.exec(argument ?? '');
      const length = Number(parts?.[2]);
      if (!(length > 0)) throw malformed(spec, 'a positive number of tokens', name);
      const isMax = parts?.[1] === undefined;
      return { fn: lengthReward(isMax ? { max: length } : { target: length }) };
    }
    default:
      throw new RewardError(
        `parseRewardSpec: expected a file that ends in .ts or .js or a built-in reward (${Object.keys(BUILTIN_REWARDS).join(', ')}), received ${JSON.stringify(spec)}.`,
        { hint: 'A file is written with its extension, for example ./reward.ts.' },
      );
  }
}

function compile(spec: string, source: string, flags: string): RegExp {
  try {
    return new RegExp(source, flags);
  } catch (error) {
    throw new RewardError(
      `parseRewardSpec: expected a regular expression in ${JSON.stringify(spec)}, but ${error instanceof Error ? error.message : String(error)}.`,
      { cause: error },
    );
  }
}

function malformed(spec: string, expected: string, name: string): RewardError {
  return new RewardError(
    `parseRewardSpec: expected ${expected}, received ${JSON.stringify(spec)}.`,
    { hint: `Usage: ${BUILTIN_REWARDS[name] ?? name}.` },
  );
}

/**
 * Parses a weight, written `name=0.5`.
 *
 * @throws RewardError if it has another form or the weight is not a finite number
 */
export function parseRewardWeight(text: string): { name: string; weight: number } {
  const at = text.lastIndexOf('=');
  const name = text.slice(0, Math.max(at, 0));
  const number = text.slice(at + 1).trim();
  const weight = Number(number);
  if (name === '' || number === '' || !Number.isFinite(weight)) {
    throw new RewardError(
      `parseRewardWeight: expected name=number, such as exact-match=0.5, received ${JSON.stringify(text)}.`,
    );
  }
  return { name, weight };
}
