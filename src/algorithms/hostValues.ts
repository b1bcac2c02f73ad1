/**
 * Rewards, advantages and returns are constants of the update, and their rules speak of rows and neighbours. They are
 * computed on the host in float64 and put back where they came from. No gradient flows through.
 */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { assertIntegerAtLeast, assertRank, tensor, type Tensor } from '../torch/index.js';
import { floatingDtype } from './counted.js';

/** The elements in row-major order, as float64. Waits for a GPU. */
export function toHost(values: Tensor): Float64Array {
  return Float64Array.from(values.detach().toTypedArray());
}

/** The rows of a [B, T] tensor, as float64. */
export function hostRows(values: Tensor): Float64Array[] {
  const flat = toHost(values);
  const width = values.size(1);
  return Array.from({ length: values.size(0) }, (_, row) =>
    flat.subarray(row * width, (row + 1) * width),
  );
}

/** Numbers as a tensor of this shape on the device of `inputs[0]`, with the floating dtype of the inputs. */
export function fromHost(
  values: Iterable<number>,
  shape: readonly number[],
  ...inputs: readonly [Tensor, ...Tensor[]]
): Tensor {
  const data = Float64Array.from(values);
  return tensor(data, { shape, dtype: floatingDtype(...inputs), device: inputs[0].device });
}

/** Whether a row was scored: NaN means that no reward could be given. */
export function isScored(reward: number): boolean {
  return !Number.isNaN(reward);
}

/**
 * The rewards of each group, NaN where a row is unscored.
 *
 * @param rewards [B], rows of one group contiguous
 * @throws ShapeError unless rewards is [B] with B a multiple of groupSize
 * @throws ValueRangeError for a groupSize below `minimum`, or an infinite reward
 */
export function rewardGroups(
  where: string,
  rewards: Tensor,
  groupSize: number,
  minimum: number,
): number[][] {
  assertRank(where, '[B]', { rewards });
  assertIntegerAtLeast(where, 'groupSize', groupSize, minimum);
  const rows = rewards.size(0);
  if (rows % groupSize !== 0) {
    throw new ShapeError(
      `${where}: expected B to be a multiple of groupSize ${groupSize}, received ${rows} rewards.`,
    );
  }
  const values = toHost(rewards);
  const infinite = values.findIndex((value) => Math.abs(value) === Infinity);
  if (infinite !== -1) {
    throw new ValueRangeError(
      `${where}: expected finite rewards, or NaN for an unscored row, received ${values[infinite]} in row ${infinite}.`,
    );
  }
  return Array.from({ length: rows / groupSize }, (_, group) =>
    Array.from(values.subarray(group * groupSize, (group + 1) * groupSize)),
  );
}

/** Arithmetic mean; NaN of nothing. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Standard deviation with n − 1 in the denominator; NaN of fewer than two. */
export function unbiasedStd(values: readonly number[]): number {
  const center = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - center) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

/** True where a group carries no signal: fewer than two scored rows, or all equal. */
export function hasNoVariance(scored: readonly number[]): boolean {
  return scored.every((reward) => reward === scored[0]);
}

/** `value` is a number in [0, 1], as discounts and λ are. @throws ValueRangeError */
export function assertFraction(where: string, name: string, value: number): void {
  if (!(value >= 0 && value <= 1)) {
    throw new ValueRangeError(
      `${where}: expected ${name} to be a number from 0 to 1, received ${value}.`,
    );
  }
}
