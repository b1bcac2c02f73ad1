/** Unigram: of all ways to cut a word into tokens, the one whose scores add up to the most. */
import { CheckpointError, DataError } from '../errors/index.js';
import { byteIds } from './bpe.js';
import { isCount, written, type Component } from './component.js';
import type { WordModel } from './models.js';
import { Trie } from './trie.js';

/** How much worse than the worst token a character without one is. Source: SentencePiece, unigram_model.cc, kUnkPenalty. */
const UNKNOWN_PENALTY = 10;

/**
 * A Unigram model.
 *
 *     best(end) = max over tokens t = word[start, end) of best(start) + score(t)
 *
 * A character that no token of its length matches counts as an unknown token with the least score − 10; neighbouring
 * unknown ones become one. Of equal scores the longer last token stays. Linear in the length of the word.
 *
 * Source: Kudo 2018, arXiv:1804.10959, equation 3, by the Viterbi pass of tokenizers 0.23 (`encode_optimized`).
 */
export class UnigramModel implements WordModel {
  readonly vocabulary = new Map<string, number>();
  readonly tokens: string[] = [];

  private readonly scores: Float64Array;
  private readonly trie = new Trie();
  private readonly unknown: number | undefined;
  private readonly unknownScore: number;
  private readonly fallsBackToBytes: boolean;

  /** @throws CheckpointError if a field is wrong */
  constructor(component: Component) {
    const pairs = component.list('vocab');
    this.scores = new Float64Array(pairs.length);
    for (const [id, pair] of pairs.entries()) {
      const [token, score] = Array.isArray(pair) ? (pair as readonly unknown[]) : [];
      if (typeof token !== 'string' || typeof score !== 'number') {
        throw new CheckpointError(
          `entry ${id} of the vocabulary of its model Unigram is ${written(pair)} instead of a token and its score`,
        );
      }
      this.vocabulary.set(token, id);
      this.tokens.push(token);
      this.trie.add(token, id);
      this.scores[id] = score;
    }
    const unknown = component.fields['unk_id'] ?? undefined;
    if (unknown !== undefined && !(isCount(unknown) && unknown < pairs.length)) {
      throw component.wrong('unk_id', 'an id of its vocabulary');
    }
    this.unknown = unknown;
    this.unknownScore = this.scores.reduce((a, b) => Math.min(a, b), Infinity) - UNKNOWN_PENALTY;
    this.fallsBackToBytes = component.boolean('byte_fallback', false);
  }

  tokenize(word: string, ids: number[]): undefined {
    const length = word.length;
    const best = new Float64Array(length + 1);
    const from = new Int32Array(length + 1).fill(-1);
    const tokens = new Int32Array(length + 1);
    const offer = (start: number, end: number, score: number, token: number): void => {
      const candidate = score + (best[start] ?? 0);
      if (from[end] !== -1 && candidate <= (best[end] ?? 0)) return;
      best[end] = candidate;
      from[end] = start;
      tokens[end] = token;
    };
    for (let start = 0; start < length;) {
      const here = start;
      const next = here + ((word.codePointAt(here) ?? 0) > 0xffff ? 2 : 1);
      let hasOwnToken = false;
      this.trie.match(word, here, (token, end) => {
        offer(here, end, this.scores[token] ?? 0, token);
        hasOwnToken ||= end === next;
      });
      if (!hasOwnToken) offer(here, next, this.unknownScore, this.unknown ?? NONE);
      start = next;
    }
    const spans: number[] = [];
    for (let end = length; end > 0; end = from[end] ?? 0) spans.push(end);
    for (let index = spans.length - 1; index >= 0; index--) {
      let end = spans[index] ?? 0;
      const token = tokens[end] ?? 0;
      if (token !== NONE && token !== this.unknown) {
        ids.push(token);
        continue;
      }
      const start = from[end] ?? 0;
      while (index > 0 && tokens[spans[index - 1] ?? 0] === token) end = spans[--index] ?? 0;
      this.pushUnknown(word.slice(start, end), ids);
    }
    return undefined;
  }

  private pushUnknown(text: string, ids: number[]): void {
    const known = this.vocabulary.get(text);
    const bytes =
      known === undefined && this.fallsBackToBytes ? byteIds(text, this.vocabulary) : undefined;
    if (known !== undefined) ids.push(known);
    else if (bytes !== undefined) for (const id of bytes) ids.push(id);
    else if (this.unknown !== undefined) ids.push(this.unknown);
    else {
      throw new DataError(
        `Tokenizer.encode: expected text that the vocabulary can express, but it has neither ${JSON.stringify(text)} nor an unknown token.`,
        { hint: 'Change the text, or use a tokenizer that knows it.' },
      );
    }
  }
}
const NONE = -1;
