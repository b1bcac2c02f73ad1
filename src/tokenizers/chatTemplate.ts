/** Renders chat templates. Knows Jinja's variables for conversations, not tokens. */
import { Template } from '@huggingface/jinja';
import { CheckpointError, DataError } from '../errors/index.js';
import type { ChatMessage, ChatTemplateOptions, TextSpan } from './tokenizer.js';

/** What surrounds the text that an assistant writes, for training on it alone: an extension of transformers. */
const GENERATION_TAG = /\{%(-?)\s*(end)?generation\s*(-?)%\}/g;

/** A conversation's form as text, compiled once. */
export class ChatTemplate {
  private readonly template: Template;
  private readonly source: string;
  private readonly specialTokens: Readonly<Record<string, string>>;
  /** The template with signs in the place of its generation tags; undefined where it has none. */
  private readonly marked: Template | undefined;

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
      this.marked = text.search(GENERATION_TAG) >= 0 ? new Template(withMarks(text)) : undefined;
    } catch (error) {
      throw new CheckpointError(
        `loadTokenizer: expected the chat template of ${source} to be valid Jinja, but ${syntaxReason(error)}.`,
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
    return this.renderWith(this.template, messages, options);
  }

  /**
   * What stands between `{% generation %}` and `{% endgeneration %}`, within the text that `render` gives; undefined
   * where the template has no such tags.
   *
   * @throws DataError as `render`; CheckpointError if the tags do not come in pairs
   */
  assistantSpans(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions = {},
  ): readonly TextSpan[] | undefined {
    if (this.marked === undefined) return undefined;
    const text = this.render(messages, options);
    const [start = '', end = ''] = unusedCharacters(text, 2);
    const variables = { ...options.variables, [MARKS.start]: start, [MARKS.end]: end };
    const marked = this.renderWith(this.marked, messages, { ...options, variables });
    const spans: TextSpan[] = [];
    let length = 0;
    let open: number | undefined;
    for (const piece of marked.split(new RegExp(`([${start}${end}])`, 'u'))) {
      if (piece === start && open === undefined) open = length;
      else if (piece === end && open !== undefined) {
        if (length > open) spans.push({ start: open, end: length });
        open = undefined;
      } else if (piece === start || piece === end) throw this.unpaired();
      else length += piece.length;
    }
    if (open !== undefined || length !== text.length) throw this.unpaired();
    return spans;
  }

  private unpaired(): CheckpointError {
    return new CheckpointError(
      `applyChatTemplate: expected {% generation %} and {% endgeneration %} in turn in the chat template of ${this.source}, received others.`,
      { hint: 'Fix chat_template in that folder.' },
    );
  }

  private renderWith(
    template: Template,
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions,
  ): string {
    try {
      return template.render({
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

/** The library reads beyond the last token of a template that ends within a block or an expression. */
function syntaxReason(error: unknown): string {
  return error instanceof TypeError
    ? 'it ends within a {% block %} or an {{ expression }}'
    : reason(error);
}

function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\.$/, '');
}

/** Variables that stand for the signs. */
const MARKS = { start: 'posttrain_generation_start', end: 'posttrain_generation_end' } as const;

/** Writes a sign at every tag. The statements around it trim blanks and line ends as the tag does. */
function withMarks(text: string): string {
  return text.replace(
    GENERATION_TAG,
    (_, left: string, isEnd: string | undefined, right: string) => {
      const variable = isEnd === undefined ? MARKS.start : MARKS.end;
      const statement = 'set posttrain_generation = none';
      return `{%${left} ${statement} %}{{ ${variable} }}{% ${statement} ${right}%}`;
    },
  );
}

/** Characters for private use that a text does not have. */
function unusedCharacters(text: string, count: number): string[] {
  const found: string[] = [];
  for (let code = 0xe000; found.length < count && code < 0xf8ff; code++) {
    const character = String.fromCharCode(code);
    if (!text.includes(character)) found.push(character);
  }
  return found;
}
