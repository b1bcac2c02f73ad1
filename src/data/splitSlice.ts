/** Parts of a split, as `datasets` writes them: `train[:1000]`, `train[10%:20%]`. Knows numbers, not files. */
import { ConfigError } from '../errors/index.js';

/** Where a slice begins or ends: at a row, or after a share of them. Negative ones count from the end. */
interface SliceBound {
  readonly value: number;
  readonly isPercent: boolean;
}

/** Which rows of a split are read; a bound that is undefined is the beginning or the end. */
export interface SplitSlice {
  readonly from: SliceBound | undefined;
  readonly to: SliceBound | undefined;
}

const BOUND = '(-?\\d[\\d_]*)(%?)';
const SLICE = new RegExp(`^([^[\\]]*)\\[(?:${BOUND})?:(?:${BOUND})?\\]$`);

/**
 * The name of a split, and which of its rows are asked for: `name[from:to]` with rows or percent, either left out, below
 * 0 from the end.
 *
 * Source: the `datasets` library, "Slice splits". We differ in refusing slices of a row and a percent, which it reads as
 * percent, and sums of slices (`train[:10%]+train[-80%:]`), which are two `--data`.
 *
 * @throws ConfigError for anything else in brackets
 */
export function parseSplit(split: string): { name: string; slice: SplitSlice | undefined } {
  if (!/[[\]+]/.test(split)) return { name: split, slice: undefined };
  const [whole, name = '', from, fromPercent, to, toPercent] = SLICE.exec(split) ?? [];
  const bounds = [boundOf(from, fromPercent), boundOf(to, toPercent)].filter(
    (bound) => bound !== undefined,
  );
  const isMixed = new Set(bounds.map(({ isPercent }) => isPercent)).size > 1;
  const isBeyond = bounds.some(({ value, isPercent }) => isPercent && Math.abs(value) > 100);
  if (whole === undefined || name === '' || isMixed || isBeyond) {
    throw new ConfigError(
      `split: expected a name, or a name with a slice of rows or of percent up to 100 such as train[:1000] or train[10%:20%], received ${JSON.stringify(split)}.`,
    );
  }
  return { name, slice: { from: boundOf(from, fromPercent), to: boundOf(to, toPercent) } };
}

function boundOf(digits: string | undefined, percent: string | undefined): SliceBound | undefined {
  if (digits === undefined) return undefined;
  return { value: Number(digits.replaceAll('_', '')), isPercent: percent === '%' };
}

/**
 * The rows of a slice as a range [from, to) of all.
 *
 * @param rowCount of the split; not asked for where both bounds are rows from the beginning
 */
export function sliceRange(slice: SplitSlice, rowCount: number): { from: number; to: number } {
  const place = (bound: SliceBound): number => {
    // Half a row goes to the even one, as Python rounds.
    const rows = bound.isPercent ? roundHalfEven((bound.value * rowCount) / 100) : bound.value;
    return Math.min(rowCount, Math.max(0, rows < 0 ? rowCount + rows : rows));
  };
  return {
    from: slice.from === undefined ? 0 : place(slice.from),
    to: slice.to === undefined ? rowCount : place(slice.to),
  };
}

/** Whether the rows of a slice are known without counting all. */
export function isFromBeginning({ from, to }: SplitSlice): boolean {
  return [from, to].every((bound) => bound === undefined || (!bound.isPercent && bound.value >= 0));
}

function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
