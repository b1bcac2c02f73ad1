/** Turns rows into token ids with masks. Knows formats and chat templates, not tensors or losses. */
import { ConfigError, DataError, counted } from '../errors/index.js';
import { assistantTokens, type MarkedTokens } from './assistantTokens.js';
import type { ExampleReader } from './exampleReader.js';
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
  requireKnownIds,
  requireLength,
  textOf,
  textParts,
  toolsOf,
  withEos,
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
  /** Rows cut at the maximum length, to one example or several. */
  readonly truncated: number;
  /** Rows left out: too long, or nothing to train in them. */
  readonly dropped: number;
  /** Rows whose prompt is cut differently alone than together with its completion. */
  readonly boundaryMerges: number;
  /** Examples without a trained EOS token, from which a model does not learn to stop. Truncated ones included. */
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
  /**
   * What happens to longer examples: `truncate` (unless set) keeps their beginning, `truncateStart` their end, `split`
   * makes several of a `{text}` or `{messages}` row, `drop` leaves them out.
   */
  readonly overlong?: 'truncate' | 'truncateStart' | 'split' | 'drop' | undefined;
  /** Trains what the assistant wrote, of all messages, and nothing else. Off unless set; for conversations. */
  readonly assistantOnly?: boolean | undefined;
}

/**
 * Examples for supervised fine-tuning. Of language-modelling rows (`text`, `messages`) every token is trained, of
 * prompt–completion rows only the completion and its EOS; with `assistantOnly` only what the assistant wrote of those.
 *
 * Prompt and completion are tokenized as one text. Where the prompt's own tokens are not a prefix of the result (a
 * token crosses the border), they are tokenized apart instead, as at generation, and counted in the report.
 *
 * Source: TRL's `SFTTrainer` for what is trained; we differ in the fallback at the border, where TRL only warns.
 *
 * @throws DataError if the rows are of another format, or no example remains
 * @throws ConfigError if EOS is to be appended and the tokenizer has none, or a setting does not fit the format
 * @throws ValueRangeError if `maxLength` is not an integer of at least 2
 */
export function tokenizeForSft(
  rows: readonly Row[],
  tokenizer: TextTokenizer,
  options: SftTokenizeOptions,
): { examples: SftExample[]; report: SftReport } {
  const reader = new SftReader(detectFormat(rows), tokenizer, options);
  const examples = rows.flatMap((row) => reader.add(row));
  return { examples, report: reader.report() };
}

/** Makes examples row by row and keeps count. */
export class SftReader implements ExampleReader<SftExample, SftReport> {
  private readonly format: DataFormat;
  private readonly tokenizer: TextTokenizer;
  private readonly options: {
    readonly [Key in keyof SftTokenizeOptions]-?: NonNullable<SftTokenizeOptions[Key]>;
  };
  private rows = 0;
  private readonly counts = {
    ...{ examples: 0, dropped: 0, tokens: 0, trainedTokens: 0 },
    ...{ truncated: 0, boundaryMerges: 0, withoutEos: 0 },
  };

  /** @throws as `tokenizeForSft` */
  constructor(format: DataFormat, tokenizer: TextTokenizer, given: SftTokenizeOptions) {
    const { maxLength, appendEos = true, overlong = 'truncate', assistantOnly = false } = given;
    const options = { maxLength, appendEos, overlong, assistantOnly };
    requireLength('tokenizeForSft', 'maxLength', maxLength, 2);
    if (format.name !== 'language-modeling' && format.name !== 'prompt-completion') {
      throw new DataError(
        `tokenizeForSft: expected language-modeling or prompt-completion rows, received ${format.name} rows.`,
        { hint: 'Use {text}, {messages} or {prompt, completion}.' },
      );
    }
    if (assistantOnly && !format.conversational) {
      throw new ConfigError(
        `assistantOnly: expected conversations, because it trains what the assistant wrote, received plain ${format.name} rows.`,
        { hint: 'Of {prompt, completion} rows only the completion is trained anyway.' },
      );
    }
    if (overlong === 'split' && format.name !== 'language-modeling') {
      throw new ConfigError(
        'overlong: expected another value than split for prompt-completion rows, received split.',
        { hint: 'A part of a completion without its prompt teaches something else.' },
      );
    }
    if (appendEos && !format.conversational) requireEos('tokenizeForSft', tokenizer);
    this.format = format;
    this.tokenizer = tokenizer;
    this.options = options;
  }

