/** Puts sequences of different length into rectangles. Plain numbers; the trainer makes tensors of them. */
import { DataError, ValueRangeError } from '../errors/index.js';
import { SeededRandom } from './random.js';

/** Sequences of token ids as a rectangle, padding at the right. */
export interface PaddedIds {
  /** Row-major [rows, columns]. */
  readonly ids: Int32Array;
  readonly rows: number;
  /** Length of the longest sequence. */
  readonly columns: number;
  /** Real tokens per row. Masks come from these, never from the ids: the padding token may be a real one too. */
  readonly lengths: readonly number[];
}

/**
 * Sequences as a rectangle, shorter ones filled with the padding id at the right.
 *
 * @throws ValueRangeError if there is no sequence, or all are empty
 */
export function padRight(sequences: readonly (readonly number[])[], padTokenId: number): PaddedIds {
  const lengths = sequences.map((sequence) => sequence.length);
  const columns = lengths.reduce((longest, length) => Math.max(longest, length), 0);
  if (columns === 0) {
    throw new ValueRangeError('padRight: expected at least one token, received none.');
  }
  const ids = new Int32Array(sequences.length * columns).fill(padTokenId);
  sequences.forEach((sequence, row) => ids.set(sequence, row * columns));
  return { ids, rows: sequences.length, columns, lengths };
}

/**
 * Row indices in groups of similar length whose rectangles (rows × longest row) hold at most `maxTokens` tokens. Longest
 * rows first, so that what does not fit into memory fails at once; equal lengths keep their order. A single row longer
 * than the budget gets a group of its own.
 *
 * @param maxRows most rows per group; no limit unless set
 * @throws ValueRangeError if a limit is not a positive integer (or Infinity)
 */
export function tokenBudgetBatches(
  lengths: readonly number[],
  maxTokens: number,
  maxRows = Infinity,
): number[][] {
  for (const [name, value] of Object.entries({ maxTokens, maxRows })) {
    if (!(value >= 1) || (value !== Infinity && !Number.isInteger(value))) {
      throw new ValueRangeError(
        `tokenBudgetBatches: expected ${name} to be a positive integer, received ${value}.`,
      );
    }
  }
  const longestFirst = lengths
    .map((length, index) => ({ length, index }))
    .sort((a, b) => b.length - a.length || a.index - b.index);
  const batches: number[][] = [];
  let columns = 0;
  for (const { length, index } of longestFirst) {
    const open = batches.at(-1);
    if (open !== undefined && open.length < maxRows && (open.length + 1) * columns <= maxTokens) {
      open.push(index);
    } else {
      batches.push([index]);
      columns = length;
    }
  }
  return batches;
}

/** How much to hold out: a share of the rows, or a number of them. */
export type SplitSize = { readonly evalFraction: number } | { readonly evalCount: number };

/**
 * Splits rows at random into training rows and held-out rows; both keep their order.
 *
 * @throws DataError if one side would be empty
 * @throws ValueRangeError if the share is not between 0 and 1 or the number is not a positive integer
 */
export function splitRows<T>(
  rows: readonly T[],
  options: SplitSize & { readonly seed: number },
): { train: T[]; eval: T[] } {
  const count = evalCountOf(rows.length, options);
  if (count < 1 || count >= rows.length) {
    throw new DataError(
      `splitRows: expected at least one row on each side, received ${rows.length} rows of which ${count} would be held out.`,
      { hint: 'Give more data, or hold out another share of it.' },
    );
  }
  const heldOut = new Set(new SeededRandom(options.seed).permutation(rows.length).slice(0, count));
  return {
    train: rows.filter((_, index) => !heldOut.has(index)),
    eval: rows.filter((_, index) => heldOut.has(index)),
  };
}

function evalCountOf(rowCount: number, size: SplitSize): number {
  if ('evalCount' in size) {
    if (Number.isInteger(size.evalCount) && size.evalCount >= 1) return size.evalCount;
    throw new ValueRangeError(
      `splitRows: expected evalCount to be a positive integer, received ${size.evalCount}.`,
    );
  }
  if (size.evalFraction > 0 && size.evalFraction < 1) {
    // A share that is asked for holds out something, however few rows there are.
    return Math.max(1, Math.round(rowCount * size.evalFraction));
  }
  throw new ValueRangeError(
    `splitRows: expected evalFraction to be between 0 and 1, received ${size.evalFraction}.`,
  );
}
