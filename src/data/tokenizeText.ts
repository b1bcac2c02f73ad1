/** How text and messages of a row become token ids. Knows the border between prompt and completion, not formats. */
import { ConfigError, DataError, ValueRangeError } from '../errors/index.js';
import { describeValue, placeOf, type Row } from './row.js';
import type { Message, TextTokenizer } from './textTokenizer.js';

/** A text in two parts, tokenized in both ways that there are. */
export interface TextParts {
  readonly promptIds: number[];
  /** Ids of both parts as one text. */
  readonly wholeIds: number[];
  /** Ids of the completion alone. */
  readonly completionIds: () => number[];
}

/** Token ids of one row before lengths are enforced. */
export interface Joined {
  readonly ids: number[];
  /** Index of the first token of the completion. */
  readonly start: number;
  readonly boundaryMerge: boolean;
}

/** A prompt and its completion, which ends with EOS where `appendEos` says so. */
export function textParts(
  prompt: string,
  completion: string,
  tokenizer: TextTokenizer,
  appendEos: boolean,
): TextParts {
  return {
    promptIds: encodePrompt(tokenizer, prompt),
    wholeIds: withEos(tokenizer.encode(prompt + completion), tokenizer, appendEos),
    completionIds: () =>
      withEos(tokenizer.encode(completion, { addSpecialTokens: false }), tokenizer, appendEos),
  };
}

/**
 * Messages of a prompt and of its completion as the chat template writes them. Without a message the prompt is empty.
 *
 * @throws DataError where the template writes the prompt differently before its completion
 */
export function conversationParts(
  row: Row,
  prompt: readonly Message[],
  completion: readonly Message[],
  tokenizer: TextTokenizer,
): TextParts {
  const tools = toolsOf(row);
  const promptText =
    prompt.length === 0
      ? ''
      : tokenizer.applyChatTemplate(prompt, { addGenerationPrompt: true, tools });
  const wholeText = tokenizer.applyChatTemplate([...prompt, ...completion], { tools });
  if (!wholeText.startsWith(promptText)) {
    throw new DataError(
      `${placeOf(row)}: expected the chat template to write the prompt the same way alone and before its completion, but it does not.`,
      {
        hint: 'End the prompt with a user or tool message and start the completion with an assistant message; or render the texts yourself as plain {prompt, completion}.',
      },
    );
  }
  return {
    promptIds: encodeRendered(tokenizer, promptText),
    wholeIds: encodeRendered(tokenizer, wholeText),
    completionIds: () => encodeRendered(tokenizer, wholeText.slice(promptText.length)),
  };
}

/** Whether the whole text's tokens begin with the prompt's: no token crosses the border. */
export function keepsBorder({ promptIds, wholeIds }: TextParts): boolean {
  return promptIds.every((id, index) => id === wholeIds[index]);
}

/** Uses the whole text's tokens if they begin with the prompt's; else the two parts' tokens. */
export function joinAtBorder(parts: TextParts): Joined {
  const { promptIds, wholeIds, completionIds } = parts;
  const start = promptIds.length;
  return keepsBorder(parts)
    ? { ids: wholeIds, start, boundaryMerge: false }
    : { ids: [...promptIds, ...completionIds()], start, boundaryMerge: true };
}

/** A prompt to be continued: with BOS where the tokenizer adds it, without an EOS that it may add. */
export function encodePrompt(tokenizer: TextTokenizer, prompt: string): number[] {
  const ids = tokenizer.encode(prompt);
  const eos = tokenizer.eosTokenId;
  if (eos === undefined || ids.at(-1) !== eos) return ids;
  const endsWithEos = tokenizer.encode(prompt, { addSpecialTokens: false }).at(-1) === eos;
  return endsWithEos ? ids : ids.slice(0, -1);
}

/**
 * The prompt of a row: a string as it is, a conversation by the chat template with the header of the assistant's answer.
 *
 * @throws DataError if the row has no usable `prompt`
 */
export function promptOf(row: Row, tokenizer: TextTokenizer): { text: string; inputIds: number[] } {
  if (typeof row.values['prompt'] === 'string') {
    const text = row.values['prompt'];
    return { text, inputIds: encodePrompt(tokenizer, text) };
  }
  const text = tokenizer.applyChatTemplate(messagesOf(row, 'prompt'), {
    addGenerationPrompt: true,
    tools: toolsOf(row),
  });
  return { text, inputIds: encodeRendered(tokenizer, text) };
}

