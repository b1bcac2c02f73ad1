/** Reads the parts of a tokenizer.json: what a field must be, and what is said where it is not. */
import { CheckpointError } from '../errors/index.js';
import { isJsonObject, type JsonObject } from './files.js';

/** The parts of a tokenizer.json that have a type. */
export type Part = 'normalizer' | 'pre_tokenizer' | 'model' | 'post_processor' | 'decoder';

/** One typed part, for example `{ "type": "Metaspace", "replacement": "▁" }`, which knows what to say of a wrong field. */
export class Component {
  readonly part: Part;
  readonly type: string;
  readonly fields: JsonObject;

  /** @throws CheckpointError if the value is no object with a type */
  constructor(part: Part, value: unknown) {
    this.part = part;
    const type = isJsonObject(value) ? value['type'] : undefined;
    if (!isJsonObject(value) || typeof type !== 'string') {
      throw new CheckpointError(
        `its ${part} is ${written(value)} instead of an object with a type`,
      );
    }
    this.type = type;
    this.fields = value;
  }

  /** The error of a field that is not what this type of part needs. */
  wrong(field: string, expected: string): CheckpointError {
    return new CheckpointError(
      `"${field}" of its ${this.part} ${this.type} is ${written(this.fields[field])} instead of ${expected}`,
    );
  }

  /** The error of a type that is not known. */
  unknown(): CheckpointError {
    return new CheckpointError(`its ${this.part} is of the unknown type ${written(this.type)}`);
  }

  string(field: string, fallback?: string): string {
    const value = this.fields[field] ?? fallback;
    if (typeof value !== 'string') throw this.wrong(field, 'a string');
    return value;
  }

  /** A string, or undefined where the field is null or absent. */
  optionalString(field: string): string | undefined {
    const value = this.fields[field] ?? undefined;
    if (value !== undefined && typeof value !== 'string')
      throw this.wrong(field, 'a string or null');
    return value;
  }

  boolean(field: string, fallback?: boolean): boolean {
    const value = this.fields[field] ?? fallback;
    if (typeof value !== 'boolean') throw this.wrong(field, 'true or false');
    return value;
  }

  /** A count that is not negative. */
  count(field: string, fallback?: number): number {
    const value = this.fields[field] ?? fallback;
    if (!isCount(value)) throw this.wrong(field, 'a whole number that is not negative');
    return value;
  }

  /** One of a few words. */
  oneOf<Word extends string>(field: string, words: readonly Word[], fallback?: Word): Word {
    const value = this.fields[field] ?? fallback;
    const found = words.find((word) => word === value);
    if (found === undefined) throw this.wrong(field, `one of ${words.join(', ')}`);
    return found;
  }

  list(field: string): readonly unknown[] {
    const value: unknown = this.fields[field];
    if (!Array.isArray(value)) throw this.wrong(field, 'a list');
    return value;
  }

  /** The vocabulary of a model: token to id. */
  vocabulary(field: string): Map<string, number> {
    const value = this.fields[field];
    if (!isJsonObject(value)) throw this.wrong(field, 'an object of tokens and ids');
    const vocabulary = new Map<string, number>();
    for (const [token, id] of Object.entries(value)) {
      if (!isCount(id)) {
        throw new CheckpointError(
          `the id of ${JSON.stringify(token)} in its model ${this.type} is ${written(id)} instead of a whole number that is not negative`,
        );
      }
      vocabulary.set(token, id);
    }
    return vocabulary;
  }
}

/** A whole number from 0 that fits the 32 bits of ids and lengths in a tokenizer.json. */
export function isCount(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) < 2 ** 31;
}

/** A value as it stands in the file, cut where it is long. */
export function written(value: unknown): string {
  if (value === undefined) return 'missing';
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
