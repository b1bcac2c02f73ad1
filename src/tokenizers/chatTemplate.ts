/** Renders chat templates. Knows Jinja's variables for conversations, not tokens. */
import { Template } from '@huggingface/jinja';
import { CheckpointError, DataError } from '../errors/index.js';
import type { ChatMessage, ChatTemplateOptions } from './tokenizer.js';

/** A conversation's form as text, compiled once. */
export class ChatTemplate {
  private readonly template: Template;
  private readonly source: string;
  private readonly specialTokens: Readonly<Record<string, string>>;

  /**
   * @param text the Jinja source
   * @param source the folder it comes from, for messages
   * @param specialTokens variables such as `bos_token` that templates write out
   * @throws CheckpointError if the text is not a Jinja template
   */
  constructor(text: string, source: string, specialTokens: ReadonlyMap<string, string>) {
    this.source = source;
    this.specialTokens = Object.fromEntries(specialTokens);
    try {
      this.template = new Template(text);
    } catch (error) {
      throw new CheckpointError(
        `loadTokenizer: expected the chat template of ${source} to be valid Jinja, but ${reason(error)}.`,
        { hint: 'Fix or remove chat_template in that folder.', cause: error },
      );
    }
  }

  /**
   * Text of a conversation.
   *
   * @throws DataError if the template refuses it, with the template's own message
   */
  render(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): string {
    try {
      return this.template.render({
        ...this.specialTokens,
        // None rather than undefined where absent: templates ask `tools is not none`.
        tools: options.tools ?? null,
        documents: options.documents ?? null,
        add_generation_prompt: options.addGenerationPrompt ?? false,
        ...options.variables,
        messages,
      });
    } catch (error) {
      throw new DataError(
        `applyChatTemplate: expected a conversation that the chat template of ${this.source} accepts, but it answers: ${reason(error)}.`,
        {
          hint: `The roles were: ${messages.map((message) => message.role).join(', ') || '(no message)'}.`,
          cause: error,
        },
      );
    }
  }
}

function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\.$/, '');
}
