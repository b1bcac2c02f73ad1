/** Byte-pair encoding: the pairs of a word are joined in the order in which training joined them. */
import { CheckpointError, DataError } from '../errors/index.js';
import { byteToken } from './byteFallback.js';
import { written, type Component } from './component.js';
import type { WordModel } from './models.js';
import { PairTable } from './pairTable.js';

/**
 * A BPE model. A word's characters become tokens; then, again and again, the pair of neighbours whose merge was learned
 * first is joined, the leftmost of equal ones, until no pair has a merge. O(n log n) in the length of the word.
 *
 * Source: Sennrich et al. 2016, arXiv:1508.07909, algorithm 1, as tokenizers 0.23 applies it.
 */
export class BpeModel implements WordModel {
  readonly vocabulary: Map<string, number>;

  /** Two ids → index of the merge. */
  private readonly merges: PairTable;
  /** Index of the merge → id of the joined token. */
  private readonly joined: Int32Array;
  private readonly prefix: string;
  private readonly suffix: string;
  private readonly unknownToken: string | undefined;
  private readonly fuseUnknown: boolean;
  private readonly fallsBackToBytes: boolean;
  private readonly ignoreMerges: boolean;

  /** @throws CheckpointError if a field is wrong or a merge has a token that the vocabulary lacks */
  constructor(component: Component) {
    this.vocabulary = component.vocabulary('vocab');
    this.prefix = component.optionalString('continuing_subword_prefix') ?? '';
    this.suffix = component.optionalString('end_of_word_suffix') ?? '';
    this.unknownToken = component.optionalString('unk_token');
    this.fuseUnknown = component.boolean('fuse_unk', false);
    this.fallsBackToBytes = component.boolean('byte_fallback', false);
    this.ignoreMerges = component.boolean('ignore_merges', false);
    const merges = component.list('merges');
    this.merges = new PairTable(merges.length);
    this.joined = new Int32Array(merges.length);
    for (const [index, merge] of merges.entries()) {
      const [left, right] = pairOf(merge);
      const joined = this.mergeId(left + right.slice(this.prefix.length), merge);
      this.merges.set(this.mergeId(left, merge), this.mergeId(right, merge), index);
      this.joined[index] = joined;
    }
  }

  tokenize(word: string, ids: number[]): string | undefined {
    const whole = this.ignoreMerges ? this.vocabulary.get(word) : undefined;
    if (whole !== undefined) {
      ids.push(whole);
      return undefined;
    }
    const symbols: number[] = [];
    const dropped = this.spell(word, symbols);
    if (symbols.length < 2) ids.push(...symbols);
    else mergeAll(symbols, this.merges, this.joined, ids);
    return dropped;
  }

  /** Tokens of the single characters. Returns the first character that got none. */
  private spell(word: string, symbols: number[]): string | undefined {
    let dropped: string | undefined;
    // Written when the next known token comes, so that neighbours can be fused.
    let unknown: number | undefined;
    let start = 0;
    for (const character of word) {
      const end = start + character.length;
      const token =
        (start === 0 ? '' : this.prefix) + character + (end === word.length ? this.suffix : '');
      start = end;
      const id = this.vocabulary.get(token);
      if (id !== undefined) {
        if (unknown !== undefined) symbols.push(unknown);
        unknown = undefined;
        symbols.push(id);
        continue;
      }
      const bytes = this.fallsBackToBytes ? byteIds(token, this.vocabulary) : undefined;
      if (bytes !== undefined) symbols.push(...bytes);
      else if (this.unknownToken === undefined) dropped ??= character;
      else {
        if (unknown !== undefined && !this.fuseUnknown) symbols.push(unknown);
        unknown = unknownId(this.vocabulary, this.unknownToken, character);
      }
    }
    if (unknown !== undefined) symbols.push(unknown);
    return dropped;
  }

  private mergeId(token: string, merge: unknown): number {
    const id = this.vocabulary.get(token);
    if (id !== undefined) return id;
    throw new CheckpointError(
      `the merge ${written(merge)} of its model BPE has the token ${JSON.stringify(token)}, which the vocabulary lacks`,
    );
  }
}

/** A merge is `["a", "b"]`, or `"a b"` in older files. */
function pairOf(merge: unknown): [string, string] {
  const parts: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
  if (Array.isArray(parts) && parts.length === 2) {
    const [left, right] = parts as readonly unknown[];
    if (typeof left === 'string' && typeof right === 'string') return [left, right];
  }
  throw new CheckpointError(`a merge of its model BPE is ${written(merge)} instead of two tokens`);
}

