/** What data needs of a tokenizer. `posttrain`'s own tokenizers satisfy it; data knows nothing else of them. */

/** One message of a conversation. */
export interface Message {
  readonly role: string;
  readonly [field: string]: unknown;
}

/** Text and conversations to token ids. */
export interface TextTokenizer {
  encode(text: string, options?: { readonly addSpecialTokens?: boolean | undefined }): number[];
  applyChatTemplate(
    messages: readonly Message[],
    options?: {
      readonly addGenerationPrompt?: boolean | undefined;
      readonly tools?: readonly unknown[] | undefined;
    },
  ): string;
  /** What the template marks as the assistant's, in the text that `applyChatTemplate` gives; undefined without marks. */
  assistantSpans?(
    messages: readonly Message[],
    options?: { readonly tools?: readonly unknown[] | undefined },
  ): readonly { readonly start: number; readonly end: number }[] | undefined;
  readonly eosTokenId: number | undefined;
  /** How many tokens the model has embeddings of, where it is known: ids from there on are refused. */
  readonly vocabularySize?: number | undefined;
  /** Begins a text that has no prompt. */
  readonly bosTokenId?: number | undefined;
}

/** A tokenizer for the rows of a model: what it makes of them must be tokens of the model. */
export function forVocabulary(tokenizer: TextTokenizer, vocabularySize: number): TextTokenizer {
  const { eosTokenId, bosTokenId } = tokenizer;
  return {
    encode: (text, options) => tokenizer.encode(text, options),
    applyChatTemplate: (messages, options) => tokenizer.applyChatTemplate(messages, options),
    assistantSpans: (messages, options) => tokenizer.assistantSpans?.(messages, options),
    ...{ eosTokenId, bosTokenId, vocabularySize },
  };
}
