/** Tensors in safetensors files: read or mapped into memory, streamed and renamed into place on writing. */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { open, rename, unlink, type FileHandle } from 'node:fs/promises';
import { dirname, join, basename } from 'node:path';
import { CheckpointError, IoError } from '../errors/index.js';
import { DTYPE_BYTES, type Dtype } from './dtype.js';
import { empty, fromBytes, mapFile, zeros } from './factories.js';
import {
  makeHeader,
  readHeader,
  stateOf,
  type SafetensorsHeader,
  type TensorEntry,
} from './safetensorsHeader.js';
import { noGrad } from './autograd.js';
import { keep, tidy } from './scope.js';
import type { Tensor } from './tensor.js';

/** One or several safetensors files, read as one. */
export class SafetensorsFile {
  /** Names of the tensors: file by file, in the order in which they lie. */
  readonly names: readonly string[];
  /** The files' `__metadata__`; of several files that give one key, the last counts. */
  readonly metadata: Readonly<Record<string, string>>;
  private readonly places = new Map<string, { path: string; entry: TensorEntry }>();
  private readonly sizes = new Map<string, number>();
  private readonly states = new Map<string, string>();
  private readonly maps = new Map<string, Tensor>();
  private chunk: Uint8Array | null = null;

  /** @internal Use `readSafetensors`. */
  constructor(files: readonly (readonly [path: string, header: SafetensorsHeader])[]) {
    for (const [path, header] of files) {
      this.sizes.set(path, header.fileBytes);
      this.states.set(path, header.state);
      for (const [name, entry] of header.entries) {
        const other = this.places.get(name);
        if (other !== undefined)
          throw new CheckpointError(
            `readSafetensors: tensor ${JSON.stringify(name)} is in ${other.path} and again in ${path}.`,
          );
        this.places.set(name, { path, entry });
      }
    }
    this.names = [...this.places.keys()];
    this.metadata = Object.assign({}, ...files.map(([, header]) => header.metadata)) as Record<
      string,
      string
    >;
  }

  /** Whether there is a tensor of this name. */
  has(name: string): boolean {
    return this.places.has(name);
  }

  /** The shape of a tensor, from the header. @throws CheckpointError when there is no such tensor */
  shapeOf(name: string): readonly number[] {
    return this.place(name).entry.shape;
  }

  /** The element type of a tensor, from the header. @throws CheckpointError when there is no such tensor */
  dtypeOf(name: string): Dtype {
    return this.place(name).entry.dtype;
  }

  /**
   * A tensor whose elements lie in the mapped file: they are read when they are first touched, and writing to the tensor
   * changes memory, never the file. The mapping lives as long as a tensor of it. The file must not be cut short or
   * written in place meanwhile; replacing it by a rename, as `writeSafetensors` does, is fine.
   *
   * @throws CheckpointError when there is no such tensor; IoError when the file is gone
   */
  tensor(name: string): Tensor {
    const { path, entry } = this.place(name);
    if (entry.bytes === 0) return zeros(entry.shape, { dtype: entry.dtype });
    return tidy(() => {
      const slice = this.mapped(path).narrow(0, entry.start, entry.bytes);
      // A dtype's elements must start at a multiple of their size; files of other writers may not keep to that.
      const aligned = entry.start % DTYPE_BYTES[entry.dtype] === 0 ? slice : slice.clone();
      const typed = entry.dtype === 'uint8' ? aligned : aligned.viewDtype(entry.dtype);
      return typed.view(entry.shape);
    });
  }

  /**
   * A tensor whose elements are read now, into memory of its own: what becomes of the file later does not matter, and a
   * processor reads them faster than those of a mapped file, whose pages are small. A part at a time, so that a conversion
   * needs no second copy of the whole.
   *
   * @param dtype to convert to; that of the file unless given
   * @throws CheckpointError when there is no such tensor; IoError when the file is gone or was changed since it was opened
   */
  read(name: string, dtype?: Dtype): Tensor {
    const { path, entry } = this.place(name);
    if (entry.bytes === 0) return zeros(entry.shape, { dtype: dtype ?? entry.dtype });
    const chunk = (this.chunk ??= new Uint8Array(READ_BYTES));
    const width = DTYPE_BYTES[entry.dtype];
    return tidy(() => {
      const flat = empty([entry.bytes / width], { dtype: dtype ?? entry.dtype });
      this.withFile(path, (file) => {
        for (let done = 0; done < entry.bytes; done += chunk.length) {
          const part = chunk.subarray(0, Math.min(chunk.length, entry.bytes - done));
          readFully(file, part, entry.start + done);
          const count = part.length / width;
          noGrad(() =>
            tidy(() => {
              flat.narrow(0, done / width, count).copy_(fromBytes(part, entry.dtype, [count]));
            }),
          );
        }
      });
      return flat.view(entry.shape);
    });
  }

  /** Calls `use` with an opened file, which is still the one whose header was read. */
  private withFile(path: string, use: (file: number) => void): void {
    let file: number | null = null;
    try {
      file = openSync(path, 'r');
      if (stateOf(file) !== this.states.get(path))
        throw new IoError(`readSafetensors: ${path} was changed after it was opened.`, {
          hint: 'Something else writes to it. Open it again when that has ended.',
        });
      use(file);
    } catch (cause) {
      if (!isSystemError(cause)) throw cause;
      throw new IoError(`readSafetensors: ${path} can no longer be read: ${cause.message}`, {
        cause,
      });
    } finally {
      if (file !== null) closeSync(file);
    }
  }

