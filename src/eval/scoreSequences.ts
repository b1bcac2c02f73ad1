import { padRight, tokenBudgetBatches } from '../data/index.js';
import { sequenceScores, type ScalarParts } from '../models/index.js';
import { noGrad, tensor, tidy } from '../torch/index.js';

/**
 * What a reward model gives sequences, each scored at its last token.
 *
 * @param sequences token ids of prompt and completion together, at least one each
 * @param microBatchTokens most tokens, padding included, of one forward pass
 * @returns one score per sequence
 */
export function scoreSequences(
  model: ScalarParts,
  sequences: readonly (readonly number[])[],
  microBatchTokens = 4096,
): number[] {
  const scores = Array.from(sequences, () => Number.NaN);
  const lengths = sequences.map((ids) => ids.length);
  for (const indices of tokenBudgetBatches(lengths, microBatchTokens)) {
    const padded = padRight(
      indices.map((index) => sequences[index] ?? []),
      0, // never read: lengths say where rows end
    );
    const shape = [padded.rows, padded.columns];
    const values = noGrad(() =>
      tidy(() => {
        const { device } = model.trunk;
        const inputIds = tensor(padded.ids, { shape, dtype: 'int64', device });
        const { lengths: rowLengths } = padded;
        return Array.from(
          sequenceScores(model, { inputIds, lengths: rowLengths }).toTypedArray(),
          Number,
        );
      }),
    );
    indices.forEach((index, place) => {
      scores[index] = values[place] ?? Number.NaN;
    });
  }
  return scores;
}
