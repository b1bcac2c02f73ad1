/** The rows of KTO: whose completion estimates the KL of which prompt, what a step tells, what is written down. */
import type { UnpairedExample } from '../data/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { StatSums } from './optimizerStep.js';
import type { PlacedSequence } from './requirePositions.js';
import { ktoPart } from './sequenceParts.js';
import type { TokenRow } from './tokenRows.js';
import type { GivenRecord } from './trainer.js';
import { tokenTexts } from './tokenTexts.js';

/** A completion that is good or bad by itself. */
export interface KtoRow extends TokenRow {
  readonly label: boolean;
}

/** What is summed over the rows of a step, and divided by how many rows of its kind there are. */
export const BY_LABEL = [
  ['rewards', 'chosen', true],
  ['rewards', 'rejected', false],
  ['logprobs', 'chosen', true],
  ['logprobs', 'rejected', false],
] as const;

/** The row of an example. */
export function toKtoRow({ promptIds, completionIds, label }: UnpairedExample): KtoRow {
  return { promptIds, completionIds, label };
}

/** How long an example is, and where it stands. */
export function lengthOfUnpaired({
  promptIds,
  completionIds,
  row,
}: UnpairedExample): PlacedSequence {
  return { tokens: promptIds.length + completionIds.length, row };
}

/**
 * For every row the next one with another prompt, around the end; the next one where all prompts are the same. The rows
 * of a pair stand side by side: a completion of the prompt itself would not be a mismatched one.
 */
export function partnersOf(rows: readonly KtoRow[]): number[] {
  const prompts = rows.map(({ promptIds }) => promptIds.join(' '));
  return prompts.map((prompt, index) => {
    for (let ahead = 1; ahead < rows.length; ahead++) {
      const place = (index + ahead) % rows.length;
      if (prompts[place] !== prompt) return place;
    }
    return (index + 1) % rows.length;
  });
}

/** z: the estimate of the KL, at least 0. */
export function klBaselineOf(klLogratios: readonly number[]): number {
  return Math.max(0, sum(klLogratios) / klLogratios.length);
}

/** Means over rows of their kind; a batch that has none of a kind has no number of it. */
export function ktoMetrics(
  sums: StatSums,
  rows: readonly KtoRow[],
  klLogratios: readonly number[],
): Record<string, number> {
  const desirable = rows.filter(({ label }) => label).length;
  const counts = { true: desirable, false: rows.length - desirable };
  const means = BY_LABEL.flatMap(([stream, side, label]) => {
    const count = counts[`${label}`];
    const name = `${stream}/${side}`;
    return count === 0 ? [] : [[name, sums.get(name) / count] as [string, number]];
  });
  const metrics: Record<string, number> = Object.fromEntries(means);
  const [chosen, rejected] = [metrics['rewards/chosen'], metrics['rewards/rejected']];
  return {
    loss: sums.get('loss'),
    ...metrics,
    ...(chosen !== undefined && rejected !== undefined && { 'rewards/margins': chosen - rejected }),
    kl: klBaselineOf(klLogratios),
    desirableShare: desirable / rows.length,
  };
}

/** Numbers per token of a row before the update, nats. */
export interface KtoTokens {
  readonly logprobs: readonly number[];
  readonly refLogprobs: readonly number[];
}

/** What is known of a row of a step. */
export interface KnownKtoRow extends KtoTokens {
  readonly row: KtoRow;
  /** Place in the step's batch, and how many rows that has. */
  readonly place: number;
  readonly rows: number;
  readonly klBaseline: number;
  readonly config: {
    readonly beta: number;
    readonly desirableWeight: number;
    readonly undesirableWeight: number;
  };
}

/** A line of samples.jsonl. */
export function ktoRecord(known: KnownKtoRow, step: number, tokenizer: Tokenizer): GivenRecord {
  const { row, place, rows, klBaseline, config, logprobs, refLogprobs } = known;
  const { label, promptIds, completionIds } = row;
  const { beta } = config;
  const labelWeight = label ? config.desirableWeight : config.undesirableWeight;
  const logratio = sum(logprobs) - sum(refLogprobs);
  const part = ktoPart({ logratio, label }, { beta, klBaseline, weight: labelWeight, rows });
  return {
    ...{ kind: 'given', step, promptIndex: place, groupIndex: 0, length: completionIds.length },
    ...{ reward: beta * logratio, rewards: { desirable: Number(label) } },
    prompt: tokenizer.decode(promptIds),
    completion: tokenizer.decode(completionIds),
    tokenIds: completionIds,
    tokens: tokenTexts(tokenizer, completionIds),
    loss: { method: 'kto', objective: 'kto', beta, klBaseline, labelWeight, ...part },
    streams: { logprobs, refLogprobs, mask: completionIds.map(() => 1) },
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
