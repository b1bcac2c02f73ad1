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

/** Numbers as a tensor of this shape, with the floating dtype (else float32) and the device of `like`. */
export function fromHost(
  values: Float64Array | readonly number[],
  shape: readonly number[],
  like: Tensor,
): Tensor {
  const data = values instanceof Float64Array ? values : Float64Array.from(values);
  return tensor(data, { shape, dtype: floatingDtype(like), device: like.device });
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
