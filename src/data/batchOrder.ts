import { ValueRangeError } from '../errors/index.js';
import { SeededRandom } from './random.js';

/** Where a `BatchOrder` stands: enough to continue exactly there. */
export interface BatchPosition {
  /** Passes over the rows that are complete. */
  readonly epoch: number;
  /** Rows of the current pass that have been handed out, below the number of rows. */
  readonly position: number;
}

/** Settings of `BatchOrder`. */
export interface BatchOrderOptions {
  /** How many rows there are. */
  readonly rowCount: number;
  /** Rows per batch. May exceed the number of rows, which then repeat within a batch. */
  readonly batchSize: number;
  readonly seed: number;
  /** A new random order in every epoch. On unless set; off keeps the order of the file. */
  readonly shuffle?: boolean | undefined;
  /** Draws rows of several sources in other shares than they have. */
  readonly mixture?: Mixture | undefined;
}

/** Sources of rows and how much of an epoch each one makes. */
export interface Mixture {
  /** The source of every row, counted from 0. */
  readonly sources: readonly number[];
  /** One positive number per source; only their ratios count. */
  readonly weights: readonly number[];
}

/**
 * The order in which rows are trained: shuffled epochs, each row once per epoch, every batch full. A batch that reaches
 * the end of an epoch goes on with the next one, so no row is skipped and no batch is short.
 *
 * The order depends only on the seed and the epoch: a run that is resumed from `state()` sees the rows that it would
 * have seen without the interruption.
 *
 * With a mixture an epoch is still as many rows as there are, but each source makes its share of them: of a source that
 * is too small for its share rows repeat, of one that is too large the rest comes in later epochs. Every source goes
 * through shuffled passes of its own, so that none of its rows comes twice before all have come once.
 */
export class BatchOrder {
  private readonly options: BatchOrderOptions;
  private epoch = 0;
  private position = 0;
  private order: Int32Array;
  private readonly parts: readonly SourcePart[];

  /**
   * @param from where to continue; the beginning unless set
   * @throws ValueRangeError if a count is not a positive integer, or `from` does not fit the number of rows
   */
  constructor(options: BatchOrderOptions, from?: BatchPosition) {
    for (const name of ['rowCount', 'batchSize'] as const) {
      if (!Number.isInteger(options[name]) || options[name] < 1) {
        throw new ValueRangeError(
          `BatchOrder: expected ${name} to be a positive integer, received ${options[name]}.`,
        );
      }
    }
    this.options = options;
    this.parts = options.mixture ? partsOf(options.rowCount, options.mixture) : [];
    if (from !== undefined) {
      const fits =
        Number.isInteger(from.epoch) &&
        from.epoch >= 0 &&
        Number.isInteger(from.position) &&
        from.position >= 0 &&
        from.position < options.rowCount;
      if (!fits) {
        throw new ValueRangeError(
          `BatchOrder: expected a position below ${options.rowCount} rows, received epoch ${from.epoch}, position ${from.position}.`,
          { hint: 'Resume with the data that the run was started with.' },
        );
      }
      this.epoch = from.epoch;
      this.position = from.position;
    }
    this.order = this.orderOf(this.epoch);
  }

  /** Indices of the rows of the next batch. */
  next(): number[] {
    const batch: number[] = [];
    while (batch.length < this.options.batchSize) {
      batch.push(this.order[this.position] ?? 0);
      this.position++;
      if (this.position === this.options.rowCount) {
        this.epoch++;
        this.position = 0;
        this.order = this.orderOf(this.epoch);
      }
    }
    return batch;
  }

  /** Where the order stands after the batches handed out so far. */
  state(): BatchPosition {
    return { epoch: this.epoch, position: this.position };
  }

  private orderOf(epoch: number): Int32Array {
    const { rowCount, seed, shuffle = true } = this.options;
    if (this.parts.length > 0) {
      const rows = this.parts.flatMap((part, source) => this.drawsOf(part, source, epoch));
      if (!shuffle) return Int32Array.from(rows);
      return new SeededRandom(seed, epoch).permutation(rowCount).map((at) => rows[at] ?? 0);
    }
    return shuffle
      ? new SeededRandom(seed, epoch).permutation(rowCount)
      : Int32Array.from({ length: rowCount }, (_, index) => index);
  }

  /** The rows of a source in an epoch: the next ones of its own passes, of which each has a stream of random numbers. */
  private drawsOf({ rows, perEpoch }: SourcePart, source: number, epoch: number): number[] {
    const { seed, shuffle = true } = this.options;
    const draws: number[] = [];
    const first = epoch * perEpoch;
    let order: Int32Array = new Int32Array(0);
    for (let at = first; at < first + perEpoch; at++) {
      const [pass, place] = [Math.floor(at / rows.length), at % rows.length];
      if (place === 0 || at === first) {
        // Negative streams: those from 0 on are the epochs'.
        const stream = -1 - (pass * this.parts.length + source);
        order = shuffle
          ? new SeededRandom(seed, stream).permutation(rows.length)
          : Int32Array.from(rows, (_, index) => index);
      }
      draws.push(rows[order[place] ?? 0] ?? 0);
    }
    return draws;
  }
}

/** The rows of a source, and how many of its draws an epoch has. */
interface SourcePart {
  readonly rows: readonly number[];
  readonly perEpoch: number;
}

/** @throws ValueRangeError unless every source has a row and a weight */
function partsOf(rowCount: number, { sources, weights }: Mixture): SourcePart[] {
  const rows = weights.map((): number[] => []);
  sources.forEach((source, row) => rows[source]?.push(row));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const counted = rows.reduce((sum, { length }) => sum + length, 0);
  if (
    sources.length !== rowCount ||
    counted !== rowCount ||
    rows.some(({ length }) => length === 0)
  ) {
    throw new ValueRangeError(
      `BatchOrder: expected a row of each of ${weights.length} sources and a weight for each row's source, received ${rows.map(({ length }) => length).join(', ')} of ${rowCount} rows.`,
      {
        hint: 'data.weights has one number per --data, and every one of those has rows that are used.',
      },
    );
  }
  if (!weights.every((weight) => weight > 0 && Number.isFinite(weight))) {
    throw new ValueRangeError(
      `BatchOrder: expected weights that are positive, received ${weights.join(', ')}.`,
    );
  }
  // Rounded so that they add up: what the first sources leave over goes to the next ones.
  let before = 0;
  let weighed = 0;
  return rows.map((ofSource, source) => {
    weighed += weights[source] ?? 0;
    const end = source === rows.length - 1 ? rowCount : Math.round((rowCount * weighed) / total);
    const perEpoch = end - before;
    before = end;
    return { rows: ofSource, perEpoch };
  });
}
