/** Mean and standard deviation of everything seen so far. */
import { CheckpointError } from '../errors/index.js';
import type { SavedState } from './savedState.js';

/**
 * Moments that are updated batch by batch, without the numbers of earlier batches.
 *
 * Source: Chan et al. 1983, "Algorithms for Computing the Sample Variance", Eq. 1.5b.
 */
export class RunningMoments {
  private count = 0;
  private center = 0;
  /** Σ (x − mean)². */
  private squares = 0;

  /** Takes in a batch. What is not a number (NaN) is left out. */
  add(values: readonly number[]): void {
    const seen = values.filter((value) => !Number.isNaN(value));
    if (seen.length === 0) return;
    const mean = seen.reduce((sum, value) => sum + value, 0) / seen.length;
    const squares = seen.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    const total = this.count + seen.length;
    const difference = mean - this.center;
    this.squares += squares + (difference ** 2 * this.count * seen.length) / total;
    this.center += (difference * seen.length) / total;
    this.count = total;
  }

  get mean(): number {
    return this.center;
  }

  /** Unbiased; 1 of fewer than two numbers, and where all are equal. */
  get std(): number {
    if (this.count < 2 || this.squares === 0) return 1;
    return Math.sqrt(this.squares / (this.count - 1));
  }

  /** As JSON can hold it. */
  state(): Record<string, number> {
    return { count: this.count, mean: this.center, squares: this.squares };
  }

  /** @throws CheckpointError unless it is a state */
  restore(where: string, state: SavedState): void {
    const { count, mean, squares } = state;
    const isState =
      typeof count === 'number' &&
      Number.isSafeInteger(count) &&
      count >= 0 &&
      typeof mean === 'number' &&
      Number.isFinite(mean) &&
      typeof squares === 'number' &&
      squares >= 0;
    if (!isState) {
      throw new CheckpointError(
        `${where}: expected the moments of earlier rewards in the saved state, received ${JSON.stringify(state)}.`,
        { hint: 'The checkpoint was edited or is torn: resume from another one.' },
      );
    }
    this.count = count;
    this.center = mean;
    this.squares = squares;
  }
}
