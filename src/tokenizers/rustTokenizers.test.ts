/** Every kind of tokenizer against the Rust library, on 10,000 strings each. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { TokenizerEngine } from './engine.js';
import type { JsonObject } from './files.js';

interface Expected {
  libraries: { tokenizers: string };
  cases: Record<
    string,
    {
      /** Three bytes per string, of the ids with and without special tokens. */
      ids: string;
      /** Three bytes per string, of three decoded texts. */
      decoded: string;
      /** The first strings in full. */
      written: { ids: number[]; decoded: string[] }[];
    }
  >;
}

function readGolden(name: string): unknown {
  const path = join('test/golden/tokenizers/rust', `${name}.json.gz`);
  return JSON.parse(gunzipSync(readFileSync(path)).toString());
}
const strings = readGolden('strings') as string[];
const expected = readGolden('expected') as Expected;

/** The ids of a string, and what they decode to: as they are, without special tokens, and backwards. */
function results(engine: TokenizerEngine, text: string) {
  const { ids } = engine.encode(text, { addSpecialTokens: true });
  const bare = engine.encode(text, { addSpecialTokens: false }).ids;
  const decoded = [
    engine.decode(ids, { skipSpecialTokens: false }),
    engine.decode(ids, { skipSpecialTokens: true }),
    engine.decode(bare.toReversed(), { skipSpecialTokens: false }),
  ];
  return { ids, bare, decoded };
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 6);
}

/** The hashes of a case, one of six hexadecimal digits per string. */
function hashes(base64: string): string[] {
  return Buffer.from(base64, 'base64').toString('hex').match(/.{6}/g) ?? [];
}

describe(`matches tokenizers ${expected.libraries.tokenizers} (Rust)`, () => {
  for (const [name, golden] of Object.entries(expected.cases)) {
    const engine = new TokenizerEngine(readGolden(name) as JsonObject);

    test(`${name}: ids and texts of the first strings`, () => {
      for (const [index, { ids, decoded }] of golden.written.entries()) {
        const text = strings[index] ?? '';
        const ours = results(engine, text);
        assert.deepEqual({ text, ids: ours.ids, decoded: ours.decoded }, { text, ids, decoded });
      }
    });

    test(`${name}: ${strings.length} strings`, () => {
      const [ids, decoded] = [hashes(golden.ids), hashes(golden.decoded)];
      assert.equal(strings.length, 10_000);
      assert.deepEqual([ids.length, decoded.length], [strings.length, strings.length]);
      const failed = strings.flatMap((text, index) => {
        const ours = results(engine, text);
        const wrong = [
          ...(hash(`${ours.ids.join(',')};${ours.bare.join(',')}`) === ids[index]
            ? []
            : [{ index, text, ids: ours.ids }]),
          ...(hash(ours.decoded.join('\u001F')) === decoded[index]
            ? []
            : [{ index, text, decoded: ours.decoded }]),
        ];
        return wrong;
      });
      assert.equal(
        failed.length,
        0,
        `${failed.length} differ, the first: ${JSON.stringify(failed.slice(0, 5), null, 1)}`,
      );
    });
  }
});
