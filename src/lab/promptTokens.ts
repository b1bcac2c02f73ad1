/** A prompt of the lab as the model sees it. */
import type { LabPrompt } from '../dashboard/index.js';
import { encodePrompt } from '../generation/index.js';
import type { ChatMessage, Tokenizer } from '../tokenizers/index.js';

/** The prompt as `generate` takes it. */
export function promptOf({ prompt, chat }: LabPrompt): string | ChatMessage[] {
  return chat ? [{ role: 'user', content: prompt }] : prompt;
}

/**
 * The tokens of a prompt. A recorded prompt is text that the chat template has written, its BOS token included: that one
 * is not put before it again.
 */
export function promptTokens(tokenizer: Tokenizer, prompt: LabPrompt): number[] {
  const ids = encodePrompt(tokenizer, promptOf(prompt));
  const isDouble = ids[0] === tokenizer.bosTokenId && ids[1] === ids[0] && ids.length > 1;
  return isDouble ? ids.slice(1) : ids;
}

/** The prompt as text: as it is, or as the chat template writes it. */
export function promptText(tokenizer: Tokenizer, prompt: LabPrompt): string {
  const rendered = promptOf(prompt);
  return typeof rendered === 'string'
    ? rendered
    : tokenizer.applyChatTemplate(rendered, { addGenerationPrompt: true });
}
