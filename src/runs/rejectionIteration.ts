/**
 * iteration.json: what the samples of an iteration were drawn with and selected by. A resumed job goes on with them only
 * where its settings say the same.
 */
import { existsSync, readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { CheckpointError } from '../errors/index.js';
import { replaceFile } from './files.js';

/** Contents of iteration.json. */
export interface IterationRecord {
  /** Folder of the model that is sampled. */
  readonly model: string;
  /** Everything that the samples depend on, the hash of the model's weights included. */
  readonly sampling: Readonly<Record<string, unknown>>;
  /** What selected.jsonl was selected by, once it was. */
  readonly selection?: Readonly<Record<string, unknown>>;
  /** What the model that is sampled was measured at, where it was. */
  readonly evalBefore?: Readonly<Record<string, number>>;
}

/** The record of an iteration; undefined where it has not begun. @throws CheckpointError if it is malformed */
export function readIteration(path: string): IterationRecord | undefined {
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as IterationRecord;
  } catch (error) {
    throw new CheckpointError(`${path}: expected JSON, but it cannot be read.`, { cause: error });
  }
}

/** Writes the record of an iteration, whole or not at all. */
export function writeIteration(path: string, record: IterationRecord): void {
  replaceFile(path, `${JSON.stringify(record, undefined, 2)}\n`);
}

/**
 * Refuses to go on with samples of other settings: half of an iteration would be of the ones and half of the others.
 *
 * @param word what was done with them: `sampled`, `selected`
 * @throws CheckpointError that names what differs
 */
export function requireSame(
  word: string,
  iteration: number,
  before: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
): void {
  // As they are after reading: what JSON leaves out differs in nothing.
  const fresh = JSON.parse(JSON.stringify(now)) as Record<string, unknown>;
  const names = [...new Set([...Object.keys(before), ...Object.keys(fresh)])];
  const other = names.filter((name) => !isDeepStrictEqual(before[name], fresh[name]));
  if (other.length === 0) return;
  const shown = other.map(
    (name) => `${name} ${JSON.stringify(before[name])}, now ${JSON.stringify(fresh[name])}`,
  );
  throw new CheckpointError(
    `Resuming: expected the settings that iteration ${iteration} was ${word} with, received others: ${shown.join('; ')}.`,
    {
      hint: 'Leave them as they were until the iteration is done, or start a new run from a model of this one.',
    },
  );
}
