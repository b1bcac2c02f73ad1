/** Reading fields of a model's JSON files, with errors that name file, field, what was expected and what stands there. */
import { readFileSync } from 'node:fs';
import { CheckpointError, IoError } from '../errors/index.js';

/** A JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Whether a value is a JSON object, neither an array nor null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const MOST_SHOWN = 200;

/** A value of a JSON file for a message: not the whole of a long one, whoever wrote it. */
export function shown(value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    return 'a value nested too deeply to be shown';
  }
  if (text === undefined || text.length <= MOST_SHOWN) return String(text);
  return `${text.slice(0, MOST_SHOWN)}…`;
}

/**
 * The object in a JSON file, or null when there is no such file.
 *
 * @throws CheckpointError when the file is not a JSON object; IoError when it cannot be read
 */
export function readJsonObject(path: string): JsonObject | null {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw new IoError(`${path} cannot be read: ${message}`, { cause });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`${path}: expected JSON: ${reason}`, {
      cause,
      hint: 'The file may be cut off or damaged; fetch or save it again.',
    });
  }
  if (!isJsonObject(value)) throw new CheckpointError(`${path}: expected a JSON object.`);
  return value;
}

/** Typed access to the fields of one JSON object. A field that is null counts as absent. */
export class Fields {
  private readonly raw: JsonObject;
  private readonly where: string;

  /** @param where the file, and the path inside it, for messages */
  constructor(raw: JsonObject, where: string) {
    this.raw = raw;
    this.where = where;
  }

  /** The field as it stands; undefined when it is absent or null. */
  value(name: string): unknown {
    return this.raw[name] ?? undefined;
  }

  /** An error about this field. */
  wrong(name: string, expected: string): CheckpointError {
    const value = this.value(name);
    const received = value === undefined ? 'nothing' : shown(value);
    return new CheckpointError(
      `${this.where}: expected ${name} to be ${expected}, received ${received}.`,
    );
  }

  /** A positive integer. @throws CheckpointError when it is something else, or absent without a default */
  size(name: string, otherwise?: number): number {
    const value = this.value(name) ?? otherwise;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value <= 0)
      throw this.wrong(name, 'a positive integer');
    return value;
  }

  /** An integer of at least 0. @throws CheckpointError when it is something else */
  count(name: string, otherwise: number): number {
    const value = this.value(name) ?? otherwise;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
      throw this.wrong(name, 'an integer of at least 0');
    return value;
  }

  /** A positive integer; null where null is written. `otherwise` where there is no such field. */
  sizeOrNull(name: string, otherwise: number | null): number | null {
    if (this.raw[name] === null) return null;
    return this.raw[name] === undefined ? otherwise : this.size(name);
  }

  /** A positive number; null where null is written. `otherwise` where there is no such field. */
  positiveOrNull(name: string, otherwise: number | null): number | null {
    if (this.raw[name] === null) return null;
    return this.raw[name] === undefined ? otherwise : this.positive(name);
  }

  /** A list of positive numbers. @throws CheckpointError when it is something else or absent */
  positives(name: string): number[] {
    const value = this.value(name);
    const isPositive = (item: unknown): item is number =>
      typeof item === 'number' && Number.isFinite(item) && item > 0;
    if (!Array.isArray(value) || !value.every(isPositive))
      throw this.wrong(name, 'a list of positive numbers');
    return value;
  }

  /** A positive number. @throws CheckpointError when it is something else, or absent without a default */
  positive(name: string, otherwise?: number): number {
    const value = this.value(name) ?? otherwise;
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0)
      throw this.wrong(name, 'a positive number');
    return value;
  }

  /** True or false. @throws CheckpointError for another type */
  flag(name: string, otherwise: boolean): boolean {
    const value = this.value(name) ?? otherwise;
    if (typeof value !== 'boolean') throw this.wrong(name, 'true or false');
    return value;
  }

  /** A string. @throws CheckpointError for another type, or when it is absent without a default */
  text(name: string, otherwise?: string): string {
    const value = this.value(name) ?? otherwise;
    if (typeof value !== 'string') throw this.wrong(name, 'a string');
    return value;
  }

  /** A finite number or nothing. @throws CheckpointError for another type */
  numberOrNull(name: string): number | null {
    const value = this.value(name) ?? null;
    if (value !== null && !(typeof value === 'number' && Number.isFinite(value)))
      throw this.wrong(name, 'a number');
    return value;
  }

  /** A token id or nothing. @throws CheckpointError for another type */
  tokenId(name: string): number | null {
    const value = this.value(name) ?? null;
    if (value !== null && !isTokenId(value)) throw this.wrong(name, 'a token id');
    return value;
  }

  /** One token id or a list of them, as a list; null when there is none. @throws CheckpointError for another type */
  tokenIds(name: string): number[] | null {
    const value = this.value(name);
    if (value === undefined) return null;
    const list: unknown[] = Array.isArray(value) ? value : [value];
    if (!list.every(isTokenId)) throw this.wrong(name, 'a token id or a list of them');
    return list;
  }

  /** The fields of a nested object; null when it is absent. @throws CheckpointError for another type */
  nested(name: string): Fields | null {
    const value = this.value(name);
    if (value === undefined) return null;
    if (!isJsonObject(value)) throw this.wrong(name, 'an object');
    return new Fields(value, `${this.where}, ${name}`);
  }
}

function isTokenId(value: unknown): value is number {
  // -1 stands for "none" in a few old configurations; no vocabulary has it.
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
