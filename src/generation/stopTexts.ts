/** Texts that end a completion, as the conditions that `sample` takes. */
import { ValueRangeError } from '../errors/index.js';
import type { Tokenizer } from '../tokenizers/index.js';

/** Settings of `sample`. */
export interface StopConditions {
  /** Special tokens among the texts. */
  readonly stopTokenIds: readonly number[];
  /** Whether one of the other texts has just been written; absent where there is none. */
  readonly shouldStop?: (tokenIds: readonly number[]) => boolean;
}

/**
 * What ends a completion once one of the texts is written. A text may be a special token (`<|im_end|>`).
 *
 * @throws ValueRangeError for an empty text, naming `where`
 */
export function stopConditions(
  where: string,
  tokenizer: Tokenizer,
  stop: readonly string[],
): StopConditions {
  if (stop.includes('')) {
    throw new ValueRangeError(
      `${where}: expected stop texts with at least one character, received an empty one.`,
    );
  }
  const decode = (ids: readonly number[]): string =>
    tokenizer.decode(ids, { skipSpecialTokens: true });
  const stopTokenIds = stop.flatMap((text) => {
    const id = tokenizer.tokenToId(text);
    return id !== undefined && decode([id]) === '' ? [id] : [];
  });
  if (stop.length === stopTokenIds.length) return { stopTokenIds };
  const longest = Math.max(...stop.map((text) => text.length));
  return {
    stopTokenIds,
    shouldStop: (ids) => {
      // A UTF-16 unit is at most three bytes and a token at least one, so that a stop text that ends here began within
      // this many tokens; the rest is a margin for special tokens, which are no text, and a split character.
      const tail = decode(ids.slice(-(3 * longest + 16)));
      return stop.some((text) => tail.includes(text));
    },
  };
}
