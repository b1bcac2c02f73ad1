/** What the updates of a step say of the rows that are written down. */
import type { TokenLogprobs, TopTokensRequest } from '../models/index.js';
import type { Tensor } from '../torch/index.js';
import { alternativesOf, type Alternatives } from './alternatives.js';
import { firstGroups } from './rolloutRecord.js';
import { rowsOf, type TokenRow } from './tokenRows.js';

/** Numbers per token of one row, in the last pass that it had a part in. */
export interface UpdateStreams {
  /** nats, under the policy before the optimizer step of that pass. */
  readonly logprobs: readonly number[];
  /** nats, of the distribution of each token. */
  readonly entropy?: readonly number[] | undefined;
  /** Its weight in the loss of the optimizer step. */
  readonly tokenWeights: readonly number[];
  /** The most likely tokens, where they were asked for. */
  readonly alternatives?: Alternatives | undefined;
}

/** What is written down of a step. */
export interface RecordSettings {
  readonly samplesPerStep: number;
  readonly sampleAlternatives: number;
  readonly groupSize: number;
}

const NOTHING: RecordSettings = { samplesPerStep: 0, sampleAlternatives: 0, groupSize: 1 };

/**
 * Keeps these numbers for some rows. All but the alternatives are in the memory of the host already as what the loss is
 * computed from, so that nothing is computed for their sake.
 */
export class UpdateRecord<Row extends TokenRow> {
  private readonly known = new Map<Row, UpdateStreams | undefined>();
  private readonly alternatives: number;

  /**
   * @param rows of the step, in groups; the first of them are written down. As the same objects that `note` is given
   */
  constructor(
    rows: readonly Row[] = [],
    { samplesPerStep, sampleAlternatives, groupSize }: RecordSettings = NOTHING,
  ) {
    this.alternatives = sampleAlternatives;
    for (const row of firstGroups(rows, samplesPerStep, groupSize)) this.known.set(row, undefined);
  }

  /** What a pass over these rows has to compute for their record beyond the loss. */
  wanted(rows: readonly Row[]): { readonly topTokens?: TopTokensRequest } {
    const written = [...rows.keys()].filter((at) => this.known.has(rows[at] as Row));
    if (this.alternatives === 0 || written.length === 0) return {};
    return { topTokens: { count: this.alternatives, rows: written } };
  }

  /**
   * Hears of a pass. A row's later pass takes the place of its earlier one.
   *
   * @param scored [B, T], with what `wanted` asked for
   */
  note(rows: readonly Row[], scored: TokenLogprobs & { readonly tokenWeights: Tensor }): void {
    const written = rows.filter((row) => this.known.has(row));
    if (written.length === 0) return;
    const logprobs = rowsOf(scored.logprobs, rows);
    const entropy = scored.entropy && rowsOf(scored.entropy, rows);
    const weights = rowsOf(scored.tokenWeights, rows);
    const alternatives = alternativesOf(scored, written);
    written.forEach((row, place) => {
      const at = rows.indexOf(row);
      this.known.set(row, {
        logprobs: logprobs[at] ?? [],
        ...(entropy && { entropy: entropy[at] }),
        tokenWeights: weights[at] ?? [],
        ...(alternatives && { alternatives: alternatives[place] }),
      });
    });
  }

  /** Of each row, with what the updates said of it; undefined where no pass had it. */
  map<Result>(describe: (row: Row, update: UpdateStreams | undefined) => Result): Result[] {
    return Array.from(this.known, ([row, update]) => describe(row, update));
  }
}
