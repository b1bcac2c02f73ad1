/** Samples before a person asks, so that nobody waits for the model longer than for the first prompt. Knows no models. */
import type { Comparison } from './comparison.js';

/** How comparisons come about. */
export interface LookaheadOptions {
  /** The comparisons of some prompts, in the same order. What a prompt gets must not depend on the others. */
  readonly compare: (rows: readonly number[]) => Promise<readonly Comparison[]>;
  /** How many prompts there are. */
  readonly prompts: number;
  /** How many prompts are sampled ahead, together. */
  readonly ahead: number;
}

/** Comparisons in the order of the prompts, sampled ahead in batches; one batch is computed at a time. */
export class Lookahead {
  private readonly options: LookaheadOptions;
  private readonly known = new Map<number, Promise<Comparison>>();
  private last: Promise<unknown> = Promise.resolve();

  constructor(options: LookaheadOptions) {
    this.options = options;
  }

  /** The comparison of a prompt. Those before it are forgotten, and those behind it begin. */
  async get(row: number): Promise<Comparison> {
    for (const before of this.known.keys()) if (before < row) this.known.delete(before);
    // Alone where it was not expected: the first prompt does not wait for others.
    if (!this.known.has(row)) this.begin([row]);
    const missing: number[] = [];
    const end = Math.min(row + this.options.ahead, this.options.prompts - 1);
    for (let next = row + 1; next <= end; next++) if (!this.known.has(next)) missing.push(next);
    // Half a window at a time: batches of one would read the model's weights once for each prompt.
    const isDue = missing[0] === row + 1 || missing.length * 2 >= this.options.ahead;
    if (missing.length > 0 && isDue) this.begin(missing);
    return this.known.get(row) as Promise<Comparison>;
  }

  /** Keeps a comparison that is there already, for a prompt that is shown again. */
  put(comparison: Comparison): void {
    this.known.set(comparison.row, Promise.resolve(comparison));
  }

  /** Waits until nothing is computed any more, however it ends. */
  async settled(): Promise<void> {
    await this.last;
  }

  private begin(rows: readonly number[]): void {
    const batch = this.last.then(() => this.options.compare(rows));
    // A failure is told to whoever asks for a comparison of this batch, and nobody may.
    this.last = batch.catch(() => undefined);
    for (const [index, row] of rows.entries()) {
      const comparison = batch.then((comparisons) => comparisons[index] as Comparison);
      comparison.catch(() => undefined);
      this.known.set(row, comparison);
    }
  }
}
