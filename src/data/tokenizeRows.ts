/** Turns rows into token ids with masks. Knows formats and chat templates, not tensors or losses. */
import { DataError } from '../errors/index.js';
import { detectFormat, type DataFormat } from './format.js';
import { atRow, placeOf, type Row } from './row.js';
import type { TextTokenizer } from './textTokenizer.js';
import {
  conversationParts,
  encodeRendered,
  joinAtBorder,
  messagesOf,
  promptOf,
  requireEos,
  requireLength,
  textOf,
  textParts,
  toolsOf,
  withEos,
  type Joined,
} from './tokenizeText.js';

/** One sequence to imitate. */
export interface SftExample {
  /** Prompt and completion, or the whole text, without padding. */
  readonly inputIds: readonly number[];
  /** Index of the first trained token; at least 1, because nothing predicts the first token of a sequence. */
  readonly completionStart: number;
  /** One entry per token: 1 where it is trained, 0 for prompt tokens. Made from positions, never from token ids. */
  readonly completionMask: Uint8Array;
  readonly row: Row;
}

/** What happened while rows became examples. */
export interface SftReport {
  readonly examples: number;
  /** Tokens of all examples. */
  readonly tokens: number;
  /** Tokens that are trained. */
  readonly trainedTokens: number;
  /** Examples cut at the maximum length. */
  readonly truncated: number;
  /** Rows left out: too long, or nothing to train in them. */
  readonly dropped: number;
  /** Rows whose prompt is cut differently alone than together with its completion. */
  readonly boundaryMerges: number;
  /** Examples that end without an EOS token, from which a model does not learn to stop. Truncated ones included. */
  readonly withoutEos: number;
}

/** Settings of `tokenizeForSft`. */
export interface SftTokenizeOptions {
  /** Most tokens per example. */
  readonly maxLength: number;
  /**
   * Ends every plain text and completion with the EOS token and trains it, unless it is there already. On unless set.
   * Conversations are left to the chat template.
   */
  readonly appendEos?: boolean | undefined;
  /** What happens to longer examples: `truncate` (unless set) keeps their beginning, `drop` leaves them out. */
  readonly overlong?: 'truncate' | 'drop' | undefined;
}

/**
 * Examples for supervised fine-tuning. Of language-modelling rows (`text`, `messages`) every token is trained, of
 * prompt–completion rows only the completion and its EOS.
 *
 * Prompt and completion are tokenized as one text. Where the prompt's own tokens are not a prefix of the result (a
 * token crosses the border), they are tokenized apart instead, as at generation, and counted in the report.
 *
 * Source: TRL's `SFTTrainer` for what is trained; we differ in the fallback at the border, where TRL only warns.
 *
 * @throws DataError if the rows are of another format, or no example remains
 * @throws ConfigError if EOS is to be appended and the tokenizer has none
 * @throws ValueRangeError if `maxLength` is not an integer of at least 2
 */
export function tokenizeForSft(
  rows: readonly Row[],
  tokenizer: TextTokenizer,
  options: SftTokenizeOptions,
): { examples: SftExample[]; report: SftReport } {
  const { maxLength, appendEos = true, overlong = 'truncate' } = options;
  requireLength('tokenizeForSft', 'maxLength', maxLength, 2);
  const format = detectFormat(rows);
  if (format.name !== 'language-modeling' && format.name !== 'prompt-completion') {
    throw new DataError(
      `tokenizeForSft: expected language-modeling or prompt-completion rows, received ${format.name} rows.`,
      { hint: 'Use {text}, {messages} or {prompt, completion}.' },
    );
  }
  if (appendEos && !format.conversational) requireEos('tokenizeForSft', tokenizer);

  const examples: SftExample[] = [];
  const counts = { tokens: 0, trainedTokens: 0, truncated: 0, boundaryMerges: 0, withoutEos: 0 };
  for (const row of rows) {
    const { ids, start, boundaryMerge } = atRow(row, () =>
      tokenizeRow(row, format, tokenizer, appendEos),
    );
    if (boundaryMerge) counts.boundaryMerges++;
    const isTooLong = ids.length > maxLength;
    const length = Math.min(ids.length, maxLength);
    if (length <= start || (isTooLong && overlong === 'drop')) continue;
    const completionMask = new Uint8Array(length).fill(1, start);
    const inputIds = ids.slice(0, length);
    examples.push({ inputIds, completionStart: start, completionMask, row });
    counts.tokens += length;
    counts.trainedTokens += length - start;
    if (isTooLong) counts.truncated++;
    // A template may write a line end after EOS: anywhere in what is trained will do.
    const eos = tokenizer.eosTokenId;
    if (eos === undefined || inputIds.lastIndexOf(eos) < start) counts.withoutEos++;
  }
  if (examples.length === 0) {
    throw new DataError(
      `tokenizeForSft: expected at least one example of at most ${maxLength} tokens, but all ${rows.length} rows were left out.`,
      { hint: 'Raise maxLength, or check that completions are not empty.' },
    );
  }
  const report = { examples: examples.length, dropped: rows.length - examples.length, ...counts };
  return { examples, report };
}