/** Ids of the tokens `<0x…>` of a text's bytes; undefined if one of them is not in the vocabulary. */
export function byteIds(
  text: string,
  vocabulary: ReadonlyMap<string, number>,
): number[] | undefined {
  const ids: number[] = [];
  for (const byte of Buffer.from(text)) {
    const id = vocabulary.get(byteToken(byte));
    if (id === undefined) return undefined;
    ids.push(id);
  }
  return ids;
}

/** @throws DataError if the vocabulary has no token for what it does not know */
export function unknownId(
  vocabulary: ReadonlyMap<string, number>,
  token: string,
  text: string,
): number {
  const id = vocabulary.get(token);
  if (id !== undefined) return id;
  throw new DataError(
    `Tokenizer.encode: expected text that the vocabulary can express, but it has neither ${JSON.stringify(text)} nor the unknown token ${JSON.stringify(token)}.`,
    { hint: 'Change the text, or use a tokenizer that knows it.' },
  );
}

/**
 * Joins neighbours until no pair has a merge, and appends what is left to `ids`. A heap holds the pairs that had a merge
 * when they were seen; one that is stale by the time it comes up is passed over.
 */
function mergeAll(symbols: number[], merges: PairTable, joined: Int32Array, ids: number[]): void {
  const count = symbols.length;
  const next = Int32Array.from(symbols, (_, index) => (index + 1 < count ? index + 1 : -1));
  const previous = Int32Array.from(symbols, (_, index) => index - 1);
  const heap = new MergeHeap();
  const consider = (left: number, right: number): void => {
    const merge = merges.get(symbols[left] ?? 0, symbols[right] ?? 0);
    if (merge !== -1) heap.push(merge, left);
  };
  for (let index = 0; index + 1 < count; index++) consider(index, index + 1);
  while (heap.pop()) {
    const { merge, position: left } = heap;
    const right = next[left] ?? -1;
    // GONE: joined with what stood before it since.
    if (symbols[left] === GONE || right === -1) continue;
    const now = merges.get(symbols[left] ?? 0, symbols[right] ?? 0);
    if (now === -1 || joined[now] !== joined[merge]) continue;
    symbols[left] = joined[merge] ?? 0;
    symbols[right] = GONE;
    const after = next[right] ?? -1;
    const before = previous[left] ?? -1;
    next[left] = after;
    if (after !== -1) previous[after] = left;
    if (before !== -1) consider(before, left);
    if (after !== -1) consider(left, after);
  }
  for (let index = 0; index !== -1; index = next[index] ?? -1) ids.push(symbols[index] ?? 0);
}
const GONE = -1;

/** Merges by index, then by position: a binary heap without objects. */
class MergeHeap {
  /** Of the entry that `pop` took. */
  merge = 0;
  position = 0;

  /** Two numbers an entry. */
  private readonly entries: number[] = [];

  push(merge: number, position: number): void {
    const { entries } = this;
    let slot = entries.length;
    entries.push(merge, position);
    while (slot > 0) {
      // Entry i stands at 2i, its children at 4i + 2 and 4i + 4.
      const parent = 2 * ((slot - 2) >> 2);
      if (!comesBefore(entries, slot, parent)) break;
      swap(entries, slot, parent);
      slot = parent;
    }
  }

  /** Takes the first entry; false if there is none. */
  pop(): boolean {
    const { entries } = this;
    if (entries.length === 0) return false;
    this.merge = entries[0] ?? 0;
    this.position = entries[1] ?? 0;
    const position = entries.pop() ?? 0;
    const merge = entries.pop() ?? 0;
    if (entries.length === 0) return true;
    entries[0] = merge;
    entries[1] = position;
    for (let slot = 0; ;) {
      const left = 2 * slot + 2;
      const right = left + 2;
      if (left >= entries.length) return true;
      const child = right < entries.length && comesBefore(entries, right, left) ? right : left;
      if (!comesBefore(entries, child, slot)) return true;
      swap(entries, slot, child);
      slot = child;
    }
  }
}

function comesBefore(entries: readonly number[], a: number, b: number): boolean {
  const difference = (entries[a] ?? 0) - (entries[b] ?? 0);
  return difference < 0 || (difference === 0 && (entries[a + 1] ?? 0) < (entries[b + 1] ?? 0));
}

function swap(entries: number[], a: number, b: number): void {
  const [merge, position] = [entries[a] ?? 0, entries[a + 1] ?? 0];
  entries[a] = entries[b] ?? 0;
  entries[a + 1] = entries[b + 1] ?? 0;
  entries[b] = merge;
  entries[b + 1] = position;
}
