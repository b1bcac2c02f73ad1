/** What a person compares: the different completions of one prompt, in an order that tells nothing. */
import { SeededRandom } from '../data/index.js';
import type { FinishReason } from '../generation/index.js';

/** One text of a comparison. */
export interface LabelCompletion {
  readonly text: string;
  /** `length` where it was cut off. */
  readonly finishReason: FinishReason;
  readonly tokens: number;
  /** How many of the samples had this text. */
  readonly copies: number;
}

/** The completions of one prompt. */
export interface Comparison {
  /** Which prompt, from 0. */
  readonly row: number;
  /** Different texts, in the order in which they were sampled. */
  readonly completions: readonly LabelCompletion[];
  /** `order[p]` is the index of the completion that is shown as number p + 1. */
  readonly order: readonly number[];
  /** Samples that were left out because they have no text: there is nothing to see or to train on. */
  readonly empty: number;
}

/** One sample of a prompt. */
export type LabelSample = Omit<LabelCompletion, 'copies'>;

/**
 * The comparison of a prompt's samples. Texts that differ in the blanks around them at most are shown once: nobody sees
 * a difference, and chat templates may remove it. The first sample of each stands for the others.
 *
 * @param seed with the row it decides the order
 */
export function comparisonOf(
  row: number,
  samples: readonly LabelSample[],
  seed: number,
): Comparison {
  const different = new Map<string, LabelCompletion>();
  let empty = 0;
  for (const sample of samples) {
    const seen = sample.text.trim();
    const before = different.get(seen);
    if (seen === '') empty++;
    else different.set(seen, { ...(before ?? sample), copies: (before?.copies ?? 0) + 1 });
  }
  const completions = [...different.values()];
  const order = Array.from(new SeededRandom(seed, row).permutation(completions.length));
  return { row, completions, order, empty };
}
