/** Learns byte-pair merges from word counts. Knows numbers only: words are lists of symbol ids. */

/** A word of the training text: its symbols, which merges shorten, and how often it occurs. */
interface Word {
  symbols: number[];
  readonly count: number;
}

/** A pair of neighbouring symbols waiting to be merged. */
interface Candidate {
  readonly left: number;
  readonly right: number;
  readonly count: number;
}

/** One learned merge: two symbols become a new one. */
export interface Merge {
  readonly left: number;
  readonly right: number;
  readonly symbol: number;
}

/** What to learn from and when to stop. */
export interface LearnMergesInputs {
  /** Symbols of each distinct word and its number of occurrences. */
  readonly words: readonly { readonly symbols: readonly number[]; readonly count: number }[];
  /** Id that the first merge gets; later ones count up. */
  readonly firstSymbol: number;
  /** Most merges to learn. */
  readonly maxMerges: number;
  /** Pairs seen less often are not merged. */
  readonly minCount: number;
}

/** More frequent first; of equally frequent pairs the one with smaller ids, so that the result is one and the same. */
function comesBefore(a: Candidate, b: Candidate): boolean {
  if (a.count !== b.count) return a.count > b.count;
  return a.left !== b.left ? a.left < b.left : a.right < b.right;
}

/** Binary heap whose top is the candidate that comes before all others. */
class CandidateHeap {
  private readonly items: Candidate[] = [];

  push(candidate: Candidate): void {
    const { items } = this;
    let at = items.push(candidate) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = items[parent];
      if (above === undefined || !comesBefore(candidate, above)) break;
      items[at] = above;
      at = parent;
    }
    items[at] = candidate;
  }

  pop(): Candidate | undefined {
    const { items } = this;
    const top = items[0];
    const last = items.pop();
    if (top === undefined || last === undefined || items.length === 0) return top;
    let at = 0;
    for (;;) {
      const left = items[2 * at + 1];
      const right = items[2 * at + 2];
      const useRight = left !== undefined && right !== undefined && comesBefore(right, left);
      const child = useRight ? right : left;
      if (child === undefined || !comesBefore(child, last)) break;
      items[at] = child;
      at = 2 * at + (useRight ? 2 : 1);
    }
    items[at] = last;
    return top;
  }
}

/** Pair counts, and the words in which each pair may occur. */
class PairIndex {
  private readonly counts = new Map<number, number>();
  private readonly occurrences = new Map<number, Set<number>>();

  // Symbol ids stay far below 2^26, so that both fit into one exact number.
  private static key(left: number, right: number): number {
    return left * 2 ** 26 + right;
  }

  count(left: number, right: number): number {
    return this.counts.get(PairIndex.key(left, right)) ?? 0;
  }

  add(left: number, right: number, change: number, word: number): void {
    const key = PairIndex.key(left, right);
    this.counts.set(key, (this.counts.get(key) ?? 0) + change);
    if (change < 0) return;
    const words = this.occurrences.get(key);
    if (words === undefined) this.occurrences.set(key, new Set([word]));
    else words.add(word);
  }

  takeWords(left: number, right: number): readonly number[] {
    const key = PairIndex.key(left, right);
    const words = this.occurrences.get(key) ?? [];
    this.occurrences.delete(key);
    this.counts.delete(key);
    return [...words];
  }
}

/**
 * Learns merges greedily: again and again the most frequent pair of neighbouring symbols becomes one symbol.
 *
 * Source: Sennrich et al. 2016, arXiv:1508.07909, Algorithm 1; ties as in the `tokenizers` library (smaller ids first).
 */
export function learnMerges(inputs: LearnMergesInputs): Merge[] {
  const words: Word[] = inputs.words.map(({ symbols, count }) => ({
    symbols: [...symbols],
    count,
  }));
  const index = new PairIndex();
  const heap = new CandidateHeap();
  const merges: Merge[] = [];

  const enqueue = (pairs: ReadonlyMap<string, readonly [number, number]>): void => {
    for (const [left, right] of pairs.values()) {
      heap.push({ left, right, count: index.count(left, right) });
    }
  };

  const initial = new Map<string, readonly [number, number]>();
  words.forEach(({ symbols, count }, word) => {
    for (let i = 0; i + 1 < symbols.length; i++) {
      const pair = [symbols[i] ?? 0, symbols[i + 1] ?? 0] as const;
      index.add(...pair, count, word);
      initial.set(pair.join(), pair);
    }
  });
  enqueue(initial);

  while (merges.length < inputs.maxMerges) {
    const best = heap.pop();
    if (best === undefined) break;
    const { left, right } = best;
    const count = index.count(left, right);
    if (count !== best.count) {
      // Earlier merges used up some occurrences: back into the queue with the count it has now.
      if (count > 0) heap.push({ left, right, count });
      continue;
    }
    if (count < inputs.minCount) break;
    const symbol = inputs.firstSymbol + merges.length;
    merges.push({ left, right, symbol });
    const made = new Map<string, readonly [number, number]>();
    for (const word of index.takeWords(left, right)) {
      const entry = words[word];
      if (entry === undefined) continue;
      mergeInWord(entry, { left, right, symbol }, (a, b, sign) => {
        index.add(a, b, sign * entry.count, word);
        if (sign > 0) made.set(`${a},${b}`, [a, b]);
      });
    }
    enqueue(made);
  }
  return merges;
}

/** Replaces each occurrence of the pair, left to right, and reports which neighbours vanished (−1) and appeared (+1). */
function mergeInWord(
  word: Word,
  merge: Merge,
  report: (left: number, right: number, sign: 1 | -1) => void,
): void {
  const { symbols } = word;
  const merged: number[] = [];
  for (let i = 0; i < symbols.length; i++) {
    const current = symbols[i] ?? 0;
    if (current !== merge.left || symbols[i + 1] !== merge.right) {
      merged.push(current);
      continue;
    }
    const before = merged.at(-1);
    const after = symbols[i + 2];
    if (before !== undefined) {
      report(before, merge.left, -1);
      report(before, merge.symbol, 1);
    }
    if (after !== undefined) {
      report(merge.right, after, -1);
      report(merge.symbol, after, 1);
    }
    merged.push(merge.symbol);
    i++;
  }
  word.symbols = merged;
}
