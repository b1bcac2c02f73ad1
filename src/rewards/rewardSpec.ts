/** The text form of rewards on a command line or in a configuration. */
import { RewardError } from '../errors/index.js';
import { exactMatch, formatMatch, lengthReward, numericMatch } from './builtin.js';
import type { NamedReward, RewardFunction } from './reward.js';

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
};

const FILE = /\.(?:[cm]?[jt]s)(?:#(\w+))?$/;

/**
 * Parses a reward: the path of a TypeScript or JavaScript file (`./reward.ts`, `./rewards.ts#concise` for one of
 * several), or a built-in one (`exact-match`, `exact-match:solution`, `numeric-match`, `format:/<answer>/i`,
 * `length:200`, `length:target=50`).
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
  const colon = spec.indexOf(':');
  const name = colon === -1 ? spec : spec.slice(0, colon);
  const argument = colon === -1 ? undefined : spec.slice(colon + 1);
  return { kind: 'builtin', reward: { name, weight: 1, fn: builtin(spec, name, argument) } };
}

function builtin(spec: string, name: string, argument: string | undefined): RewardFunction {
  switch (name) {
    case 'exact-match':
    case 'numeric-match': {
      if (argument === '') throw malformed(spec, 'a column after the colon', name);
      return (name === 'exact-match' ? exactMatch : numericMatch)({ column: argument });
    }
    case 'format': {
      const parts = /^\/(.+)\/([a-z]*)$/s.exec(argument ?? '');
      if (parts === null) throw malformed(spec, 'a pattern between slashes', name);
      return formatMatch(compile(spec, parts[1] ?? '', parts[2] ?? ''));
    }
    case 'length': {
      const parts = /^(target=)?(\d+)$/.exec(argument ?? '');
      const length = Number(parts?.[2]);
      if (!(length > 0)) throw malformed(spec, 'a positive number of tokens', name);
      return lengthReward(parts?.[1] === undefined ? { max: length } : { target: length });
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
