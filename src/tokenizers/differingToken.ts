/** Whether two tokenizers mean the same by their ids. */
import { ValueRangeError } from '../errors/index.js';
import type { Tokenizer } from './tokenizer.js';

/** An id and what it stands for in either tokenizer, as JSON: null where it leaves the id out. */
export interface DifferingToken {
  readonly id: number;
  readonly expected: string;
  readonly received: string;
}

/**
 * The first id that two tokenizers of one size give different texts.
 *
 * @returns undefined where there is none, and for tokenizers of different sizes, whose models differ in size too
 */
export function differingToken(
  expected: Tokenizer,
  received: Tokenizer,
): DifferingToken | undefined {
  if (expected.vocabSize !== received.vocabSize) return undefined;
  for (let id = 0; id < expected.vocabSize; id++) {
    const [one = '', other = ''] = [expected, received].map((of) => JSON.stringify(textOf(of, id)));
    if (one !== other) return { id, expected: one, received: other };
  }
  return undefined;
}

function textOf(tokenizer: Tokenizer, id: number): string | null {
  try {
    return tokenizer.tokenText(id);
  } catch (error) {
    if (error instanceof ValueRangeError) return null;
    throw error;
  }
}