/**
 * Ids of text that a template rendered, which holds its special tokens already.
 *
 * @throws DataError if it begins with two BOS tokens
 */
export function encodeRendered(tokenizer: TextTokenizer, text: string): number[] {
  const ids = tokenizer.encode(text, { addSpecialTokens: false });
  const bos = tokenizer.bosTokenId;
  if (bos === undefined || ids[0] !== bos || ids[1] !== bos) return ids;
  throw new DataError(
    'encodeRendered: expected at most one BOS token at the start of a conversation, received two.',
    {
      hint: 'The chat template writes it: remove it from the template, or from the first message.',
    },
  );
}

/** Ends with EOS, once. */
export function withEos(ids: number[], tokenizer: TextTokenizer, appendEos: boolean): number[] {
  const eos = tokenizer.eosTokenId;
  return !appendEos || eos === undefined || ids.at(-1) === eos ? ids : [...ids, eos];
}

/**
 * A column that is text.
 *
 * @throws DataError that names row and column
 */
export function textOf(row: Row, column: string): string {
  const value = row.values[column];
  if (typeof value === 'string') return value;
  throw new DataError(
    `${placeOf(row)}: expected column ${JSON.stringify(column)} to be a string, received ${describeValue(value)}.`,
  );
}

/**
 * A column that is a list of messages.
 *
 * @throws DataError that names row and column
 */
export function messagesOf(row: Row, column: string): readonly Message[] {
  const value = row.values[column];
  if (Array.isArray(value) && value.every(isMessage)) return value;
  throw new DataError(
    `${placeOf(row)}: expected column ${JSON.stringify(column)} to be a list of messages [{"role", "content"}, …], received ${describeValue(value)}.`,
  );
}

/**
 * The optional `tools` column of conversational rows: a list, or JSON of one, as in TRL. Tables hold JSON, because the
 * parameters of every tool have fields of their own.
 *
 * @throws DataError that names the row, where the column holds something else
 */
export function toolsOf(row: Row): readonly unknown[] | undefined {
  const { tools } = row.values;
  if (tools === undefined || tools === null) return undefined;
  const list = typeof tools === 'string' ? parsedJson(tools) : tools;
  if (Array.isArray(list)) return list.length > 0 ? list : undefined;
  if (list === null) return undefined;
  throw new DataError(
    `${placeOf(row)}: expected column "tools" to be a list of tools, or JSON of one, received ${describeValue(tools)}.`,
    { hint: 'Every tool is an object that the chat template writes out, such as a JSON schema.' },
  );
}

/** What a text says as JSON; undefined where it is none. */
function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isMessage(value: unknown): value is Message {
  return (
    typeof value === 'object' && value !== null && 'role' in value && typeof value.role === 'string'
  );
}

/**
 * Refuses the row of which an id is beyond the model's vocabulary: the model has no embedding of it. It is no fault of
 * the row, so that it is refused where rows with faults are skipped, too.
 *
 * @throws ConfigError that names row, id and vocabulary
 */
export function requireKnownIds(
  row: Row,
  sequences: readonly (readonly number[])[],
  tokenizer: TextTokenizer,
): void {
  const { vocabularySize: size = Infinity } = tokenizer;
  for (const ids of sequences) {
    const unknown = ids.find((id) => id >= size);
    if (unknown === undefined) continue;
    const name = unknown === tokenizer.eosTokenId ? ' (the EOS token)' : '';
    throw new ConfigError(
      `${placeOf(row)}: expected token ids below ${size}, the model's vocabulary, received ${unknown}${name}.`,
      {
        hint: "The tokenizer has tokens that the model does not know. Use the model's own tokenizer, or a model whose embeddings were enlarged for it.",
      },
    );
  }
}

/** @throws ConfigError if EOS is to be appended and the tokenizer has none */
export function requireEos(caller: string, tokenizer: TextTokenizer): void {
  if (tokenizer.eosTokenId !== undefined) return;
  throw new ConfigError(
    `${caller}: expected a tokenizer with an EOS token, because appendEos is on, but it has none.`,
    { hint: 'Add eos_token to tokenizer_config.json, or set appendEos to false.' },
  );
}

/** @throws ValueRangeError unless `value` is an integer of at least `least` */
export function requireLength(caller: string, name: string, value: number, least: number): void {
  if (Number.isInteger(value) && value >= least) return;
  throw new ValueRangeError(
    `${caller}: expected ${name} to be an integer of at least ${least}, received ${value}.`,
  );
}
