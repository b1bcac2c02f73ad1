/**
 * Event files that TensorBoard reads: scalars, written as protocol buffers of `tensorflow.Event` in the record format of
 * TFRecord. Knows these two formats and nothing of runs.
 *
 * Source: tensorflow/core/util/event.proto, framework/summary.proto and lib/io/record_writer.
 */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { LineFile } from './files.js';

/** Appends scalars to an event file of its own. */
export class EventWriter {
  readonly path: string;
  private readonly file: LineFile;

  /**
   * @param folder where the file is made, named after the time, the host and the process
   * @param restartStep set when a run goes on: TensorBoard then forgets what earlier files hold from this step on
   * @throws IoError if the file cannot be written
   */
  constructor(folder: string, restartStep?: number, now = new Date()) {
    const seconds = String(Math.floor(now.getTime() / 1000)).padStart(10, '0');
    this.path = join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}`);
    this.file = new LineFile(this.path);
    const wallSeconds = now.getTime() / 1000;
    this.write(encodeEvent({ wallSeconds, step: 0, fileVersion: 'brain.Event:2' }));
    if (restartStep !== undefined) {
      this.write(encodeEvent({ wallSeconds, step: restartStep, isRestart: true }));
    }
  }

  /**
   * Appends the values of one step. Those that are not finite are drawn as gaps.
   *
   * @throws IoError if they cannot be written
   */
  scalars(step: number, values: Readonly<Record<string, number>>, now = new Date()): void {
    this.write(encodeEvent({ wallSeconds: now.getTime() / 1000, step, values }));
  }

  /** Ends writing. */
  close(): void {
    this.file.close();
  }

  private write(event: Buffer): void {
    this.file.append(encodeRecord(event));
  }
}

/** What one event says. */
export interface EventFields {
  readonly wallSeconds: number;
  readonly step: number;
  readonly fileVersion?: string;
  readonly isRestart?: boolean;
  readonly values?: Readonly<Record<string, number>>;
}

/** The bytes of a `tensorflow.Event`. */
export function encodeEvent(event: EventFields): Buffer {
  const parts = [doubleField(1, event.wallSeconds), varintField(2, event.step)];
  if (event.fileVersion !== undefined) parts.push(bytesField(3, Buffer.from(event.fileVersion)));
  if (event.values !== undefined) {
    // Summary.value, each a tag and a simple_value.
    const values = Object.entries(event.values).map(([tag, value]) =>
      bytesField(1, Buffer.concat([bytesField(1, Buffer.from(tag)), floatField(2, value)])),
    );
    parts.push(bytesField(5, Buffer.concat(values)));
  }
  // SessionLog.status = START
  if (event.isRestart === true) parts.push(bytesField(7, varintField(1, 1)));
  return Buffer.concat(parts);
}

/** A record: length, masked checksum of the length, data, masked checksum of the data. */
export function encodeRecord(data: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(data.length));
  return Buffer.concat([length, checksum(length), data, checksum(data)]);
}

function checksum(data: Buffer): Buffer {
  const bytes = Buffer.alloc(4);
  const crc = crc32c(data);
  // Masked, so that checksums of data which holds checksums stay strong.
  bytes.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
  return bytes;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC-32C (Castagnoli). Source: RFC 3720, appendix B.4 has check values. */
export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = (crc >>> 8) ^ (CRC_TABLE[(crc ^ byte) & 0xff] ?? 0);
  return (crc ^ 0xffffffff) >>> 0;
}

// Wire types of protocol buffers: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.

function tagOf(field: number, wireType: number): Buffer {
  return varint((field << 3) | wireType);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  // Division and not shifts: steps may exceed 32 bits.
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return Buffer.from([...bytes, rest]);
}

function varintField(field: number, value: number): Buffer {
  return Buffer.concat([tagOf(field, 0), varint(value)]);
}

function bytesField(field: number, value: Buffer): Buffer {
  return Buffer.concat([tagOf(field, 2), varint(value.length), value]);
}

function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([tagOf(field, 1), bytes]);
}

function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([tagOf(field, 5), bytes]);
}
