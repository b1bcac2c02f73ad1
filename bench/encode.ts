/** Our side of `tokenize`: token ids per second of the engine that `Tokenizer.encode` calls. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { TokenizerEngine } from '../src/tokenizers/engine.js';
import type { EncodeJob } from './jobs.js';
import { ROOT } from './machine.js';

function read<Value>(path: string): Value {
  return JSON.parse(gunzipSync(readFileSync(join(ROOT, path))).toString()) as Value;
}

/** The Python side makes the same rows. */
function rowsOf({ texts, characters, rowCharacters }: EncodeJob): string[] {
  const isOneRow = characters === rowCharacters;
  const source = Array.from(read<string[]>(texts).join(isOneRow ? '' : '\n'));
  const kept = isOneRow ? source.filter((character) => !/\s/u.test(character)) : source;
  return Array.from({ length: characters / rowCharacters }, (_, row) =>
    Array.from(
      { length: rowCharacters },
      (__, index) => kept[(row * rowCharacters + index) % kept.length] ?? '',
    ).join(''),
  );
}

/** Ids over wall time. One pass that is not counted fills the memory of words, which training would have filled too. */
export function measureEncode(job: EncodeJob): Record<string, number[]> {
  const engine = new TokenizerEngine(read(job.tokenizer));
  const rows = rowsOf(job);
  const encodeAll = () =>
    rows.reduce((sum, row) => sum + engine.encode(row, { addSpecialTokens: true }).ids.length, 0);
  encodeAll();
  const speeds: number[] = [];
  const end = performance.now() + 1000 * job.seconds;
  while (speeds.length < job.rounds || performance.now() < end) {
    const start = performance.now();
    const ids = encodeAll();
    speeds.push(ids / ((performance.now() - start) / 1000));
  }
  return { 'tokens/s': speeds };
}
