/** Decisions as rows of a preference data set, in the columns that TRL names. Knows no files. */
import { placeOf, type Row } from '../data/index.js';
import { DataError } from '../errors/index.js';
import { pairsOf, type LabelMode } from './ranking.js';
import type { Decision } from './session.js';

/** What all comparisons of a session have in common. */
export interface SessionOrigin {
  /** Tells sessions apart, so that files of several may be joined. */
  readonly session: string;
  /** The model folder, as it was given. */
  readonly model: string;
  /** See `weightsSha256`. */
  readonly weightsSha256: string;
  readonly seed: number;
  readonly sampling: {
    readonly completions: number;
    readonly temperature: number;
    readonly maxNewTokens: number;
  };
  readonly mode: LabelMode;
}

/** Columns of a preference row that its prompt row must not have. */
const OWN_COLUMNS = ['chosen', 'rejected', 'margin', 'comparison', 'provenance'];

/**
 * Refuses prompt rows whose columns would be overwritten, or taken for something else by who trains on the result.
 *
 * @throws DataError that names row and column
 */
export function assertColumnsAreFree(rows: readonly Row[]): void {
  for (const row of rows) {
    const taken = OWN_COLUMNS.find((column) => (row.values[column] ?? null) !== null);
    if (taken === undefined) continue;
    throw new DataError(
      `${placeOf(row)}: expected a prompt row without a column ${JSON.stringify(taken)}, which labelling writes, received one.`,
      { hint: 'Rename or remove the column.' },
    );
  }
}

/**
 * One row per ordered pair of unequal rank: the columns of the prompt's row, then `chosen` and `rejected` in the form of
 * the prompt (text, or a message of the assistant), `comparison`, which all pairs of one prompt share, and `provenance`.
 * A decision without such a pair gives none.
 */
export function preferenceRows(
  decision: Decision,
  row: Row,
  origin: SessionOrigin,
): Record<string, unknown>[] {
  if (decision.kind !== 'ranked') return [];
  const { completions, ranks, order, labeler, time } = decision;
  const inForm = (index: number): unknown => {
    const text = completions[index]?.text ?? '';
    return Array.isArray(row.values['prompt']) ? [{ role: 'assistant', content: text }] : text;
  };
  return pairsOf(ranks).map(({ chosen, rejected }) => ({
    ...row.values,
    chosen: inForm(chosen),
    rejected: inForm(rejected),
    comparison: `${origin.session}-${decision.row}`,
    provenance: {
      model: origin.model,
      weightsSha256: origin.weightsSha256,
      seed: origin.seed,
      sampling: origin.sampling,
      file: row.file,
      line: row.line,
      mode: origin.mode,
      labeler,
      time,
      ranks,
      order,
      chosen,
      rejected,
      finishReasons: completions.map(({ finishReason }) => finishReason),
    },
  }));
}
