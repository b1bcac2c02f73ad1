import { placeOf, type Row } from '../data/index.js';
import { DataError } from '../errors/index.js';

/** A sequence as a model would read it, with the row that it comes from. */
export interface PlacedSequence {
  readonly tokens: number;
  readonly row: Row;
}

/**
 * Refuses sequences that a model has no positions for: rotary embeddings would give numbers beyond them too, of places
 * that nothing was trained at.
 *
 * @param where what reads the sequences, for messages
 * @param what the sequences are, in the plural
 * @throws DataError that names the row of the first one
 */
export function requirePositions(
  where: string,
  what: string,
  sequences: Iterable<PlacedSequence>,
  { config }: { readonly config: { readonly maxPositionEmbeddings: number } },
): void {
  const most = config.maxPositionEmbeddings;
  for (const { tokens, row } of sequences) {
    if (tokens <= most) continue;
    throw new DataError(
      `${where}: expected ${what} of at most ${most} tokens, the model's positions, but that of ${placeOf(row)} has ${tokens}.`,
      { hint: 'Lower maxLength and set faulty to skip.' },
    );
  }
}

/** The prompt of a pair with its longer completion. */
export function longerOfPair(pair: {
  readonly promptIds: readonly number[];
  readonly chosenIds: readonly number[];
  readonly rejectedIds: readonly number[];
  readonly row: Row;
}): PlacedSequence {
  const { promptIds, chosenIds, rejectedIds, row } = pair;
  return { tokens: promptIds.length + Math.max(chosenIds.length, rejectedIds.length), row };
}
