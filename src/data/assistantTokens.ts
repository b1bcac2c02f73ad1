/** Which tokens of a conversation the assistant wrote. Knows chat templates as texts, not formats or lengths. */
import { DataError } from '../errors/index.js';
import { placeOf, type Row } from './row.js';
import type { Message, TextTokenizer } from './textTokenizer.js';
import { encodeRendered, toolsOf } from './tokenizeText.js';

/** A part of a text, in UTF-16 units. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Tokens of a conversation with a mask. */
export interface MarkedTokens {
  readonly ids: number[];
  /** One entry per token: 1 where the assistant wrote it. */
  readonly mask: Uint8Array;
  /** Whether a token would have crossed the end of a part, so that the parts are tokenized apart, as at generation. */
  readonly boundaryMerge: boolean;
}

/**
 * Tokens of a conversation, those of the assistant marked: what stands between the template's `{% generation %}` tags;
 * where it has none, what the conversation up to a message of the assistant adds to the conversation before it with the
 * header of an answer, up to the last EOS token in it.
 *
 * Source: transformers 5, `apply_chat_template(return_assistant_tokens_mask=True)`. We differ at a token that crosses the
 * end of a part, which is in both parts there, and in the way without tags, where there is no mask.
 *
 * @param messages the conversation
 * @param first the message from which on the assistant's tokens are marked
 * @throws DataError where the template without tags writes a part differently alone and within the conversation
 */
export function assistantTokens(
  row: Row,
  { messages, first }: { messages: readonly Message[]; first: number },
  tokenizer: TextTokenizer,
): MarkedTokens {
  const tools = toolsOf(row);
  const text = tokenizer.applyChatTemplate(messages, { tools });
  const tagged = tokenizer.assistantSpans?.(messages, { tools });
  const prefixOf = (count: number, addGenerationPrompt: boolean): string => {
    if (count === 0) throw rendersDifferently(row, 0);
    const written = tokenizer.applyChatTemplate(messages.slice(0, count), {
      addGenerationPrompt,
      tools,
    });
    if (!text.startsWith(written)) throw rendersDifferently(row, count - 1);
    return written;
  };
  const spans = tagged ?? spansByPrefixes(messages, prefixOf);
  const from = first === 0 ? 0 : prefixOf(first, true).length;
  const wanted = spans.filter(({ end }) => end > from);
  const eos = tagged === undefined ? tokenizer.eosTokenId : undefined;
  return markSpans(text, wanted, { tokenizer, eos });
}

function rendersDifferently(row: Row, index: number): DataError {
  return new DataError(
    `${placeOf(row)}: expected the chat template to write the conversation up to message ${index + 1} the same way alone and within the whole, because assistantOnly needs to know what the assistant wrote, but it does not.`,
    {
      hint: 'Begin with a user or system message; use a chat template with {% generation %} tags; or set assistantOnly to false.',
    },
  );
}

function spansByPrefixes(
  messages: readonly Message[],
  prefixOf: (count: number, addGenerationPrompt: boolean) => string,
): Span[] {
  return messages.flatMap(({ role }, index) => {
    if (role !== 'assistant') return [];
    const start = prefixOf(index, true).length;
    const end = prefixOf(index + 1, false).length;
    return end > start ? [{ start, end }] : [];
  });
}

function markSpans(
  text: string,
  spans: readonly Span[],
  { tokenizer, eos }: { tokenizer: TextTokenizer; eos: number | undefined },
): MarkedTokens {
  const edges = [...new Set([0, ...spans.flatMap(({ start, end }) => [start, end]), text.length])];
  const pieces = edges
    .slice(1)
    .map((end, index) => ({ start: edges[index] ?? 0, end, ids: [] as number[] }));
  const whole = encodeRendered(tokenizer, text);
  const counts = pieces.map(({ end }) => tokensUpTo(text, end, whole, tokenizer));
  const boundaryMerge = counts.includes(undefined);
  pieces.forEach((piece, index) => {
    piece.ids = boundaryMerge
      ? encodeRendered(tokenizer, text.slice(piece.start, piece.end))
      : whole.slice(counts[index - 1] ?? 0, counts[index]);
  });
  const starts = new Set(spans.map(({ start }) => start));
  const mask = pieces.flatMap(({ start, ids }) => {
    if (!starts.has(start)) return ids.map(() => 0);
    const last = eos === undefined ? -1 : ids.lastIndexOf(eos);
    return ids.map((_, at) => (last === -1 || at <= last ? 1 : 0));
  });
  return { ids: pieces.flatMap(({ ids }) => ids), mask: Uint8Array.from(mask), boundaryMerge };
}

/** How many of the whole text's tokens make its beginning; undefined where a token crosses the end of that. */
function tokensUpTo(
  text: string,
  end: number,
  whole: readonly number[],
  tokenizer: TextTokenizer,
): number | undefined {
  if (end === text.length) return whole.length;
  const ids = encodeRendered(tokenizer, text.slice(0, end));
  return ids.every((id, index) => id === whole[index]) ? ids.length : undefined;
}
