/**
 * Rows of tokens side by side, several in one line of a tensor, so that no pass is spent on padding. A row sees nothing
 * of its neighbours and its positions begin at 0: what is computed of it is what it would be alone.
 */
import { packBestFit, tokenBudgetBatches } from '../data/index.js';
import { tensor } from '../torch/index.js';
import { microBatches, type BatchOptions } from './microBatches.js';
import { collate, type TokenRow, type TokenTensors } from './tokenRows.js';

/** Rows of one pass. */
export interface RowBatch<Row extends TokenRow> {
  readonly rows: readonly Row[];
  /** The rows as tensors; made where they are used, so that they are freed there. */
  readonly collate: (device: string) => TokenTensors;
}

/**
 * The passes over the rows of an optimizer step. How rows are grouped changes memory and time, never a result.
 *
 * @param maxTokens most tokens of one pass, padding included
 * @param options.packing whether a line holds several rows; lines are as long as the longest row
 */
export function rowBatches<Row extends TokenRow>(
  rows: readonly Row[],
  maxTokens: number,
  { packing, through }: { packing: boolean } & Pick<BatchOptions, 'through'>,
): RowBatch<Row>[] {
  const rowsAt = (indices: readonly number[]): Row[] => indices.map((index) => rows[index] as Row);
  if (!packing) {
    return microBatches(rows, maxTokens, { through }).map((indices) => {
      const part = rowsAt(indices);
      return { rows: part, collate: (device) => collate(part, device) };
    });
  }
  const lengths = rows.map(lengthOf);
  const bins = packBestFit(lengths, Math.max(...lengths));
  const filled = bins.map((bin) => bin.reduce((sum, index) => sum + (lengths[index] ?? 0), 0));
  return tokenBudgetBatches(filled, maxTokens).map((places) => {
    const lines = places.map((place) => rowsAt(bins[place] ?? []));
    return { rows: lines.flat(), collate: (device) => collateLines(lines, device) };
  });
}

/** Lines of several rows as tensors, padding at the right. The rows keep their order. */
export function collateLines(
  lines: readonly (readonly TokenRow[])[],
  device: string,
): TokenTensors {
  const rows = lines.flat();
  const lengths = rows.map(lengthOf);
  const width = Math.max(...lines.map((line) => line.reduce((sum, row) => sum + lengthOf(row), 0)));
  const ids = new Int32Array(lines.length * width);
  const sequences = new Int32Array(lines.length * width); // 0 is padding
  const places = lines.flatMap((line, index) => {
    let start = 0;
    return line.map((row, nth) => {
      const place = { line: index, start };
      const from = index * width + start;
      ids.set(row.promptIds, from);
      ids.set(row.completionIds, from + row.promptIds.length);
      start += lengthOf(row);
      sequences.fill(nth + 1, from, index * width + start);
      return place;
    });
  });
  const shape = [lines.length, width];
  return {
    inputIds: tensor(ids, { shape, dtype: 'int64', device }),
    promptLengths: rows.map(({ promptIds }) => promptIds.length),
    lengths,
    columns: Math.max(...rows.map(({ completionIds }) => completionIds.length)),
    packed: { sequenceIds: tensor(sequences, { shape, dtype: 'int64', device }), places },
  };
}

function lengthOf({ promptIds, completionIds }: TokenRow): number {
  return promptIds.length + completionIds.length;
}
