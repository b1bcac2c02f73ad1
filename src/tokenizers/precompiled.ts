/** SentencePiece's compiled table of replacements (`Precompiled` in tokenizer.json), as T5 and XLM-R have it. */
import type { Component } from './component.js';

/** Longer clusters are looked up character by character. */
const LONGEST_CLUSTER_BYTES = 5;

const encoder = new TextEncoder();

/**
 * Replaces each character, or cluster of combining ones, by what the table has for it.
 *
 * The table is a double-array trie (Darts-clone) over UTF-8, then the replacements, each ended by a zero byte.
 *
 * Source: Kudo and Richardson 2018, SentencePiece, `normalizer.cc`, as the Rust crate `spm_precompiled` applies it.
 */
export function precompiledNormalizer(component: Component): (text: string) => string {
  const table = Buffer.from(component.string('precompiled_charsmap'), 'base64');
  const trieBytes = table.length < 4 ? NaN : table.readUInt32LE(0);
  if (!(trieBytes > 0 && trieBytes % 4 === 0 && 4 + trieBytes <= table.length)) {
    throw component.wrong('precompiled_charsmap', 'a table of SentencePiece in base64');
  }
  const units = Uint32Array.from({ length: trieBytes / 4 }, (_, index) =>
    table.readUInt32LE(4 + 4 * index),
  );
  const replacements = table.subarray(4 + trieBytes);
  const clusters = new Intl.Segmenter('und', { granularity: 'grapheme' });

  const replacementOf = (cluster: string): string | undefined => {
    const start = firstValue(units, encoder.encode(cluster));
    if (start === undefined) return undefined;
    const end = replacements.indexOf(0, start);
    return replacements.toString('utf8', start, end === -1 ? replacements.length : end);
  };
  const known = new Map<string, string>();
  const replaced = (cluster: string): string => {
    const whole =
      Buffer.byteLength(cluster) <= LONGEST_CLUSTER_BYTES ? replacementOf(cluster) : undefined;
    return (
      whole ?? Array.from(cluster, (character) => replacementOf(character) ?? character).join('')
    );
  };
  return (text) => {
    let result = '';
    for (const { segment } of clusters.segment(text)) {
      let replacement = known.get(segment);
      if (replacement === undefined) {
        replacement = replaced(segment);
        if (known.size < 10_000) known.set(segment, replacement);
      }
      result += replacement;
    }
    return result;
  };
}

/** The value of the shortest key that the bytes start with. The layout of a unit is Darts-clone's. */
function firstValue(units: Uint32Array, bytes: Uint8Array): number | undefined {
  const offsetOf = (unit: number): number => (unit >>> 10) << ((unit & (1 << 9)) >>> 6);
  let position = offsetOf(units[0] ?? 0);
  for (const byte of bytes) {
    if (byte === 0) return undefined;
    position ^= byte;
    const unit = units[position];
    if (unit === undefined || (unit & 0x8000_00ff) >>> 0 !== byte) return undefined;
    position ^= offsetOf(unit);
    if (((unit >>> 8) & 1) === 1) return (units[position] ?? 0) & 0x7fff_ffff;
  }
  return undefined;
}
