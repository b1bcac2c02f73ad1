/** Where a trainer stands in its data: shuffled epochs over rows, a batch per step. */
import { BatchOrder, type BatchPosition, type Row } from '../data/index.js';
import { CheckpointError } from '../errors/index.js';
import { deriveSeed } from '../torch/index.js';
import { savedCount, savedOrder, type SavedState } from './savedState.js';

/** Settings that say how long a run over data is. */
export interface EpochSettings {
  readonly epochs: number;
  /** Stronger than `epochs`; null derives the steps from them. */
  readonly maxSteps: number | null;
  readonly batchSize: number;
  readonly seed: number;
  /** Shares of several sources, see `BatchOrder`. */
  readonly data?: { readonly weights: readonly number[] | null } | undefined;
}

/** The source of each example, for a mixture of several. */
export function sourcesOf(examples: readonly { readonly row: Pick<Row, 'source'> }[]): number[] {
  return examples.map(({ row }) => row.source ?? 0);
}

/** Steps over data that can be left and gone on with. */
export class DataEpochs {
  readonly totalSteps: number;
  private readonly where: string;
  private readonly method: string;
  private readonly rowCount: number;
  private readonly sources: readonly number[];
  private readonly settings: EpochSettings;
  private order: BatchOrder;
  private stepsDone = 0;

  /**
   * @param where the trainer, for messages
   * @param method what a state must be of to be taken back
   * @param sources of what is drawn, one each; see `sourcesOf`
   */
  constructor(where: string, method: string, sources: readonly number[], settings: EpochSettings) {
    this.where = where;
    this.method = method;
    const rowCount = sources.length;
    this.rowCount = rowCount;
    this.sources = sources;
    this.settings = settings;
    const { maxSteps, epochs, batchSize } = settings;
    this.totalSteps = maxSteps ?? Math.max(1, Math.ceil((epochs * rowCount) / batchSize));
    this.order = this.orderFrom();
  }

  private orderFrom(position?: BatchPosition): BatchOrder {
    const { seed, batchSize, data } = this.settings;
    const orderSeed = deriveSeed(seed, `${this.method} order`);
    const mixture = data?.weights ? { sources: this.sources, weights: data.weights } : undefined;
    const { rowCount } = this;
    return new BatchOrder({ rowCount, batchSize, seed: orderSeed, mixture }, position);
  }

  /** Steps that are done. */
  get step(): number {
    return this.stepsDone;
  }

  /** Passes over the data, the present one by its share. */
  get epoch(): number {
    const { epoch, position } = this.order.state();
    return epoch + position / this.rowCount;
  }

  /** Places of the next batch's rows. */
  next(): number[] {
    return this.order.next();
  }

  /** Says that the step on the last batch is done. */
  advance(): void {
    this.stepsDone++;
  }

  /** As JSON can hold it. */
  state(): Record<string, unknown> {
    const { method, stepsDone: step, rowCount: rows } = this;
    return { method, step, rows, order: this.order.state() };
  }

  /**
   * Reads a state and gives what goes back to it: everything is read before anything is changed.
   *
   * @throws CheckpointError for the state of another method, of other data, or one that is torn
   */
  restorer(state: SavedState): () => void {
    if (state['method'] !== this.method || state['rows'] !== this.rowCount) {
      throw new CheckpointError(
        `${this.where}: expected the state of a run of ${this.method} over ${this.rowCount} examples, received one of ` +
          `${String(state['method'])} over ${String(state['rows'])}.`,
        { hint: 'Resume with the data and settings that the run was started with.' },
      );
    }
    const step = savedCount(this.where, state, 'step');
    const order = savedOrder(this.where, state, this.rowCount);
    return () => {
      this.stepsDone = step;
      this.order = this.orderFrom(order);
    };
  }
}
