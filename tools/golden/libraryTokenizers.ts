/**
 * How many of the golden strings the JavaScript library `@huggingface/tokenizers` reads or writes otherwise than the Rust
 * library: `npx tsx tools/golden/libraryTokenizers.ts`. Ours stands for the Rust library, as
 * src/tokenizers/rustTokenizers.test.ts shows of the same strings. The table is in docs/tokenizers.md.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Tokenizer } from '@huggingface/tokenizers';
import { TokenizerEngine } from '../../src/tokenizers/engine.js';
import type { JsonObject } from '../../src/tokenizers/files.js';

/** The part of the library that is used here: its published types do not resolve under Node's ESM rules. */
interface Library {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(
    ids: readonly number[],
    options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean },
  ): string;
}
const Constructor = Tokenizer as unknown as new (tokenizer: object, config: object) => Library;

const STRINGS = 1500;
const golden = (name: string): unknown => {
  const path = join('test/golden/tokenizers/rust', `${name}.json.gz`);
  return JSON.parse(gunzipSync(readFileSync(path)).toString());
};
// The library refuses to decode an empty list.
const strings = (golden('strings') as string[]).slice(0, STRINGS).filter((text) => text !== '');
const { cases } = golden('expected') as { cases: Record<string, unknown> };

console.log(`${strings.length} strings\n| tokenizer | ids | texts |\n| --- | --: | --: |`);
for (const name of Object.keys(cases)) console.log(`| ${name} | ${compare(name)} |`);

function compare(name: string): string {
  const file = golden(name) as JsonObject;
  // The library insists on these fields, which older files leave out.
  const absent = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  const ours = new TokenizerEngine(file);
  let library: Library;
  try {
    library = new Constructor({ ...absent, added_tokens: [], ...file }, {});
  } catch (error) {
    return `refused: ${error instanceof Error ? error.message : String(error)} | `;
  }
  const same = (theirs: () => unknown, expected: unknown): boolean => {
    try {
      return JSON.stringify(theirs()) === JSON.stringify(expected);
    } catch {
      return false;
    }
  };
  let [ids, texts] = [0, 0];
  for (const text of strings) {
    const whole = ours.encode(text, { addSpecialTokens: true }).ids;
    const bare = ours.encode(text, { addSpecialTokens: false }).ids;
    const encoded = () =>
      [true, false].map((add) => library.encode(text, { add_special_tokens: add }).ids);
    if (!same(encoded, [whole, bare])) ids++;
    const written = [whole, bare.toReversed()].map((of) =>
      ours.decode(of, { skipSpecialTokens: false }),
    );
    const options = { skip_special_tokens: false, clean_up_tokenization_spaces: false };
    const decoded = () => [whole, bare.toReversed()].map((of) => library.decode(of, options));
    if (whole.length > 0 && bare.length > 0 && !same(decoded, written)) texts++;
  }
  return `${ids} | ${texts}`;
}
