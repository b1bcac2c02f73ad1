/** What trainers read back from a checkpoint. It was a file in between: nothing in it is taken on trust. */
import { CheckpointError } from '../errors/index.js';
import type { BatchPosition } from '../data/index.js';
import { whileAwake, type Decoder } from '../models/index.js';
import { noGrad, type Tensor } from '../torch/index.js';

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
 * Refuses the state of another run.
 *
 * @throws CheckpointError unless method and number of prompts are those of this run
 */
export function checkSavedRun(
  where: string,
  state: SavedState,
  run: { readonly method: string; readonly prompts: number },
): void {
  if (state['method'] === run.method && state['prompts'] === run.prompts) return;
  throw new CheckpointError(
    `${where}: expected the state of a ${run.method} run over ${run.prompts} prompts, received one of ` +
      `${String(state['method'])} over ${String(state['prompts'])}.`,
    { hint: 'Resume with the data and settings that the run was started with.' },
  );
}

/**
 * A part of the state that another object wrote.
 *
 * @throws CheckpointError unless it is an object
 */
export function nestedState(where: string, state: SavedState, name: string): SavedState {
  const nested = state[name];
  if (typeof nested === 'object' && nested !== null) return nested as SavedState;
  throw new CheckpointError(
    `${where}: expected ${name} of the saved state to be an object, received ${JSON.stringify(nested) ?? 'none'}.`,
    { hint: 'The checkpoint was edited or is torn: resume from another one.' },
  );
}

/**
 * A number of the state that need not be a count.
 *
 * @throws CheckpointError unless it is finite
 */
export function savedNumber(where: string, state: SavedState, name: string): number {
  const value = state[name];
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new CheckpointError(
    `${where}: expected ${name} of the saved state to be a finite number, received ${JSON.stringify(value) ?? 'none'}.`,
    { hint: 'The checkpoint was edited or is torn: resume from another one.' },
  );
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

/**
 * Numbers of a reference that is replaced now and then, by name; undefined where it never is: then it is loaded from where
 * it came from.
 */
export function replacedParameters(
  reference: Pick<Decoder, 'trainedParameters'> | null,
  { referenceEvery }: { readonly referenceEvery: number | null },
): Map<string, Tensor> | undefined {
  return referenceEvery === null ? undefined : reference?.trainedParameters();
}

/** Tensors under longer names. */
export function withPrefix(
  prefix: string,
  tensors: ReadonlyMap<string, Tensor> = new Map(),
): Map<string, Tensor> {
  return new Map(Array.from(tensors, ([name, value]) => [`${prefix}${name}`, value]));
}

/** The tensors whose names begin with the prefix, without it, and the others as they are. */
export function withoutPrefix(
  prefix: string,
  tensors: ReadonlyMap<string, Tensor>,
): { named: Map<string, Tensor>; others: Map<string, Tensor> } {
  const named = new Map<string, Tensor>();
  const others = new Map<string, Tensor>();
  for (const [name, value] of tensors) {
    if (name.startsWith(prefix)) named.set(name.slice(prefix.length), value);
    else others.set(name, value);
  }
  return { named, others };
}

/**
 * Finds out whether `copyParameters` can be done, where something else has to be changed with it.
 *
 * @throws CheckpointError where a parameter has no counterpart of its shape
 */
export function checkParameters(
  from: ReadonlyMap<string, Tensor>,
  to: ReadonlyMap<string, Tensor>,
): void {
  for (const [name, parameter] of to) {
    const shape = from.get(name)?.shape;
    if (String(shape) === String(parameter.shape)) continue;
    throw new CheckpointError(
      `copyParameters: expected ${name} of shape [${parameter.shape.join(', ')}], received ${shape ? `[${shape.join(', ')}]` : 'none'}.`,
      {
        hint: 'The checkpoint belongs to another model or other settings: resume from another one.',
      },
    );
  }
}

/**
 * Gives parameters the values of others with the same names.
 *
 * @throws CheckpointError where one has no counterpart of its shape; nothing was copied then
 */
export function copyParameters(
  from: ReadonlyMap<string, Tensor>,
  to: ReadonlyMap<string, Tensor>,
): void {
  checkParameters(from, to);
  noGrad(() => {
    for (const [name, parameter] of to) {
      const value = from.get(name);
      if (value) parameter.copy_(value);
    }
  });
}

/** The policy's trained numbers become the reference's, which is left at rest where it rests. */
export function replaceReference(reference: Decoder, policy: Decoder): void {
  whileAwake(reference, () =>
    copyParameters(policy.trainedParameters(), reference.trainedParameters()),
  );
}
