/** Tokens that are found in the text itself, before it is cut into words: `<|im_end|>`. */
import { CheckpointError } from '../errors/index.js';
import { isCount, written } from './component.js';
import { isJsonObject } from './files.js';
import type { Normalizer } from './normalizers.js';
import type { Piece } from './preTokenizers.js';
import { Trie } from './trie.js';

/** An entry of `added_tokens`. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Left out of the text when special tokens are skipped. */
  readonly special: boolean;
  /** Only where no letter, digit, mark or underscore touches it. */
  readonly singleWord: boolean;
  /** Takes the white space before it, or after it, along. */
  readonly stripLeft: boolean;
  readonly stripRight: boolean;
  /** Looked for in the normalized text, in its own normalized form. */
  readonly normalized: boolean;
}

/**
 * The `added_tokens` of a tokenizer.json. A token that the model's vocabulary has keeps the id that it has there.
 *
 * @throws CheckpointError if the list or an entry has the wrong form
 */
export function readAddedTokens(
  value: unknown,
  vocabulary: ReadonlyMap<string, number>,
): AddedToken[] {
  if (value === null || value === undefined) return [];
  if (!Array.isArray(value)) {
    throw new CheckpointError(`its "added_tokens" are ${written(value)} instead of a list`);
  }
  return value.map((entry: unknown) => {
    const fields = isJsonObject(entry) ? entry : {};
    const { content, id } = fields;
    if (typeof content !== 'string' || !isCount(id)) {
      throw new CheckpointError(
        `an entry of its "added_tokens" is ${written(entry)} instead of an object with "content" and "id"`,
      );
    }
    const special = fields['special'] === true;
    return {
      id: vocabulary.get(content) ?? id,
      content,
      special,
      singleWord: fields['single_word'] === true,
      stripLeft: fields['lstrip'] === true,
      stripRight: fields['rstrip'] === true,
      normalized: typeof fields['normalized'] === 'boolean' ? fields['normalized'] : !special,
    };
  });
}

/** What a text consists of: ids of added tokens, and what lies between them. */
export type Section = number | Piece;

/** Finds added tokens in texts: first those that are written as they are, then those in the normalized rest. */
export class AddedTokenFinder {
  private readonly normalize: Normalizer;
  private readonly plain: TokenSet;
  private readonly normalized: TokenSet;

  constructor(added: readonly AddedToken[], normalize: Normalizer) {
    this.normalize = normalize;
    // Of two entries with one content or one normalized form, the first one is found, and special ones come first.
    const tokens = [
      ...added.filter((token) => token.special),
      ...added.filter((token) => !token.special),
    ];
    this.plain = new TokenSet(
      tokens.filter((token) => !token.normalized).map((token) => [token.content, token]),
    );
    this.normalized = new TokenSet(
      tokens.filter((token) => token.normalized).map((token) => [normalize(token.content), token]),
    );
  }

  /** The sections of a text, normalized. None is empty. */
  sections(text: string): Section[] {
    const sections: Section[] = [];
    for (const outer of this.plain.split({ text, first: true })) {
      if (typeof outer === 'number') sections.push(outer);
      else {
        const piece = { text: this.normalize(outer.text), first: outer.first };
        for (const inner of this.normalized.split(piece)) sections.push(inner);
      }
    }
    return sections;
  }
}

const SPACE = /^\p{White_Space}$/u;
/** `\w` of Rust's regex crate, for use between brackets. */
export const WORD_CHARACTERS = String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}`;
const WORD = new RegExp(`^[${WORD_CHARACTERS}]$`, 'u');

class TokenSet {
  private readonly tokens: readonly AddedToken[];
  private readonly trie = new Trie();

  constructor(entries: readonly (readonly [string, AddedToken])[]) {
    const first = new Map(entries.toReversed());
    this.tokens = [...first.values()];
    [...first.keys()].forEach((spelling, index) => {
      if (spelling !== '') this.trie.add(spelling, index);
    });
  }

  /** Source: tokenizers 0.23, `AddedVocabulary::find_matches`: the leftmost, and of those the longest. */
  split({ text, first }: Piece): Section[] {
    if (text === '') return [];
    if (this.tokens.length === 0) return [{ text, first }];
    const sections: Section[] = [];
    let done = 0;
    const pushText = (end: number): void => {
      if (done < end) sections.push({ text: text.slice(done, end), first: first && done === 0 });
    };
    for (let at = 0; at < text.length;) {
      let found = -1;
      let end = at;
      this.trie.match(text, at, (index, stop) => {
        found = index;
        end = stop;
      });
      const token = this.tokens[found];
      if (token === undefined) {
        at += 1;
        continue;
      }
      const start = at;
      at = end;
      if (token.singleWord && (endsWithWord(text, start) || startsWithWord(text, end))) continue;
      let [left, right] = [start, end];
      if (token.stripLeft) while (left > done && SPACE.test(text.charAt(left - 1))) left -= 1;
      if (token.stripRight) while (SPACE.test(text.charAt(right))) right += 1;
      pushText(left);
      sections.push(token.id);
      done = right;
    }
    pushText(text.length);
    return sections;
  }
}

function startsWithWord(text: string, at: number): boolean {
  const code = text.codePointAt(at);
  return code !== undefined && WORD.test(String.fromCodePoint(code));
}

function endsWithWord(text: string, at: number): boolean {
  const unit = text.charCodeAt(at - 1);
  const isLowSurrogate = unit >= 0xdc00 && unit <= 0xdfff;
  return at > 0 && startsWithWord(text, isLowSurrogate ? at - 2 : at - 1);
}
