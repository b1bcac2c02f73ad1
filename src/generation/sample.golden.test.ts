import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { loadModel } from '../models/index.js';
import { sample } from './sample.js';

const GOLDEN = join(ROOT, 'test/golden/models');

interface Expected {
  readonly prompts: readonly (readonly number[])[];
  /** model.generate(do_sample=False, max_new_tokens=…) of transformers, without a stop. */
  readonly greedy: readonly (readonly number[])[];
}

describe('sample at temperature 0 continues as transformers does', () => {
  for (const name of readdirSync(GOLDEN)) {
    const folder = join(GOLDEN, name);
    const { prompts, greedy } = JSON.parse(
      readFileSync(join(folder, 'expected.json'), 'utf8'),
    ) as Expected;
    const maxNewTokens = Math.max(...greedy.map((ids) => ids.length));

    for (const packing of [true, false]) {
      test(`${name}, ${packing ? 'packed' : 'plain'} weights, prompts of different length together`, async () => {
        const model = await loadModel(folder);
        const rows = await sample({
          model,
          promptIds: prompts,
          maxNewTokens,
          temperature: 0,
          eosTokenIds: [],
          packing,
        });
        assert.deepEqual(
          rows.map(({ tokenIds }) => tokenIds),
          greedy,
        );
        model.dispose();
      });
    }
  }
});
