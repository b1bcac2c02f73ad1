/**
 * The answers of a labelling session as a state machine: prompts are decided one after the other, and undone backwards.
 * Knows no files, terminals or models.
 */
import { DataError } from '../errors/index.js';
import type { Comparison } from './comparison.js';

/** Who decided, and when. */
export interface Given {
  /** Null where nobody said. */
  readonly labeler: string | null;
  /** ISO 8601, UTC. */
  readonly time: string;
}

/** A judgement: the rank of each completion of the comparison, by index; 1 is the best. */
export interface Ranked extends Comparison, Given {
  readonly kind: 'ranked';
  readonly ranks: readonly number[];
}

/** What became of a prompt. `alike`: fewer than two different completions, so that nobody was asked. */
export type Decision =
  | Ranked
  | (Comparison & Given & { readonly kind: 'skipped' })
  | (Comparison & Given & { readonly kind: 'alike' });

/** Takes back the last decision of a person. */
export interface Undo extends Given {
  readonly kind: 'undo';
}

/** One step of a session, as it is kept. */
export type SessionRecord = Decision | Undo;

/** Which prompts are decided, and how. */
export class LabelSession {
  /** How many prompts there are. */
  readonly prompts: number;
  private readonly decided: Decision[] = [];

  constructor(prompts: number) {
    this.prompts = prompts;
  }

  /** Decision n is about prompt n. */
  get decisions(): readonly Decision[] {
    return this.decided;
  }

  /** The prompt to decide next; `prompts` where all are decided. */
  get position(): number {
    return this.decided.length;
  }

  get isDone(): boolean {
    return this.position >= this.prompts;
  }

  /** Whether a person decided anything that can be taken back. */
  get canUndo(): boolean {
    return this.decided.some(({ kind }) => kind !== 'alike');
  }

  /**
   * Refuses a step that cannot come now.
   *
   * @throws DataError
   */
  check(record: SessionRecord): void {
    if (record.kind !== 'undo') this.checkDecision(record);
    else if (!this.canUndo)
      throw new DataError('LabelSession: expected a decision to undo, but there is none.');
  }

  /**
   * Takes one step.
   *
   * @returns what an undo took back, last decision first: those nobody was asked for, then that of a person
   * @throws DataError for a step that cannot come now
   */
  apply(record: SessionRecord): Decision[] {
    this.check(record);
    if (record.kind !== 'undo') {
      this.decided.push(record);
      return [];
    }
    const undone: Decision[] = [];
    for (let last = this.decided.pop(); last !== undefined; last = this.decided.pop()) {
      undone.push(last);
      if (last.kind !== 'alike') break;
    }
    return undone;
  }

  private checkDecision(decision: Decision): void {
    if (this.isDone || decision.row !== this.position) {
      const expected = this.isDone
        ? 'no further decision'
        : `a decision on prompt ${this.position}`;
      throw new DataError(
        `LabelSession: expected ${expected} of ${this.prompts}, received one on prompt ${decision.row}.`,
      );
    }
    const { completions, order } = decision;
    const count = completions.length;
    const isOrder = order.length === count && new Set(order).size === count;
    if (!isOrder || order.some((at) => at >= count)) {
      throw new DataError(
        `LabelSession: expected an order of ${count} completions, received [${order.join(', ')}].`,
      );
    }
    if (decision.kind === 'ranked' && decision.ranks.length !== count) {
      throw new DataError(
        `LabelSession: expected ${count} ranks, received ${decision.ranks.length}.`,
      );
    }
  }
}
