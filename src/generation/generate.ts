/** Text in, text out: `sample` between a tokenizer's two directions. */
import type { Decoder, GenerationConfig } from '../models/index.js';
import type { ChatMessage, Tokenizer } from '../tokenizers/index.js';
import { sample, type SampledCompletion, type SampleOptions } from './sample.js';
import { resolveSampling, type ResolvedSampling, type SamplingSettings } from './settings.js';
import { stopConditions } from './stopTexts.js';

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
  const decode = (ids: readonly number[]): string =>
    tokenizer.decode(ids, { skipSpecialTokens: true });
  const { stopTokenIds, ...conditions } = stopConditions('generate', tokenizer, stop);
  const completions = await sample({
    ...options,
    eosTokenIds: options.eosTokenIds ?? endTokenIds(options.model, tokenizer),
    stopTokenIds: [...(options.stopTokenIds ?? []), ...stopTokenIds],
    promptIds: prompts.map((prompt) => encodePrompt(tokenizer, prompt)),
    ...conditions,
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

/**
 * How a model is sampled: as said, else as its generation_config.json recommends, else from its own distribution.
 *
 * @throws ValueRangeError for a setting out of range
 */
export function recommendedSampling(
  given: SamplingSettings,
  recommended: GenerationConfig | null,
): ResolvedSampling {
  return resolveSampling({
    temperature: given.temperature ?? recommended?.temperature ?? undefined,
    topK: given.topK ?? recommended?.topK ?? undefined,
    topP: given.topP ?? recommended?.topP ?? undefined,
    minP: given.minP ?? recommended?.minP ?? undefined,
    repetitionPenalty: given.repetitionPenalty ?? recommended?.repetitionPenalty ?? undefined,
  });
}

/** Most tokens of a completion where nobody says: as many as fit behind the longest prompt, at most 256. */
export function defaultMaxNewTokens(model: Pick<Decoder, 'config'>, longestPrompt: number): number {
  return Math.max(1, Math.min(256, model.config.maxPositionEmbeddings - longestPrompt));
}

/** The tokens of a prompt: text as it is, a conversation by the chat template with the header of the answer. */
export function encodePrompt(
  tokenizer: Tokenizer,
  prompt: string | readonly ChatMessage[],
): number[] {
  return typeof prompt === 'string'
    ? tokenizer.encode(prompt)
    : tokenizer.encodeChat(prompt, { addGenerationPrompt: true });
}
