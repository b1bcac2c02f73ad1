import { ValueRangeError } from '../errors/index.js';
import type { Tokenizer } from '../tokenizers/index.js';

/**
 * Texts of tokens, as they are written down. A model may have more rows than its tokenizer has tokens, and may draw them:
 * those have a number only.
 */
export function tokenTexts(
  tokenizer: Pick<Tokenizer, 'tokenText'>,
  ids: readonly number[],
): string[] {
  return ids.map((id) => {
    try {
      return tokenizer.tokenText(id);
    } catch (error) {
      if (error instanceof ValueRangeError) return `<${id}>`;
      throw error;
    }
  });
}
