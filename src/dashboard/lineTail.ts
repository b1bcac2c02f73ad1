/** Follows a file of lines that grows, is cut or replaced. Knows nothing of what the lines say. */
import type { FileHandle } from 'node:fs/promises';

/** What hears of lines. */
export interface LineListener {
  /** Everything that was told before is void: the file is gone, was cut, or is another one. */
  onReset(): void;
  /** One whole line without its end. The bytes are valid during the call only. `offset`: where it begins in the file. */
  onLine(line: Buffer, offset: number): void;
  /** A line longer than the limit, which was passed over. */
  onLongLine(offset: number): void;
}

/** What `LineTail` reads from. */
export interface LineTailOptions {
  /** Opens the file; undefined where there is none. */
  readonly open: () => Promise<FileHandle | undefined>;
  /** Longer lines are passed over, so that a file without line ends cannot fill the memory. */
  readonly maxLineBytes: number;
  readonly listener: LineListener;
}

const CHUNK_BYTES = 1 << 20;
/** Bytes before the place that was read up to, to tell whether the file is still the same. */
const SEAL_BYTES = 64;

/**
 * A file of lines, read up to its last whole line. A last line without an end waits until it has one. A run that is
 * resumed cuts its files and writes the lines again: the bytes just before the place that was reached tell whether
 * everything begins anew, even where the file has grown beyond that place in the meantime.
 */
export class LineTail {
  private readonly options: LineTailOptions;
  /** Where the first line begins that has not been told. */
  private offset = 0;
  private seal: Buffer = Buffer.alloc(0);
  private seen: { ino: number; size: number; mtimeMs: number } | undefined;
  /** Set while the line at `offset` is known to be too long: bytes up to here belong to it. */
  private passedOver = 0;
  /** Whether the latest poll came to the end of the file, or found none. */
  isAtEnd = false;

  constructor(options: LineTailOptions) {
    this.options = options;
  }

  /**
   * Tells the lines that are new: all of them, or those of about `maxBytes`, so that something else can be done before the
   * rest of a long file.
   *
   * @returns whether anything was told
   * @throws IoError from `open`; an error of the system from reading
   */
  async poll(maxBytes = Infinity): Promise<boolean> {
    const handle = await this.options.open();
    this.isAtEnd = handle === undefined;
    if (handle === undefined) return this.forget();
    try {
      const { ino, size, mtimeMs } = await handle.stat();
      const { seen } = this;
      if (seen?.ino === ino && seen.size === size && seen.mtimeMs === mtimeMs) {
        this.isAtEnd = true;
        return false;
      }
      const isSame =
        seen === undefined ||
        (seen.ino === ino && size >= this.offset && (await this.isSealed(handle)));
      if (!isSame) this.forget();
      const before = this.offset;
      this.isAtEnd = await this.readLines(handle, size, maxBytes);
      // What was not read to its end must not be taken for what has been seen.
      this.seen = { ino, size: this.isAtEnd ? size : -1, mtimeMs };
      return !isSame || this.offset > before;
    } finally {
      await handle.close();
    }
  }

  /** Begins anew. @returns whether there was anything to forget */
  private forget(): boolean {
    const had = this.seen !== undefined;
    this.offset = 0;
    this.passedOver = 0;
    this.seal = Buffer.alloc(0);
    this.seen = undefined;
    if (had) this.options.listener.onReset();
    return had;
  }

  private async isSealed(handle: FileHandle): Promise<boolean> {
    const bytes = Buffer.alloc(this.seal.length);
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, this.offset - bytes.length);
    return bytesRead === bytes.length && bytes.equals(this.seal);
  }

  /** @returns whether the end was reached */
  private async readLines(handle: FileHandle, size: number, maxBytes: number): Promise<boolean> {
    const { listener, maxLineBytes } = this.options;
    const begin = this.offset;
    let pending: Buffer[] = [];
    let pendingBytes = 0;
    let position = Math.max(this.offset, this.passedOver);
    /** What lies just before `position`, as far as it is known. */
    let before: Buffer = this.passedOver > 0 ? Buffer.alloc(0) : this.seal;
    while (position < size) {
      // Not inside of the first line: it would be read from its beginning again and again.
      if (this.offset - begin >= maxBytes) return false;
      // A new buffer each time: pieces of it may wait for the end of their line.
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size - position));
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, position);
      if (bytesRead === 0) return true; // cut while it is read; the next poll sees it
      const read = chunk.subarray(0, bytesRead);
      let start = 0;
      for (let end = read.indexOf(0x0a); end !== -1; end = read.indexOf(0x0a, start)) {
        const piece = read.subarray(start, end);
        if (this.passedOver > 0 || pendingBytes + piece.length > maxLineBytes)
          listener.onLongLine(this.offset);
        else {
          const line = pendingBytes === 0 ? piece : Buffer.concat([...pending, piece]);
          listener.onLine(line, this.offset);
        }
        pending = [];
        pendingBytes = 0;
        this.passedOver = 0;
        start = end + 1;
        this.offset = position + start;
      }
      if (start > 0) this.seal = lastBytes(before, read.subarray(0, start));
      before = lastBytes(before, read);
      position += bytesRead;
      const rest = read.subarray(start);
      if (this.passedOver > 0 || pendingBytes + rest.length > maxLineBytes) {
        this.passedOver = position;
        pending = [];
        pendingBytes = 0;
      } else if (rest.length > 0) {
        pending.push(rest);
        pendingBytes += rest.length;
      }
    }
    return true;
  }
}

/** A copy of the last bytes before the end of `read`, which follows `before`. */
function lastBytes(before: Buffer, read: Buffer): Buffer {
  if (read.length >= SEAL_BYTES) return Buffer.from(read.subarray(-SEAL_BYTES));
  return Buffer.concat([before, read]).subarray(-SEAL_BYTES);
}
