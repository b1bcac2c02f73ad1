/** Finds places in JSON text: where it breaks the grammar, and where the elements of a list begin. */

/** What a scan found wrong, at an offset of the text. */
export interface JsonFault {
  /** Index in UTF-16 units of the first character that does not fit. */
  readonly offset: number;
  readonly expected: string;
  readonly received: string;
  readonly hint?: string;
}

/** Leaves the recursion; never leaves this file. */
class FaultFound extends Error {
  readonly fault: JsonFault;
  constructor(fault: JsonFault) {
    super(fault.expected);
    this.fault = fault;
  }
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const STRING_RUN = /[^"\\\u0000-\u001f]*/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const BLANK = /[ \t\n\r]*/y;
const LITERALS = ['true', 'false', 'null'] as const;
/** Deeper text is refused rather than allowed to exhaust the stack. */
const MAX_DEPTH = 500;

/** A pair of halves of a character, or half a character alone, or another escape. */
const HALVES =
  /\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|[^])/g;

/** Walks over JSON text (RFC 8259) without building values. */
class Scanner {
  private readonly text: string;
  private offset = 0;

  constructor(text: string) {
    this.text = text;
  }

  /** Where the text breaks the grammar, if it does. */
  static fault(scan: () => void): JsonFault | undefined {
    try {
      scan();
      return undefined;
    } catch (error) {
      if (error instanceof FaultFound) return error.fault;
      throw error;
    }
  }

  document(): void {
    this.value(0);
    this.blank();
    if (this.offset < this.text.length) this.fail('the end of the text');
  }

  /** Offsets at which the elements of a top-level list begin. */
  elements(): number[] {
    const offsets: number[] = [];
    this.blank();
    this.require('[', 'a list, starting with "["');
    this.blank();
    if (this.take(']')) return offsets;
    do {
      this.blank();
      offsets.push(this.offset);
      this.value(1);
      this.blank();
    } while (this.take(','));
    this.require(']', '"," or "]"');
    return offsets;
  }

  private value(depth: number): void {
    this.blank();
    if (depth > MAX_DEPTH) this.fail(`at most ${MAX_DEPTH} nested lists and objects`);
    const start = this.text[this.offset];
    if (start === '{') this.object(depth);
    else if (start === '[') this.list(depth);
    else if (start === '"') this.string();
    else if (start !== undefined && /[-\d]/.test(start)) this.number();
    else {
      const literal = LITERALS.find((word) => this.text.startsWith(word, this.offset));
      if (literal === undefined) this.fail('a value');
      this.offset += literal.length;
    }
  }

  private object(depth: number): void {
    this.offset++;
    this.blank();
    if (this.take('}')) return;
    do {
      this.blank();
      if (this.text[this.offset] !== '"') this.fail('a name in double quotes');
      this.string();
      this.blank();
      this.require(':', '":"');
      this.value(depth + 1);
      this.blank();
    } while (this.take(','));
    this.require('}', '"," or "}"');
  }

  private list(depth: number): void {
    this.offset++;
    this.blank();
    if (this.take(']')) return;
    do {
      this.value(depth + 1);
      this.blank();
    } while (this.take(','));
    this.require(']', '"," or "]"');
  }

  private string(): void {
    this.offset++;
    for (;;) {
      this.match(STRING_RUN);
      if (this.take('"')) return;
      if (this.text[this.offset] !== '\\') {
        this.fail(
          this.offset < this.text.length
            ? 'an escape such as \\n instead of a control character'
            : 'a closing double quote',
        );
      }
      if (!this.match(ESCAPE))
        this.fail('one of the escapes \\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX');
    }
  }

  private number(): void {
    if (!this.match(NUMBER)) this.fail('a number');
    if (/[\d.eE+]/.test(this.text[this.offset] ?? '')) this.fail('a number without leading zeros');
  }

  private blank(): void {
    this.match(BLANK);
  }

  private match(pattern: RegExp): boolean {
    pattern.lastIndex = this.offset;
    const length = pattern.exec(this.text)?.[0].length;
    if (length === undefined) return false;
    this.offset += length;
    return true;
  }

  private take(character: string): boolean {
    if (this.text[this.offset] !== character) return false;
    this.offset++;
    return true;
  }

  private require(character: string, expected: string): void {
    if (!this.take(character)) this.fail(expected);
  }

  private fail(expected: string): never {
    const code = this.text.codePointAt(this.offset);
    const received =
      code === undefined ? 'the end of the text' : JSON.stringify(String.fromCodePoint(code));
    throw new FaultFound({ offset: this.offset, expected, received });
  }
}

/** Where a text breaks the JSON grammar, or undefined if it does not. */
export function findJsonFault(text: string): JsonFault | undefined {
  return Scanner.fault(() => new Scanner(text).document());
}

/** Offsets at which the elements of a JSON list begin, or what keeps the text from being a list. */
export function findElementOffsets(text: string): readonly number[] | JsonFault {
  let offsets: number[] = [];
  const fault = Scanner.fault(() => {
    offsets = new Scanner(text).elements();
  });
  return fault ?? offsets;
}

/** What JSON allows and a row cannot hold: lists within lists without end, and half of a character. */
export function findUnusable(text: string): JsonFault | undefined {
  const fault = opensOften(text) ? findJsonFault(text) : undefined;
  if (fault !== undefined || !/\\u[dD][89a-fA-F]/.test(text)) return fault;
  for (const { index, 1: half } of text.matchAll(HALVES))
    if (half !== undefined)
      return {
        offset: index,
        expected: 'both halves of a character',
        received: `one, \\${half}`,
        hint: 'The text was cut within an emoji or another such character: write the row again.',
      };
  return undefined;
}

/** Whether a text may be nested too deeply; cheap where it is not. */
function opensOften(text: string): boolean {
  let count = 0;
  for (const sign of ['[', '{'])
    for (let at = text.indexOf(sign); at !== -1; at = text.indexOf(sign, at + 1))
      if (++count > MAX_DEPTH) return true;
  return false;
}
