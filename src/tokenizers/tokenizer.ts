/**
 * What the rest of posttrain knows of a tokenizer: text to token ids and back, chat templates, special tokens. Knows
 * nothing of files, tensors or models.
 */

/** One part of a message whose content is a list, for example `{ type: 'text', text: 'Hello' }`. */
export interface ChatContentPart {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** One message of a conversation, in the form that chat templates expect. */
export interface ChatMessage {
  /** Who speaks: `system`, `user`, `assistant`, `tool`, or any other role that the template knows. */
  readonly role: string;
  /** What is said. Absent or null where the message only carries, say, `tool_calls`. */
  readonly content?: string | readonly ChatContentPart[] | null | undefined;
  /** Any further field that the template reads: `tool_calls`, `name`, `reasoning_content`, … */
  readonly [field: string]: unknown;
}

/** How a conversation becomes text. */
export interface ChatTemplateOptions {
  /** Ends the text with the header of an assistant message, so that the model answers next. Off unless set. */
  readonly addGenerationPrompt?: boolean | undefined;
  /** JSON schemas of the tools that the model may call, handed to the template as `tools`. */
  readonly tools?: readonly unknown[] | undefined;
  /** Documents to answer from, handed to the template as `documents`. */
  readonly documents?: readonly unknown[] | undefined;
  /** Further variables of the template, for example `{ enable_thinking: false }` or `{ date_string: '26 Jul 2024' }`. */
  readonly variables?: Readonly<Record<string, unknown>> | undefined;
}

/** A part of a text, in UTF-16 units. */
export interface TextSpan {
  readonly start: number;
  readonly end: number;
}

/** How text becomes ids. */
export interface EncodeOptions {
  /** Adds what the folder's post-processor adds, usually a BOS token. On unless set. */
  readonly addSpecialTokens?: boolean | undefined;
}

/** How ids become text. */
export interface DecodeOptions {
  /** Leaves special tokens out of the text. Off unless set. */
  readonly skipSpecialTokens?: boolean | undefined;
}

/** Text to token ids and back, as the folder of a model defines it. */
export interface Tokenizer {
  /**
   * Token ids of a text. Special tokens written out in the text become their ids, as in `transformers`. A text that
   * already starts with the BOS token does not get a second one.
   *
   * @throws DataError if the vocabulary cannot express a character of the text
   */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * Text of token ids. Bytes that do not form a whole character become U+FFFD; ids that the tokenizer does not have
   * (a model's embedding is often padded to a round size) add nothing.
   *
   * @throws ValueRangeError if an id is not a non-negative integer
   */
  decode(ids: readonly number[], options?: DecodeOptions): string;
  /**
   * The text of a conversation, rendered by the folder's chat template.
   *
   * @throws CheckpointError if the folder has no chat template
   * @throws DataError if the template refuses the conversation
   */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatTemplateOptions): string;
  /**
   * What the chat template marks as written by the assistant (`{% generation %}`), within the text that
   * `applyChatTemplate` gives. undefined where the template marks nothing.
   *
   * @throws as `applyChatTemplate`
   */
  assistantSpans(
    messages: readonly ChatMessage[],
    options?: ChatTemplateOptions,
  ): readonly TextSpan[] | undefined;
  /**
   * Token ids of a conversation. The template owns the special tokens: none are added to what it writes.
   *
   * @throws CheckpointError if there is no chat template, or the template writes BOS twice at the start
   * @throws DataError if the template refuses the conversation
   */
  encodeChat(messages: readonly ChatMessage[], options?: ChatTemplateOptions): number[];
  /**
   * The text that one token stands for, for display: byte-level spellings such as `Ġ` and `▁` become what they mean,
   * special tokens stay spelled out, and bytes that are not whole characters are written `\xHH`.
   *
   * @throws ValueRangeError if the tokenizer has no such id
   */
  tokenText(id: number): string;
  /** Id of a token spelled exactly as in the vocabulary (`Ġthe`, `<|im_end|>`), or undefined. */
  tokenToId(token: string): number | undefined;
  /**
   * Writes the tokenizer's files, byte for byte as they were read or made.
   *
   * @throws IoError if the folder cannot be written
   */
  save(folder: string): Promise<void>;
  /** The folder the tokenizer was read from, or a name for one that was made in memory. For messages. */
  readonly source: string;
  /** One more than the largest id. A model's embedding has at least this many rows. */
  readonly vocabSize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** What to fill rows with: the folder's padding token, else the EOS token. Masks never derive from it. */
  readonly padTokenId: number | undefined;
  readonly hasChatTemplate: boolean;
}
