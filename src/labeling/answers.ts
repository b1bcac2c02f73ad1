/** Where answers come from: keys of a terminal, or lines of a file or program. Knows streams; knows no sessions. */
import { createInterface, emitKeypressEvents, type Interface } from 'node:readline';
import { DataError } from '../errors/index.js';

/** What was answered. */
export type Answer = (
  | { readonly kind: 'ranking'; readonly text: string }
  | { readonly kind: 'skip' | 'undo' | 'quit' | 'help' | 'show' }
) & {
  /** The number of the prompt that it is meant for, from 1, where it says so. */
  readonly prompt?: number;
};

/** Whoever answers. */
export interface Answers {
  /**
   * The next answer; undefined where there will be none.
   *
   * @param draft a ranking to begin with, which may be changed
   */
  next(draft?: string): Promise<Answer | undefined>;
  /** Says why the last answer cannot be taken. @throws DataError where nobody is there to try again */
  refuse(reason: string): void;
  /** Leaves the stream as it was found. */
  close(): void;
}

/** Letters that are whole answers. */
const COMMANDS: Readonly<Record<string, Answer>> = {
  s: { kind: 'skip' },
  u: { kind: 'undo' },
  r: { kind: 'show' },
  q: { kind: 'quit' },
  '?': { kind: 'help' },
};

/** A key as `node:readline` names it. */
export interface Key {
  readonly sequence?: string | undefined;
  readonly name?: string | undefined;
  readonly ctrl?: boolean | undefined;
}

/** What a key does to what was typed so far: changes it, answers, or interrupts (Ctrl-C). */
export type KeyEffect =
  | { readonly kind: 'edit'; readonly typed: string }
  | { readonly kind: 'answer'; readonly answer: Answer }
  | { readonly kind: 'interrupt' };

/** The effect of one key. Keys that mean nothing leave what was typed. */
export function pressKey(typed: string, { sequence = '', name, ctrl = false }: Key): KeyEffect {
  if (ctrl) {
    if (name === 'c') return { kind: 'interrupt' };
    if (name === 'd') return { kind: 'answer', answer: { kind: 'quit' } };
    return { kind: 'edit', typed: name === 'u' ? '' : typed };
  }
  if (name === 'return' || name === 'enter')
    return { kind: 'answer', answer: { kind: 'ranking', text: typed } };
  if (name === 'backspace') return { kind: 'edit', typed: typed.slice(0, -1) };
  if (name === 'escape') return { kind: 'edit', typed: '' };
  const command = COMMANDS[sequence.toLowerCase()];
  if (command !== undefined) return { kind: 'answer', answer: command };
  return { kind: 'edit', typed: /^[0-9>= ]$/.test(sequence) ? typed + sequence : typed };
}

/** The input of a process: a terminal, a pipe or a file. */
export interface InputStream extends NodeJS.ReadableStream {
  readonly isTTY?: boolean;
  setRawMode?(isRaw: boolean): unknown;
}

/** What `KeyAnswers` needs. */
export interface KeyAnswersOptions {
  readonly input: InputStream;
  readonly write: (text: string) => unknown;
  /** Hears of Ctrl-C, and of `q` while nothing is asked. */
  readonly onStop: (reason: 'SIGINT' | 'quit') => void;
}

const PROMPT = '> ';

/** Answers by single keys of a terminal. Rankings are typed on a line and end with Enter; letters count at once. */
export class KeyAnswers implements Answers {
  private readonly options: KeyAnswersOptions;
  private typed = '';
  private waiting: ((answer: Answer) => void) | undefined;

  constructor(options: KeyAnswersOptions) {
    this.options = options;
    const { input } = options;
    emitKeypressEvents(input);
    input.setRawMode?.(true);
    input.on('keypress', this.onKey);
    input.on('end', this.onEnd);
    input.resume();
  }

  next(draft = ''): Promise<Answer> {
    this.typed = draft;
    this.draw();
    return new Promise((resolve) => (this.waiting = resolve));
  }

  refuse(reason: string): void {
    this.options.write(`${reason}\n`);
  }

  close(): void {
    const { input, write } = this.options;
    if (this.waiting !== undefined) write('\n');
    this.waiting = undefined;
    input.off('keypress', this.onKey);
    input.off('end', this.onEnd);
    input.setRawMode?.(false);
    input.pause();
  }

  private readonly onKey = (_text: string | undefined, key: Key): void => {
    const effect = pressKey(this.typed, key);
    if (effect.kind === 'interrupt') this.options.onStop('SIGINT');
    else if (this.waiting === undefined) {
      // Keys pressed while the model samples would answer a prompt that nobody has seen; only leaving counts.
      if (effect.kind === 'answer' && effect.answer.kind === 'quit') this.options.onStop('quit');
    } else if (effect.kind === 'edit') {
      this.typed = effect.typed;
      this.draw();
    } else this.answer(effect.answer);
  };

  /** A terminal that is gone cannot answer. */
  private readonly onEnd = (): void => this.options.onStop('quit');

  private answer(answer: Answer): void {
    const resolve = this.waiting;
    this.waiting = undefined;
    this.options.write('\n');
    resolve?.(answer);
  }

  private draw(): void {
    this.options.write(`\r\x1b[2K${PROMPT}${this.typed}`);
  }
}

/**
 * Answers line by line: a letter of a command, else a ranking; `12: 2>1` is an answer to prompt 12 and to no other. A line
 * that cannot be taken ends the command.
 */
export class LineAnswers implements Answers {
  private readonly reader: Interface;
  private readonly lines: AsyncIterator<string>;
  private read = 0;

  constructor(input: InputStream) {
    this.reader = createInterface({ input, crlfDelay: Infinity });
    this.lines = this.reader[Symbol.asyncIterator]();
  }

  async next(): Promise<Answer | undefined> {
    const line = await this.lines.next();
    if (line.done === true) return undefined;
    this.read++;
    const [, prompt, rest = ''] = /^\s*(?:(\d+):)?(.*)$/.exec(line.value) ?? [];
    const text = rest.trim();
    const answer: Answer = COMMANDS[text.toLowerCase()] ?? { kind: 'ranking', text };
    return prompt === undefined ? answer : { ...answer, prompt: Number(prompt) };
  }

  refuse(reason: string): void {
    throw new DataError(`standard input:${this.read}: ${reason}`, {
      hint: 'Everything before this line is saved; --resume goes on with other answers from here.',
    });
  }

  close(): void {
    this.reader.close();
  }
}
