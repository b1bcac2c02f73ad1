/** Text metrics as rewards: the completion against the references in a column of its row. */
import { RewardError } from '../../errors/index.js';
import type { NamedReward, RewardFunction } from '../reward.js';
import { bleu, type BleuSettings } from './bleu.js';
import {
  cider,
  ciderD,
  documentFrequencies,
  type CiderDOptions,
  type CiderOptions,
  type DocumentFrequencies,
} from './cider.js';
import { rougeL, rougeN, type RougeScore } from './rouge.js';

interface ReferenceColumn {
  /** Column of the row with the reference (a string) or the references (strings). `references` unless set. */
  readonly column?: string | undefined;
}

/** Settings of `bleuReward`. */
export interface BleuRewardOptions extends BleuSettings, ReferenceColumn {}

/** Settings of `rougeLReward`. */
export interface RougeLRewardOptions extends ReferenceColumn {
  /** Which of the three numbers is the reward. `f1` unless set. */
  readonly measure?: keyof RougeScore | undefined;
}

/** Settings of `rougeNReward`. */
export interface RougeNRewardOptions extends RougeLRewardOptions {
  /** Words of an n-gram. */
  readonly n: number;
}

/** Settings of `ciderReward`. */
export interface CiderRewardOptions
  extends ReferenceColumn, Omit<CiderOptions, 'candidate' | 'references'> {}

/** Settings of `ciderDReward`. */
export interface CiderDRewardOptions
  extends ReferenceColumn, Omit<CiderDOptions, 'candidate' | 'references'> {}

/**
 * `bleu` of the completion against the references of its row. A row without references leaves it unscored.
 *
 * @throws ValueRangeError as `bleu` does, at once and not at the first completion
 */
export function bleuReward({ column, ...settings }: BleuRewardOptions = {}): RewardFunction {
  return metricReward('bleuReward', column, (texts) => bleu({ ...texts, ...settings }));
}

/**
 * `rougeN` of the completion against the references of its row. A row without references leaves it unscored.
 *
 * @throws ValueRangeError if n is not a positive integer, at once and not at the first completion
 */
export function rougeNReward({ n, column, measure = 'f1' }: RougeNRewardOptions): RewardFunction {
  return metricReward('rougeNReward', column, (texts) => rougeN({ ...texts, n })[measure]);
}

/** `rougeL` of the completion against the references of its row. A row without references leaves it unscored. */
export function rougeLReward({ column, measure = 'f1' }: RougeLRewardOptions = {}): RewardFunction {
  return metricReward('rougeLReward', column, (texts) => rougeL(texts)[measure]);
}

/**
 * `cider` of the completion against the references of its row. A row without references leaves it unscored.
 *
 * @throws ValueRangeError as `cider` does, at once and not at the first completion
 */
export function ciderReward({ column, ...settings }: CiderRewardOptions): RewardFunction {
  return metricReward('ciderReward', column, (texts) => cider({ ...texts, ...settings }));
}

/**
 * `ciderD` of the completion against the references of its row. A row without references leaves it unscored.
 *
 * @throws ValueRangeError as `ciderD` does, at once and not at the first completion
 */
export function ciderDReward({ column, ...settings }: CiderDRewardOptions): RewardFunction {
  return metricReward('ciderDReward', column, (texts) => ciderD({ ...texts, ...settings }));
}

/**
 * CIDEr or CIDEr-D with the document frequencies of the rows that `prepare` is called with. Prepared again, it forgets
 * the rows before.
 *
 * `prepare` throws a RewardError if a row has no references, or if every n-gram occurs in the references of all rows (as
 * with a single row): every weight and with it every score would be 0. So does `fn` if it was not prepared.
 */
export function corpusCiderReward(
  name: 'cider' | 'cider-d',
  { column = 'references' }: ReferenceColumn = {},
): Required<Pick<NamedReward, 'fn' | 'prepare'>> {
  const metric = name === 'cider' ? cider : ciderD;
  let table: DocumentFrequencies | undefined;
  return {
    prepare: (rows) => {
      const sets = rows.map((row) => referencesOf(row, column, name));
      const counted = sets.length === 0 ? undefined : documentFrequencies(sets);
      const counts = Object.values(counted?.counts ?? {});
      if (counts.every((count) => count === sets.length)) {
        throw new RewardError(
          `${name}: expected at least 2 rows whose column ${JSON.stringify(column)} differs, received ${sets.length} without a difference.`,
          {
            hint: 'An n-gram that all rows have weighs nothing. Score with bleu or rouge-l, or more rows.',
          },
        );
      }
      table = counted;
    },
    fn: ({ completion, row }) => {
      if (table === undefined) {
        throw new RewardError(
          `${name}: expected to be prepared with the rows of the data before it scores, but it was not.`,
          { hint: 'Call the prepare of the reward once with the values of all rows.' },
        );
      }
      const references = referencesOf(row, column, name);
      return metric({ candidate: completion, references, documentFrequencies: table });
    },
  };
}

interface Texts {
  readonly candidate: string;
  readonly references: readonly string[];
}

function metricReward(
  caller: string,
  column = 'references',
  metric: (texts: Texts) => number,
): RewardFunction {
  // Refuses settings that the metric refuses while the reward is made.
  metric({ candidate: '', references: [''] });
  return ({ completion, row }) =>
    metric({ candidate: completion, references: referencesOf(row, column, caller) });
}

function referencesOf(
  row: Readonly<Record<string, unknown>>,
  column: string,
  caller: string,
): readonly string[] {
  const value = row[column];
  if (typeof value === 'string') return [value];
  if (Array.isArray(value) && value.length > 0 && value.every((text) => typeof text === 'string')) {
    return value;
  }
  const columns = Object.keys(row).join(', ') || 'none';
  throw new RewardError(
    `${caller}: expected column ${JSON.stringify(column)} to hold a string or an array of strings, received ${value === undefined ? `only the columns ${columns}` : JSON.stringify(value)}.`,
  );
}
