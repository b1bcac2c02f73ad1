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
}

/**
 * The order in which rows are trained: shuffled epochs, each row once per epoch, every batch full. A batch that reaches
 * the end of an epoch goes on with the next one, so no row is skipped and no batch is short.
 *
 * The order depends only on the seed and the epoch: a run that is resumed from `state()` sees the rows that it would
 * have seen without the interruption.
 */
export class BatchOrder {
  private readonly options: BatchOrderOptions;
  private epoch = 0;
  private position = 0;
  private order: Int32Array;

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
    return shuffle
      ? new SeededRandom(seed, epoch).permutation(rowCount)
      : Int32Array.from({ length: rowCount }, (_, index) => index);
  }
}