  /** The examples of a row: one, none, or several where it is split. Counts them. */
  add(row: Row): SftExample[] {
    const { examples, boundaryMerge, isTooLong } = this.read(row);
    this.rows++;
    const { counts } = this;
    if (examples.length === 0) counts.dropped++;
    else if (isTooLong) counts.truncated++;
    if (boundaryMerge) counts.boundaryMerges++;
    for (const { inputIds, completionMask } of examples) {
      counts.examples++;
      counts.tokens += inputIds.length;
      counts.trainedTokens += completionMask.reduce((sum, flag) => sum + flag, 0);
      const eos = this.tokenizer.eosTokenId;
      // Anywhere in what is trained: a template may write a line end after EOS.
      const isEnd = (id: number, at: number): boolean => id === eos && completionMask[at] === 1;
      if (!inputIds.some(isEnd)) counts.withoutEos++;
    }
    return examples;
  }

  /** The examples of a row, without counting. */
  examplesOf(row: Row): SftExample[] {
    return this.read(row).examples;
  }

  /** @throws DataError if there is no example */
  report(): SftReport {
    if (this.counts.examples === 0) {
      throw new DataError(
        `tokenizeForSft: expected at least one example of at most ${this.options.maxLength} tokens, but all were left out: ${counted(this.rows, 'row')}.`,
        { hint: 'Raise maxLength, or check that completions are not empty.' },
      );
    }
    return { ...this.counts };
  }

  private read(row: Row): {
    examples: SftExample[];
    boundaryMerge: boolean;
    isTooLong: boolean;
  } {
    const { maxLength, overlong } = this.options;
    const { ids, mask, boundaryMerge } = atRow(row, () => this.tokensOf(row));
    requireKnownIds(row, [ids], this.tokenizer);
    const isTooLong = ids.length > maxLength;
    const starts =
      !isTooLong || overlong === 'truncate'
        ? [0]
        : overlong === 'truncateStart'
          ? [ids.length - maxLength]
          : overlong === 'split'
            ? Array.from({ length: Math.ceil(ids.length / maxLength) }, (_, at) => at * maxLength)
            : [];
    const examples = starts.flatMap((start): SftExample[] => {
      const inputIds = ids.slice(start, start + maxLength);
      const completionMask = mask.slice(start, start + maxLength);
      completionMask[0] = 0; // Nothing predicts the first token of a sequence.
      const completionStart = completionMask.indexOf(1);
      return completionStart === -1 ? [] : [{ inputIds, completionStart, completionMask, row }];
    });
    return { examples, boundaryMerge, isTooLong };
  }

  private tokensOf(row: Row): MarkedTokens {
    const { format, tokenizer } = this;
    const { appendEos, assistantOnly } = this.options;
    const isText = format.name === 'language-modeling';
    if (assistantOnly) {
      const prompt = isText ? [] : messagesOf(row, 'prompt');
      const messages = messagesOf(row, isText ? 'messages' : 'completion');
      const whole = { messages: [...prompt, ...messages], first: prompt.length };
      return assistantTokens(row, whole, tokenizer);
    }
    if (isText) {
      const ids = format.conversational
        ? encodeRendered(tokenizer, renderMessages(row, tokenizer))
        : withEos(tokenizer.encode(textOf(row, 'text')), tokenizer, appendEos);
      return { ids, mask: new Uint8Array(ids.length).fill(1), boundaryMerge: false };
    }
    const parts = format.conversational
      ? conversationParts(row, messagesOf(row, 'prompt'), messagesOf(row, 'completion'), tokenizer)
      : textParts(textOf(row, 'prompt'), textOf(row, 'completion'), tokenizer, appendEos);
    const { ids, start, boundaryMerge } = joinAtBorder(parts);
    return { ids, mask: new Uint8Array(ids.length).fill(1, start), boundaryMerge };
  }
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
    requireKnownIds(row, [inputIds], tokenizer);
    if (inputIds.length > maxPromptLength) continue;
    prompts.push({ inputIds, text, row });
    tokens += inputIds.length;
  }
  if (prompts.length === 0) {
    throw new DataError(
      `tokenizePrompts: expected at least one prompt of at most ${maxPromptLength} tokens, but all were left out: ${counted(rows.length, 'row')}.`,
      { hint: 'Raise maxPromptLength.' },
    );
  }
  return {
    prompts,
    report: { prompts: prompts.length, tokens, dropped: rows.length - prompts.length },
  };
}
