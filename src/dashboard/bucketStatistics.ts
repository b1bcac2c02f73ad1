/** Least, largest and mean value of stretches of a column that grows, without reading all of it each time. */

/** Lines whose statistics are kept together. */
export const BLOCK_LINES = 64;

/** What a stretch of lines holds. */
export interface Statistics {
  readonly min: number;
  readonly max: number;
  readonly sum: number;
  /** Of finite values. */
  readonly count: number;
}

/**
 * Statistics of whole blocks of a column. A curve over a million lines is then made from some ten thousand blocks, and the
 * next one after a new line reads that line alone.
 */
export class BlockStatistics {
  /** Per block four numbers: min, max, sum, count. */
  private space = new Float64Array(4 * 16);
  private blocks = 0;

  /** Statistics of the lines [from, to). `values` may only have grown since the last call. */
  of(values: Float64Array, from: number, to: number): Statistics {
    const firstBlock = Math.ceil(from / BLOCK_LINES);
    const lastBlock = Math.floor(to / BLOCK_LINES);
    if (lastBlock <= firstBlock) return statisticsOf(values, from, to);
    this.extend(values, lastBlock);
    const before = statisticsOf(values, from, firstBlock * BLOCK_LINES);
    const after = statisticsOf(values, lastBlock * BLOCK_LINES, to);
    let min = Math.min(before.min, after.min);
    let max = Math.max(before.max, after.max);
    let sum = before.sum;
    let count = before.count + after.count;
    for (let at = 4 * firstBlock; at < 4 * lastBlock; at += 4) {
      min = Math.min(min, this.space[at] ?? Infinity);
      max = Math.max(max, this.space[at + 1] ?? -Infinity);
      sum += this.space[at + 2] ?? 0;
      count += this.space[at + 3] ?? 0;
    }
    return { min, max, sum: sum + after.sum, count };
  }

  private extend(values: Float64Array, blocks: number): void {
    if (4 * blocks > this.space.length) {
      const grown = new Float64Array(Math.max(4 * blocks, 2 * this.space.length));
      grown.set(this.space);
      this.space = grown;
    }
    for (; this.blocks < blocks; this.blocks++) {
      const begin = this.blocks * BLOCK_LINES;
      const { min, max, sum, count } = statisticsOf(values, begin, begin + BLOCK_LINES);
      this.space.set([min, max, sum, count], 4 * this.blocks);
    }
  }
}

/** Statistics of the lines [from, to), read one by one. */
export function statisticsOf(values: Float64Array, from: number, to: number): Statistics {
  let [min, max, sum, count] = [Infinity, -Infinity, 0, 0];
  for (let at = from; at < to; at++) {
    const value = values[at] ?? NaN;
    if (!Number.isFinite(value)) continue;
    if (value < min) min = value;
    if (value > max) max = value;
    sum += value;
    count++;
  }
  return { min, max, sum, count };
}
