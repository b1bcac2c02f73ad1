/** What trainers read back from a checkpoint. It was a file in between: nothing in it is taken on trust. */
import { CheckpointError } from '../errors/index.js';
import type { BatchPosition } from '../data/index.js';

/** A trainer's state as it was parsed. */
export type SavedState = Readonly<Record<string, unknown>>;

/**
 * A number of steps or updates.
 *
 * @param where the trainer, for messages
 * @throws CheckpointError unless it is a non-negative integer
 */
export function savedCount(where: string, state: SavedState, name: string): number {
  return count(where, name, state[name]);
}

/**
 * Where a `BatchOrder` stood.
 *
 * @param rowCount rows of the data that the run goes on with
 * @throws CheckpointError unless it is a position in an epoch over that many rows
 */
export function savedOrder(where: string, state: SavedState, rowCount: number): BatchPosition {
  const { order } = state;
  const fields = typeof order === 'object' && order !== null ? (order as SavedState) : {};
  const epoch = count(where, 'order.epoch', fields['epoch']);
  const position = count(where, 'order.position', fields['position']);
  if (position < rowCount) return { epoch, position };
  throw new CheckpointError(
    `${where}: expected order.position to be below the ${rowCount} rows of the data, received ${position}.`,
    { hint: 'Resume with the data that the run was started with.' },
  );
}

function count(where: string, name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new CheckpointError(
    `${where}: expected ${name} of the saved state to be a non-negative integer, received ${JSON.stringify(value) ?? 'none'}.`,
    { hint: 'The checkpoint was edited or is torn: resume from another one.' },
  );
}
