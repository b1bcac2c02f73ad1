/** Telling a model where rows end, where it has to know. Internal to this folder. */
import { tensor, type Tensor } from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import { frequenciesDependOnLength } from './decoder.js';

/** Where a row stands in a tensor of ids. */
export interface RowSpan {
  readonly line: number;
  readonly start: number;
  readonly length: number;
}

/**
 * `sequenceIds` of rows whose ends matter to the model: its rotary positions depend on how long a row is. Without them a
 * row beside a longer one would be computed as if it were as long, and its log-probabilities would depend on the batch.
 *
 * @returns [lines, columns] int64; undefined where the model need not be told
 */
export function rowEnds(
  { config, device }: Pick<CausalLm, 'config' | 'device'>,
  [lines, columns]: readonly [lines: number, columns: number],
  rows: readonly RowSpan[],
): Tensor | undefined {
  if (!frequenciesDependOnLength(config)) return undefined;
  const ids = new Float64Array(lines * columns);
  rows.forEach(({ line, start, length }, row) => {
    ids.fill(row + 1, line * columns + start, line * columns + start + length);
  });
  return tensor(ids, { shape: [lines, columns], dtype: 'int64', device });
}