function tokenizeRow(
  row: Row,
  format: DataFormat,
  tokenizer: TextTokenizer,
  appendEos: boolean,
): Joined {
  if (format.name === 'language-modeling') {
    const ids = format.conversational
      ? encodeRendered(tokenizer, renderMessages(row, tokenizer))
      : withEos(tokenizer.encode(textOf(row, 'text')), tokenizer, appendEos);
    return { ids, start: 1, boundaryMerge: false };
  }
  const parts = format.conversational
    ? conversationParts(row, messagesOf(row, 'prompt'), messagesOf(row, 'completion'), tokenizer)
    : textParts(textOf(row, 'prompt'), textOf(row, 'completion'), tokenizer, appendEos);
  const joined = joinAtBorder(parts);
  // Nothing predicts the first token of a sequence.
  return { ...joined, start: Math.max(1, joined.start) };
}

function renderMessages(row: Row, tokenizer: TextTokenizer): string {
  return tokenizer.applyChatTemplate(messagesOf(row, 'messages'), { tools: toolsOf(row) });
}

/** One prompt to sample from. */
export interface PromptExample {
  readonly inputIds: readonly number[];
  /** The prompt as text, as rewards see it; conversations as the chat template renders them. */
  readonly text: string;
  readonly row: Row;
}

/** What happened while rows became prompts. */
export interface PromptReport {
  readonly prompts: number;
  readonly tokens: number;
  /** Rows left out because their prompt is longer than allowed. */
  readonly dropped: number;
}

/** Settings of `tokenizePrompts`. */
export interface PromptTokenizeOptions {
  /** Longer prompts are left out: half a question has no right answer. */
  readonly maxPromptLength: number;
}

/**
 * Prompts to sample completions for. Strings are encoded as they are, conversations by the chat template with the
 * header of the assistant's answer at the end. Further columns stay in the row, for rewards.
 *
 * @throws DataError if a row has no usable `prompt`, or no prompt remains
 * @throws ValueRangeError if `maxPromptLength` is not a positive integer
 */
export function tokenizePrompts(
  rows: readonly Row[],
  tokenizer: TextTokenizer,
  options: PromptTokenizeOptions,
): { prompts: PromptExample[]; report: PromptReport } {
  const { maxPromptLength } = options;
  requireLength('tokenizePrompts', 'maxPromptLength', maxPromptLength, 1);
  const prompts: PromptExample[] = [];
  let tokens = 0;
  for (const row of rows) {
    const { text, inputIds } = atRow(row, () => promptOf(row, tokenizer));
    if (inputIds.length === 0) {
      throw new DataError(
        `${placeOf(row)}: expected a prompt of at least one token, received none.`,
        {
          hint: 'A model cannot continue an empty text without a BOS token. Give the prompt some text.',
        },
      );
    }
    if (inputIds.length > maxPromptLength) continue;
    prompts.push({ inputIds, text, row });
    tokens += inputIds.length;
  }
  if (prompts.length === 0) {
    throw new DataError(
      `tokenizePrompts: expected at least one prompt of at most ${maxPromptLength} tokens, but all ${rows.length} rows were left out.`,
      { hint: 'Raise maxPromptLength.' },
    );
  }
  return {
    prompts,
    report: { prompts: prompts.length, tokens, dropped: rows.length - prompts.length },
  };
}
