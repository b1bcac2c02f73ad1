/** The most likely tokens at each place of the completions that are written down. */
import type { TokenLogprobs } from '../models/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { TokenRow } from './tokenRows.js';
import type { TopTokenRecord } from './trainer.js';
import { tokenTexts } from './tokenTexts.js';

/** Of one row: per token, the ids that were most likely there and their log-probabilities, most likely first. */
export interface Alternatives {
  readonly ids: readonly (readonly number[])[];
  /** nats */
  readonly logprobs: readonly (readonly number[])[];
}

/**
 * What a pass with `topTokens` found, row by row. Tokens that a truncated sampler left out are none.
 *
 * @param rows those that were asked for, in that order
 * @returns undefined where the pass was not asked
 */
export function alternativesOf(
  { topIds, topLogprobs }: Pick<TokenLogprobs, 'topIds' | 'topLogprobs'>,
  rows: readonly TokenRow[],
): Alternatives[] | undefined {
  if (!topIds || !topLogprobs) return undefined;
  const count = topIds.size(1);
  const [ids, logprobs] = [topIds, topLogprobs].map((each) =>
    Array.from(each.toTypedArray(), Number),
  );
  let start = 0;
  return rows.map(({ completionIds }) => {
    const places = completionIds.map(() => {
      const from = start;
      start += count;
      const found = (logprobs ?? []).slice(from, start).filter(Number.isFinite);
      return { ids: (ids ?? []).slice(from, from + found.length), logprobs: found };
    });
    return {
      ids: places.map((place) => place.ids),
      logprobs: places.map((place) => place.logprobs),
    };
  });
}

/** The same as samples.jsonl has it: with the tokens as text. */
export function topTokenRecord(
  { ids, logprobs }: Alternatives,
  tokenizer: Pick<Tokenizer, 'tokenText'>,
): TopTokenRecord {
  const tokens = ids.map((each) => tokenTexts(tokenizer, each));
  return { ids, tokens, logprobs };
}
