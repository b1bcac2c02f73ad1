import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NumericsError } from '../errors/index.js';
import { tensor, uniformAt } from '../torch/index.js';
import { drawTokens } from './drawTokens.js';
import { resolveSampling, type SamplingSettings } from './settings.js';

const PROBABILITIES = [0.4, 0.3, 0.2, 0.1];
const logits = (rows = [PROBABILITIES]): ReturnType<typeof tensor> =>
  tensor(rows.map((row) => row.map(Math.log)));

/** Probability of each token by the reported log-probabilities, for a sweep of uniform numbers. */
function support(settings: SamplingSettings, row = PROBABILITIES): Map<number, number> {
  const found = new Map<number, number>();
  for (let step = 0; step < 400; step++) {
    const { ids, logprobs } = drawTokens(
      logits([row]),
      [(step + 0.5) / 400],
      resolveSampling(settings),
    );
    found.set(ids[0] ?? -1, Math.exp(logprobs[0] ?? NaN));
  }
  return new Map([...found].sort(([a], [b]) => a - b));
}

function expectSupport(actual: Map<number, number>, expected: Record<number, number>): void {
  assert.deepEqual([...actual.keys()], Object.keys(expected).map(Number));
  for (const [id, probability] of actual)
    assert.ok(Math.abs(probability - (expected[id] ?? NaN)) < 1e-6);
}

describe('drawTokens', () => {
  describe('by hand', () => {
    test('inverts the cumulative distribution: 0.4 | 0.7 | 0.9 | 1', () => {
      const points = [0.001, 0.399, 0.401, 0.699, 0.701, 0.899, 0.901, 0.999];
      const rows = points.map(() => PROBABILITIES);
      const { ids, logprobs } = drawTokens(logits(rows), points, resolveSampling({}));
      assert.deepEqual(ids, [0, 0, 1, 1, 2, 2, 3, 3]);
      ids.forEach((id, row) => {
        assert.ok(Math.abs((logprobs[row] ?? NaN) - Math.log(PROBABILITIES[id] ?? NaN)) < 1e-6);
      });
    });

    test('temperature ½ squares the probabilities: .16, .09, .04, .01 of .30', () => {
      expectSupport(support({ temperature: 0.5 }), {
        0: 0.16 / 0.3,
        1: 0.09 / 0.3,
        2: 0.04 / 0.3,
        3: 0.01 / 0.3,
      });
    });

    test('top-k 2 leaves .4 and .3 of .7', () => {
      expectSupport(support({ topK: 2 }), { 0: 4 / 7, 1: 3 / 7 });
    });

    test('top-p .65: the mass before the second token is .4 < .65, before the third .7', () => {
      expectSupport(support({ topP: 0.65 }), { 0: 4 / 7, 1: 3 / 7 });
    });

    test('top-p below the largest probability leaves the first token', () => {
      expectSupport(support({ topP: 0.1 }), { 0: 1 });
    });

    test('top-p works on what top-k left: .4/.9, .3/.9 reach .7', () => {
      expectSupport(support({ topK: 3, topP: 0.7 }), { 0: 4 / 7, 1: 3 / 7 });
    });

    test('min-p .6 keeps what is at least .6·.4 = .24', () => {
      expectSupport(support({ minP: 0.6 }), { 0: 4 / 7, 1: 3 / 7 });
    });

    test('a repetition penalty of 2 divides positive logits and multiplies negative ones', () => {
      // Logits 2, −1, 0 with tokens 0 and 1 seen become 1, −2, 0.
      const scores = tensor([[2, -1, 0]]);
      const seen = tensor([[1, 1, 0]], { dtype: 'bool' });
      const settings = resolveSampling({ repetitionPenalty: 2, temperature: 0 });
      const { ids, logprobs } = drawTokens(scores, [0.5], settings, { seen });
      assert.deepEqual(ids, [0]);
      const expected = 1 - Math.log(Math.exp(1) + Math.exp(-2) + 1);
      assert.ok(Math.abs((logprobs[0] ?? NaN) - expected) < 1e-6);
    });
  });

  describe('properties', () => {
    test('never draws a token without probability, at the ends of the interval either', () => {
      const row = [0, 0.5, 0, 0.5, 0];
      const ends = [0, 1e-16, 1 - 1e-16, 1, 0.5, 0.25];
      const { ids } = drawTokens(logits(ends.map(() => row)), ends, resolveSampling({}));
      for (const id of ids) assert.ok(id === 1 || id === 3, `drew ${id}`);
    });

    test('a nucleus of thousands of tokens equals that of a full sort', () => {
      const vocabulary = 5000;
      const values = Array.from({ length: vocabulary }, (_, id) => uniformAt(1, id));
      const topP = 0.9;
      const { logprobs } = drawTokens(tensor([values]), [0.5], resolveSampling({ topP }));
      const exps = values.map(Math.exp).sort((a, b) => b - a);
      const total = exps.reduce((sum, value) => sum + value, 0);
      let kept = 0;
      for (const value of exps) {
        if (kept / total >= topP) break;
        kept += value;
      }
      // Every kept token's probability is e^v/kept: from the drawn one's, the kept mass follows.
      const { ids } = drawTokens(tensor([values]), [0.5], resolveSampling({ topP }));
      const implied = Math.exp(values[ids[0] ?? 0] ?? NaN) / Math.exp(logprobs[0] ?? NaN);
      assert.ok(Math.abs(implied / kept - 1) < 1e-4, `kept mass ${implied}, by a sort ${kept}`);
    });

    test('rows with nuclei of very different size are each cut at their own', () => {
      // Slightly falling, so that no two are tied: the nucleus of one half holds 500 − a few tokens.
      const flat = Array.from({ length: 1000 }, (_, id) => (1.0005 - id * 1e-6) / 1000);
      const peaked = [0.9, ...Array<number>(999).fill(0.1 / 999)];
      const settings = resolveSampling({ topP: 0.5 });
      const { ids, logprobs } = drawTokens(logits([flat, peaked]), [0.3, 0.3], settings);
      const drawn = flat[ids[0] ?? 0] ?? NaN;
      assert.ok(Math.abs(Math.exp(logprobs[0] ?? NaN) / drawn - 2) < 0.005);
      assert.ok(Math.abs(logprobs[1] ?? NaN) < 1e-6);
    });

    test('16-bit logits are drawn in float32', () => {
      const rounded = logits().to('bfloat16');
      const { ids, logprobs } = drawTokens(rounded, [0.5], resolveSampling({}));
      const exact = rounded.to('float64').logSoftmax(-1).toArray() as number[][];
      assert.deepEqual(ids, [1]);
      assert.ok(Math.abs((logprobs[0] ?? NaN) - (exact[0]?.[1] ?? NaN)) < 1e-6);
    });
  });

  test('rejects a row without a finite distribution and names it', () => {
    const broken = tensor([
      [0, 1],
      [NaN, 1],
    ]);
    assert.throws(
      () => drawTokens(broken, [0.5, 0.5], resolveSampling({})),
      (error: Error) => {
        assert.ok(error instanceof NumericsError);
        assert.match(error.message, /row 1 has no finite distribution/);
        return true;
      },
    );
  });
});
