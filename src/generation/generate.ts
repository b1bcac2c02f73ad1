/** Text in, text out: `sample` between a tokenizer's two directions. */
import { ValueRangeError } from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import type { ChatMessage, Tokenizer } from '../tokenizers/index.js';
import { sample, type SampledCompletion, type SampleOptions } from './sample.js';

/** What to complete and how; settings of `sample` with text for tokens. */
export interface GenerateOptions extends Omit<SampleOptions, 'promptIds' | 'shouldStop'> {
  model: Decoder;
  tokenizer: Tokenizer;
  /** Plain text, or conversations that the chat template renders with the header of the answer. */
  prompts: readonly (string | readonly ChatMessage[])[];
  /**
   * A completion ends before the first of these texts, with reason `stop`. Their tokens stay in `tokenIds`. A special
   * token (`<|im_end|>`) may be named too, although it is no part of the text.
   */
  stop?: readonly string[];
}

/** One completion as text and tokens. */
export interface Completion extends SampledCompletion {
  /** Without special tokens, cut before a stop text. */
  text: string;
}

/**
 * Completes prompts. Rows come prompt-major, the completions of one prompt together.
 *
 * @throws ValueRangeError for settings out of range or a prompt that does not fit; CheckpointError for a conversation
 *   without a chat template
 */
export async function generate(options: GenerateOptions): Promise<Completion[]> {
  const { tokenizer, prompts, stop = [] } = options;
  if (stop.includes('')) {
    throw new ValueRangeError(
      'generate: expected stop texts with at least one character, received an empty one.',
    );
  }
  const decode = (ids: readonly number[]): string =>
    tokenizer.decode(ids, { skipSpecialTokens: true });
  const special = stop.flatMap((text) => {
    const id = tokenizer.tokenToId(text);
    return id !== undefined && decode([id]) === '' ? [id] : [];
  });
  const longestStop = Math.max(0, ...stop.map((text) => text.length));
  const completions = await sample({
    ...options,
    eosTokenIds: options.eosTokenIds ?? endTokenIds(options.model, tokenizer),
    stopTokenIds: [...(options.stopTokenIds ?? []), ...special],
    promptIds: prompts.map((prompt) => encodePrompt(tokenizer, prompt)),
    ...(stop.length > special.length && {
      shouldStop: (ids: readonly number[]) => {
        // A UTF-16 unit is at most three bytes and a token at least one, so that a stop text that ends here began
        // within this many tokens; the rest is a margin for special tokens, which are no text, and a split character.
        const tail = decode(ids.slice(-(3 * longestStop + 16)));
        return stop.some((text) => tail.includes(text));
      },
    }),
  });
  return completions.map((completion) => {
    const text = decode(completion.tokenIds);
    const cuts = stop.map((stopText) => text.indexOf(stopText)).filter((at) => at !== -1);
    return { ...completion, text: cuts.length > 0 ? text.slice(0, Math.min(...cuts)) : text };
  });
}

/**
 * The tokens that end a completion: the model's, and the tokenizer's, which is the one that demonstrations end with.
 * They differ where a base model is taught the end of a turn.
 */
export function endTokenIds(model: Decoder, tokenizer: Tokenizer): number[] {
  const { eosTokenIds } = model.config;
  const { eosTokenId } = tokenizer;
  return [...new Set([...eosTokenIds, ...(eosTokenId === undefined ? [] : [eosTokenId])])];
}

function encodePrompt(tokenizer: Tokenizer, prompt: string | readonly ChatMessage[]): number[] {
  return typeof prompt === 'string'
    ? tokenizer.encode(prompt)
    : tokenizer.encodeChat(prompt, { addGenerationPrompt: true });
}
