/** Tensors that take memory while they are read, and wait on the disk while they are not. */
import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { IoError, NativeError } from '../errors/index.js';
import { DTYPE_BYTES } from './dtype.js';
import { mapFile, zeros } from './factories.js';
import { native } from './native.js';
import { elementChunks, isSystemError } from './safetensors.js';
import { keep, tidy } from './scope.js';
import type { Tensor } from './tensor.js';

/** Bytes between whose multiples tensors begin, as libtorch's own do: some products depend on it in their last digits. */
const ALIGNMENT = 64;

/**
 * Copies of tensors whose elements lie in one file, mapped into memory. Pages come into memory when they are read and leave
 * it with `putToRest`; what is written to the copies stays. The file has no name: it is gone with the last of the copies, also
 * where the process is killed.
 *
 * @param folder where the file is made: on a disk, since a file system in memory would gain nothing
 * @throws IoError where the file cannot be written or mapped
 */
export function restingTensors(
  folder: string,
  tensors: ReadonlyMap<string, Tensor>,
): Map<string, Tensor> {
  const places = new Map<string, number>();
  let size = 0;
  for (const [name, tensor] of tensors) {
    places.set(name, size);
    size += Math.ceil(bytesOf(tensor) / ALIGNMENT) * ALIGNMENT;
  }
  if (size === 0) return new Map(Array.from(tensors, ([name, one]) => [name, keep(one.clone())]));
  const path = join(folder, `.${randomBytes(6).toString('hex')}.weights`);
  let file: number | undefined;
  try {
    file = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    ftruncateSync(file, size); // libtorch would spoil the first number of a file that is too short
    for (const [name, tensor] of tensors) writeAt(file, places.get(name) ?? 0, tensor);
    const opened = `/dev/fd/${file}`;
    return tidy(() => {
      const all = mapFile(opened, size, { shared: true });
      const views = Array.from(
        tensors,
        ([name, like]) => [name, viewOf(all, places.get(name) ?? 0, like)] as const,
      );
      for (const [, view] of views) keep(view);
      return new Map(views);
    });
  } catch (cause) {
    if (!isSystemError(cause) && !(cause instanceof NativeError)) throw cause;
    throw new IoError(`restingTensors: a file in ${folder} failed: ${cause.message}`, {
      cause,
      hint: 'Free space on that disk or choose another folder. A run keeps frozen weights in memory with frozenWeights=memory.',
    });
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/**
 * Takes the pages of all tensors that `restingTensors` gave out at once with this one from memory.
 *
 * @throws NativeError for any other tensor
 */
export function putToRest(tensor: Tensor): void {
  native().giveBackPages(tensor.slot);
}

function bytesOf({ numel, dtype }: Tensor): number {
  return numel * DTYPE_BYTES[dtype];
}

function writeAt(file: number, place: number, tensor: Tensor): void {
  let at = place;
  for (const bytes of elementChunks(tensor))
    for (let done = 0; done < bytes.length;) {
      const count = writeSync(file, bytes, done, bytes.length - done, at);
      done += count;
      at += count;
    }
}

function viewOf(all: Tensor, place: number, like: Tensor): Tensor {
  const { dtype, shape } = like;
  if (like.numel === 0) return zeros(shape, { dtype });
  const bytes = all.narrow(0, place, bytesOf(like));
  return (dtype === 'uint8' ? bytes : bytes.viewDtype(dtype)).view(shape);
}
