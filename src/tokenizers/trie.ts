/** Finds which of many texts stand at a place of a text. */
import { PairTable } from './pairTable.js';

/** A trie over UTF-16 units. */
export class Trie {
  private readonly edges = new PairTable();
  private readonly values: number[] = [-1];

  /** @param value not negative; replaces the one that the text had */
  add(text: string, value: number): void {
    let node = 0;
    for (let index = 0; index < text.length; index++) {
      const unit = text.charCodeAt(index);
      let next = this.edges.get(node, unit);
      if (next === -1) {
        next = this.values.push(-1) - 1;
        this.edges.set(node, unit, next);
      }
      node = next;
    }
    this.values[node] = value;
  }

  /** Calls `found` with the value and the end of each text that starts at `start`, the shortest first. */
  match(text: string, start: number, found: (value: number, end: number) => void): void {
    let node = 0;
    for (let index = start; index < text.length; index++) {
      node = this.edges.get(node, text.charCodeAt(index));
      if (node === -1) return;
      const value = this.values[node] ?? -1;
      if (value !== -1) found(value, index + 1);
    }
  }
}