  /** Ends the mapping of the files here. Tensors that were taken from it stay valid. */
  dispose(): void {
    for (const map of this.maps.values()) map.dispose();
    this.maps.clear();
    this.chunk = null;
  }

  private mapped(path: string): Tensor {
    let map = this.maps.get(path);
    if (map === undefined) {
      try {
        map = keep(mapFile(path, this.sizes.get(path) ?? 0));
      } catch (cause) {
        throw new IoError(`readSafetensors: ${path} can no longer be mapped into memory.`, {
          cause,
        });
      }
      this.maps.set(path, map);
    }
    return map;
  }

  private place(name: string): { path: string; entry: TensorEntry } {
    const place = this.places.get(name);
    if (place === undefined)
      throw new CheckpointError(
        `readSafetensors: expected a tensor ${JSON.stringify(name)} in ${[...this.sizes.keys()].join(', ')}, there is none.`,
      );
    return place;
  }
}

/**
 * Opens safetensors files. Headers are read and checked now, the data later, when a tensor of it is used.
 *
 * @param paths one file, or the shards of one checkpoint
 * @throws CheckpointError naming file and tensor for whatever breaks the format, or a name that occurs twice; IoError
 *   when a file cannot be read
 */
export function readSafetensors(paths: string | readonly string[]): SafetensorsFile {
  const list = typeof paths === 'string' ? [paths] : paths;
  return new SafetensorsFile(list.map((path) => [path, readHeader(path)] as const));
}

function readFully(file: number, into: Uint8Array, position: number): void {
  for (let done = 0; done < into.length;) {
    const count = readSync(file, into, done, into.length - done, position + done);
    if (count === 0) throw new IoError('readSafetensors: the file ended while it was read.');
    done += count;
  }
}

/** Read at a time: small enough to stay in the processor's cache until it is copied. */
const READ_BYTES = 1024 * 1024;
// Small enough that no copy of a large tensor stands in memory as a whole.
const CHUNK_BYTES = 32 * 1024 * 1024;

/**
 * Writes tensors to a safetensors file that either appears whole or not at all: a temporary file in the same folder is
 * written tensor by tensor, flushed to the disk and renamed. The bytes depend on the tensors and metadata only, and are
 * those that Python's `safetensors` writes. Tensors must not change until the promise is settled.
 *
 * @param metadata strings for `__metadata__`; `format: pt` is added, which transformers asks for
 * @throws CheckpointError when one tensor stands under two names (save it once) or has a dtype the format lacks; IoError
 *   with the path when the disk is full or writing is not permitted
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, Tensor>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  refuseAliases(tensors);
  const plans = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  const sorted = Object.entries({ format: 'pt', ...metadata }).sort(([a], [b]) => (a < b ? -1 : 1));
  const { bytes, ordered } = makeHeader(plans, Object.fromEntries(sorted));
  await replaceFile(path, async (write) => {
    await write(bytes);
    for (const { name } of ordered) {
      const tensor = tensors.get(name);
      if (tensor !== undefined) await writeElements(tensor, write);
    }
  });
}

function refuseAliases(tensors: ReadonlyMap<string, Tensor>): void {
  const names = new Map<Tensor, string>();
  for (const [name, tensor] of tensors) {
    const other = names.get(tensor);
    if (other !== undefined)
      throw new CheckpointError(
        `writeSafetensors: ${JSON.stringify(other)} and ${JSON.stringify(name)} are one tensor; expected it once.`,
      );
    names.set(tensor, name);
  }
}

type Write = (bytes: Uint8Array) => Promise<void>;

async function writeElements(tensor: Tensor, write: Write): Promise<void> {
  for (const bytes of elementChunks(tensor)) await write(bytes);
}

/** The elements of a tensor in their order, as bytes, a part at a time. */
export function* elementChunks(tensor: Tensor): Generator<Uint8Array> {
  const total = tensor.numel;
  const step = Math.max(1, Math.floor(CHUNK_BYTES / DTYPE_BYTES[tensor.dtype]));
  for (let start = 0; start < total; start += step) {
    const length = Math.min(step, total - start);
    yield tidy(() => {
      const flat = tensor.detach().contiguous().view([total]);
      return flat.narrow(0, start, length).toBytes();
    });
  }
}

/**
 * Writes a file through a temporary neighbour, flushes it and renames it into place, so that readers see the old file or
 * the whole new one. Nothing is left behind on failure.
 *
 * @throws IoError with the path and the system's reason
 */
export async function replaceFile(
  path: string,
  fill: (write: Write) => Promise<void>,
): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
  let handle: FileHandle | undefined;
  try {
    handle = await open(temporary, 'wx');
    const file = handle;
    await fill(async (bytes) => {
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await file.write(bytes, done);
        done += bytesWritten;
      }
    });
    await file.sync();
    await file.close();
    handle = undefined;
    await rename(temporary, path);
  } catch (cause) {
    await handle?.close().catch(() => undefined);
    await unlink(temporary).catch(() => undefined);
    if (!isSystemError(cause)) throw cause;
    throw new IoError(`writing ${path} failed: ${cause.message}`, {
      cause,
      hint:
        cause.code === 'ENOSPC'
          ? 'Free space on that disk or choose another folder.'
          : 'Check that the folder exists and may be written to.',
    });
  }
}

/** Whether the system refused a call, with a code that says why. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error && 'code' in error;
}
