/** What makes examples of rows has in common, whatever the method. */
import type { Row } from './row.js';

/** Makes examples row by row and keeps count. */
export interface ExampleReader<Example, Report = unknown> {
  /** The examples of the next row, which are counted: one, several, or none where it is left out. */
  add(row: Row): Example[];
  /** The examples of a row that was added before, without counting. */
  examplesOf(row: Row): Example[];
  /**
   * The places, among all examples that were added, of those that do not agree with the others; they are counted no more.
   * Asked for once, after the last row.
   */
  misplaced?(): ReadonlySet<number>;
  /** @throws DataError if there is no example */
  report(): Report;
}
