import { readFileSync } from 'node:fs';
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import { tensor } from '../torch/index.js';
import { drawTokens } from './drawTokens.js';
import { resolveSampling, type SamplingSettings } from './settings.js';

interface Golden {
  readonly seen: readonly number[];
  readonly rows: Readonly<Record<string, readonly number[]>>;
  readonly cases: readonly {
    readonly row: string;
    readonly settings: SamplingSettings;
    readonly probabilities: readonly number[];
  }[];
}

// Written by tools/golden/sampling.py.
const golden = JSON.parse(readFileSync(join(ROOT, 'test/golden/sampling.json'), 'utf8')) as Golden;

describe('drawTokens draws from the distribution of transformers’ logits processors', () => {
  for (const { row, settings, probabilities } of golden.cases) {
    test(`${row} logits, ${JSON.stringify(settings)}`, () => {
      // One number in the middle of every token's part of the unit interval must draw that token, with its probability.
      // Parts of less than 1e-9 are narrower than the rounding of the sums before them.
      const ids = [...probabilities.keys()].filter((id) => (probabilities[id] ?? 0) > 1e-9);
      const uniforms = ids.map((id) => {
        const before = probabilities.slice(0, id).reduce((sum, value) => sum + value, 0);
        return before + (probabilities[id] ?? 0) / 2;
      });
      const logits = golden.rows[row] ?? [];
      const seen = logits.map((_, id) => (golden.seen.includes(id) ? 1 : 0));
      const drawn = drawTokens(
        tensor(
          ids.map(() => logits),
          { dtype: 'float64' },
        ),
        uniforms,
        resolveSampling(settings),
        {
          seen: tensor(
            ids.map(() => seen),
            { dtype: 'bool' },
          ),
        },
      );
      assert.deepEqual(drawn.ids, ids);
      const expected = ids.map((id) => Math.log(probabilities[id] ?? 0));
      expectClose(drawn.logprobs, expected, { rtol: 1e-9, atol: 1e-9 });
    });
  }
});
