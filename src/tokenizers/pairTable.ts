/** A hash table from pairs of whole numbers to whole numbers: merges of a BPE model, edges of a trie. */

/** 2^32 over the golden ratio, and another odd number: spread neighbouring pairs over the table. */
const MIX_FIRST = 0x9e3779b1;
const MIX_SECOND = 0x85ebca6b;

/** Pairs of non-negative 31-bit numbers. Three words an entry, where a Map of strings takes a hundred bytes. */
export class PairTable {
  /** first, second, value; first is −1 where the slot is free. */
  private slots: Int32Array;
  private mask: number;
  private size = 0;

  constructor(expected = 16) {
    let capacity = 32;
    while (capacity < 2 * expected) capacity *= 2;
    this.slots = new Int32Array(3 * capacity).fill(-1);
    this.mask = capacity - 1;
  }

  /** −1 where the pair is not in the table. */
  get(first: number, second: number): number {
    return this.slots[this.slotOf(first, second) + 2] ?? -1;
  }

  set(first: number, second: number, value: number): void {
    if (4 * this.size > 3 * this.mask) this.grow();
    const slot = this.slotOf(first, second);
    if (this.slots[slot] === -1) this.size += 1;
    this.slots[slot] = first;
    this.slots[slot + 1] = second;
    this.slots[slot + 2] = value;
  }

  /** Where the pair is, or the free slot where it would go. */
  private slotOf(first: number, second: number): number {
    const { slots, mask } = this;
    let hash = Math.imul(first, MIX_FIRST) ^ Math.imul(second, MIX_SECOND);
    hash ^= hash >>> 15;
    for (let index = hash & mask; ; index = (index + 1) & mask) {
      const slot = 3 * index;
      if (slots[slot] === -1) return slot;
      if (slots[slot] === first && slots[slot + 1] === second) return slot;
    }
  }

  private grow(): void {
    const old = this.slots;
    this.slots = new Int32Array(2 * old.length).fill(-1);
    this.mask = 2 * this.mask + 1;
    this.size = 0;
    for (let slot = 0; slot < old.length; slot += 3) {
      const first = old[slot] ?? -1;
      if (first !== -1) this.set(first, old[slot + 1] ?? 0, old[slot + 2] ?? 0);
    }
  }
}
