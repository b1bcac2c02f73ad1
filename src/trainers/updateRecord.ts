/** What the updates of a step say of the rows that are written down. */
import type { Tensor } from '../torch/index.js';
import { rowsOf, type TokenRow } from './tokenRows.js';

/** Numbers per token of one row, in the last pass that it had a part in. */
export interface UpdateStreams {
  /** nats, under the policy before the optimizer step of that pass. */
  readonly logprobs: readonly number[];
  /** nats, of the distribution of each token. */
  readonly entropy?: readonly number[] | undefined;
  /** Its weight in the loss of the optimizer step. */
  readonly tokenWeights: readonly number[];
}

/**
 * Keeps these numbers for some rows. They are in the memory of the host already as what the loss is computed from, so
 * that nothing is computed for their sake.
 */
export class UpdateRecord<Row extends TokenRow> {
  private readonly known = new Map<Row, UpdateStreams | undefined>();

  /** @param rows those that are written down, as the same objects that `note` is given */
  constructor(rows: readonly Row[]) {
    for (const row of rows) this.known.set(row, undefined);
  }

  /**
   * Hears of a pass. A row's later pass takes the place of its earlier one.
   *
   * @param scored each [B, T]
   */
  note(
    rows: readonly Row[],
    scored: {
      readonly logprobs: Tensor;
      readonly entropy?: Tensor | undefined;
      readonly tokenWeights: Tensor;
    },
  ): void {
    if (!rows.some((row) => this.known.has(row))) return;
    const logprobs = rowsOf(scored.logprobs, rows);
    const entropy = scored.entropy && rowsOf(scored.entropy, rows);
    const weights = rowsOf(scored.tokenWeights, rows);
    rows.forEach((row, at) => {
      if (!this.known.has(row)) return;
      this.known.set(row, {
        logprobs: logprobs[at] ?? [],
        ...(entropy && { entropy: entropy[at] }),
        tokenWeights: weights[at] ?? [],
      });
    });
  }

  /** Of each row, with what the updates said of it; undefined where no pass had it. */
  map<Result>(describe: (row: Row, update: UpdateStreams | undefined) => Result): Result[] {
    return Array.from(this.known, ([row, update]) => describe(row, update));
  }
}
