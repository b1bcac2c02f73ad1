import { ValueRangeError } from '../errors/index.js';
import type { DecoderConfig } from './decoderConfig.js';

/**
 * Refuses lengths of rows that are read at their end: what a head says at a place beyond the model's positions is a number
 * of a place that nothing was trained at.
 *
 * @param columns L
 * @throws ValueRangeError for a length out of range, or beyond the model's positions
 */
export function checkRowLengths(
  where: string,
  lengths: readonly number[],
  columns: number,
  { maxPositionEmbeddings }: Pick<DecoderConfig, 'maxPositionEmbeddings'>,
): void {
  lengths.forEach((length, row) => {
    if (!Number.isInteger(length) || length < 1 || length > columns) {
      throw new ValueRangeError(
        `${where}: expected 1 ≤ lengths[${row}] ≤ ${columns}, received ${length}.`,
      );
    }
    if (length > maxPositionEmbeddings) {
      throw new ValueRangeError(
        `${where}: expected rows of at most ${maxPositionEmbeddings} tokens, the model's positions, received ${length} in row ${row}.`,
        {
          hint: 'Shorten or leave out what is longer: the model was never trained on such places.',
        },
      );
    }
  });
}
