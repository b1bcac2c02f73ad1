/**
 * The error classes of posttrain. Knows codes and how an error is shown; knows nothing of what went wrong.
 *
 * A message says `<function>: expected <what>, received <value>.` and, where there is one, the place. The hint says
 * what to do next.
 */

export { editDistance, nearestFirst } from './editDistance.js';

/** Permanent identifiers: programs may switch on them, so a code is never renamed. */
export type ErrorCode =
  | 'E_SHAPE'
  | 'E_DTYPE'
  | 'E_RANGE'
  | 'E_CONFIG'
  | 'E_DATA'
  | 'E_CHECKPOINT'
  | 'E_NUMERICS'
  | 'E_NATIVE'
  | 'E_DISPOSED'
  | 'E_IO'
  | 'E_HUB'
  | 'E_REWARD'
  | 'E_TRACKER'
  | 'E_USAGE';

/** What may accompany a message. */
export interface ErrorOptions {
  /** What the reader can do next, as a whole sentence. */
  readonly hint?: string | undefined;
  /** The error that led to this one. */
  readonly cause?: unknown;
}

/** Base class of every error that posttrain throws on purpose. */
export abstract class PosttrainError extends Error {
  abstract readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.hint = options.hint;
  }
}

/** A tensor has the wrong number of dimensions or the wrong size. */
export class ShapeError extends PosttrainError {
  readonly code = 'E_SHAPE';
}

/** A tensor or array has the wrong element type. */
export class DtypeError extends PosttrainError {
  readonly code = 'E_DTYPE';
}

/** A number, string or index lies outside what a function accepts. */
export class ValueRangeError extends PosttrainError {
  readonly code = 'E_RANGE';
}

/** A setting is unknown, has the wrong type, or contradicts another one. */
export class ConfigError extends PosttrainError {
  readonly code = 'E_CONFIG';
}

/** A row, file or tokenizer of the user's data is not what it should be. */
export class DataError extends PosttrainError {
  readonly code = 'E_DATA';
}

/** A model folder or checkpoint is missing, torn, tampered with or of an unknown kind. */
export class CheckpointError extends PosttrainError {
  readonly code = 'E_CHECKPOINT';
}

/** A loss, gradient, reward or probability is not finite, or the sampler and the trainer disagree. */
export class NumericsError extends PosttrainError {
  readonly code = 'E_NUMERICS';
}

/** libtorch refused an operation. The message names the operator and the shapes of its arguments. */
export class NativeError extends PosttrainError {
  readonly code = 'E_NATIVE';
}

/** A tensor was used after it had been freed by `dispose` or by the `tidy` it was made in. */
export class DisposedError extends PosttrainError {
  readonly code = 'E_DISPOSED';
}

/** Reading or writing a file failed: missing, not permitted, disk full. */
export class IoError extends PosttrainError {
  readonly code = 'E_IO';
}

/** The Hugging Face Hub has not what was asked for, does not allow it, or cannot be reached. */
export class HubError extends PosttrainError {
  readonly code = 'E_HUB';
  /** The status of its answer; undefined where there was none. */
  readonly status: number | undefined;

  constructor(message: string, options: ErrorOptions & { readonly status?: number } = {}) {
    super(message, options);
    this.status = options.status;
  }
}

/** A reward function cannot be loaded or is not a function. */
export class RewardError extends PosttrainError {
  readonly code = 'E_REWARD';
}

/** A tracker of runs cannot be reached, does not allow it, or does not understand. It never ends a run. */
export class TrackerError extends PosttrainError {
  readonly code = 'E_TRACKER';
  /** Whether the same call may succeed later. */
  readonly again: boolean;
  /** How long it should be waited before; undefined where nobody said. */
  readonly waitSeconds: number | undefined;

  constructor(
    message: string,
    options: ErrorOptions & {
      readonly again?: boolean;
      readonly waitSeconds?: number | undefined;
    } = {},
  ) {
    super(message, options);
    this.again = options.again ?? false;
    this.waitSeconds = options.waitSeconds;
  }
}

/** A command was called with wrong or missing arguments. The CLI exits with 2. */
export class UsageError extends PosttrainError {
  readonly code = 'E_USAGE';
}
export { counted } from './counted.js';
