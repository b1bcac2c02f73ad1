import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  EXACT,
  f64,
  goldenCases,
  gradientOf,
  JUNK,
  junkWhere,
  leaf,
} from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import {
  ppoClipLoss,
  tokenWeights,
  type ClipRange,
  type LossReduction,
  type PolicyLossStats,
} from './index.js';

interface GoldenCase {
  name: string;
  logprobs: number[][];
  oldLogprobs: number[][];
  advantages: number[][];
  tokenWeights: number[][];
  clip: ClipRange;
  dualClip?: number;
  expected: { loss: number; gradient: number[][]; stats: Record<keyof PolicyLossStats, number> };
}

const clip = { low: 0.1, high: 0.3 }; // asymmetric: equal bounds would hide that they were swapped

/** One token with weight 1: its loss, its gradient and the stats. */
function oneToken(logRatio: number, advantage: number, dualClip?: number) {
  const logprobs = leaf([[logRatio - 2]]);
  const { loss, stats } = ppoClipLoss({
    logprobs,
    oldLogprobs: f64([[-2]]),
    advantages: f64([[advantage]]),
    tokenWeights: f64([[1]]),
    clip,
    dualClip,
  });
  loss.backward();
  const entries = Object.entries(stats).map(([name, stat]) => [name, stat.item()]);
  return {
    loss: loss.item(),
    gradient: gradientOf(logprobs).item(),
    stats: Object.fromEntries(entries) as Record<keyof PolicyLossStats, number>,
  };
}

describe('ppoClipLoss', () => {
  describe('matches the reference implementation', () => {
    for (const { name, expected, ...c } of goldenCases<GoldenCase>('ppo_clip.json')) {
      test(`${name}: loss, stats and gradient`, () => {
        const logprobs = leaf(c.logprobs);
        const { loss, stats } = ppoClipLoss({
          logprobs,
          oldLogprobs: f64(c.oldLogprobs),
          advantages: f64(c.advantages),
          tokenWeights: f64(c.tokenWeights),
          clip: c.clip,
          dualClip: c.dualClip,
        });
        loss.backward();
        expectClose(loss, expected.loss, EXACT);
        expectClose(gradientOf(logprobs), expected.gradient, EXACT);
        assert.deepEqual(Object.keys(stats).sort(), Object.keys(expected.stats).sort());
        for (const [stat, value] of Object.entries(expected.stats))
          expectClose(stats[stat as keyof PolicyLossStats], value, EXACT);
      });
    }
  });

  describe('by hand', () => {
    const e = Math.E;
    test('a positive advantage stops pushing above 1 + high', () => {
      // ρ = e, Â = 2: min(2e, 1.3·2), so L = −2.6.
      const { loss, gradient, stats } = oneToken(1, 2);
      expectClose(loss, -2.6, EXACT);
      assert.equal(gradient, 0);
      assert.deepEqual([stats.clipFractionLow, stats.clipFractionHigh], [0, 1]);
    });
    test('a positive advantage is not clipped below 1 − low', () => {
      // ρ = 1/e, Â = 2: min(2/e, 0.9·2) = 2/e; dL/dlogprob = −ρÂ.
      const { loss, gradient, stats } = oneToken(-1, 2);
      expectClose([loss, gradient], [-2 / e, -2 / e], EXACT);
      assert.deepEqual([stats.clipFractionLow, stats.clipFractionHigh], [0, 0]);
    });
    test('a negative advantage stops pushing below 1 − low', () => {
      // ρ = 1/e, Â = −2: min(−2/e, −1.8) = −1.8, so L = 1.8.
      const { loss, gradient, stats } = oneToken(-1, -2);
      expectClose(loss, 1.8, EXACT);
      assert.equal(gradient, 0);
      assert.deepEqual([stats.clipFractionLow, stats.clipFractionHigh], [1, 0]);
    });
    test('a negative advantage is not clipped above 1 + high', () => {
      // ρ = e, Â = −2: min(−2e, −2.6) = −2e.
      const { loss, gradient, stats } = oneToken(1, -2);
      expectClose([loss, gradient], [2 * e, 2 * e], EXACT);
      assert.deepEqual([stats.clipFractionLow, stats.clipFractionHigh], [0, 0]);
    });
    test('dualClip bounds the loss of a negative advantage at −c·Â, without gradient', () => {
      // ρ = e, Â = −2, c = 2: max(−2e, −4) = −4.
      const { loss, gradient } = oneToken(1, -2, 2);
      expectClose(loss, 4, EXACT);
      assert.equal(gradient, 0);
    });
    test('dualClip changes neither a ratio below it nor a positive advantage', () => {
      assert.deepEqual(oneToken(1, -2, 3), oneToken(1, -2));
      assert.deepEqual(oneToken(-1, -2, 2), oneToken(-1, -2));
      assert.deepEqual(oneToken(0.2, 2, 1.01), oneToken(0.2, 2));
    });
    test('the stats are Σw·ρ, k3 of old‖new and the largest |ρ − 1|', () => {
      const { stats } = oneToken(-1, 2);
      expectClose(stats.meanRatio, 1 / e, EXACT);
      expectClose(stats.approxKl, 1 / e - 1 + 1, EXACT); // ρ − 1 − log ρ with log ρ = −1
      expectClose(stats.maxRatioDeviation, 1 - 1 / e, EXACT);
    });
  });

  describe('where the ratio overflows', () => {
    test('a clipped token has exactly no gradient, and the loss is finite', () => {
      for (const overflow of [1000, Infinity]) {
        const { loss, gradient } = oneToken(overflow, 2);
        expectClose(loss, -2.6, EXACT);
        assert.equal(gradient, 0);
      }
    });
    test('so has a negative advantage under dualClip', () => {
      assert.deepEqual([oneToken(1000, -2, 3).loss, oneToken(1000, -2, 3).gradient], [6, 0]);
    });
    test('so has an advantage of 0, whose loss is 0', () => {
      const { loss, gradient } = oneToken(1000, 0);
      assert.deepEqual([Math.abs(loss), Math.abs(gradient)], [0, 0]);
    });
    test('a vanishing ratio is clipped for Â < 0 and gives 0 for Â > 0', () => {
      assert.deepEqual([oneToken(-1000, -2).loss, oneToken(-1000, -2).gradient], [1.8, 0]);
      assert.deepEqual([oneToken(-1000, 2).loss, oneToken(-1000, 2).gradient], [-0, -0]);
    });
    test('clip.high = ∞ does not clip', () => {
      const logprobs = leaf([[1, 800]]);
      const { loss } = ppoClipLoss({
        logprobs,
        oldLogprobs: f64([[0, 0]]),
        advantages: f64([[1, 0]]),
        tokenWeights: f64([[1, 1]]),
        clip: { low: 0.2, high: Infinity },
      });
      loss.backward();
      expectClose(loss, -Math.E, EXACT);
      expectClose(gradientOf(logprobs), [[-Math.E, 0]], EXACT);
    });
  });

  describe('properties', () => {
    const logprobs = [
      [-1, -2, -3],
      [-0.5, -4, -1.5],
    ];
    const oldLogprobs = [
      [-1.1, -1, -3.5],
      [-0.7, -4.1, -2.5],
    ];
    const advantages = [
      [2, 1, -3],
      [1, 0.5, -1],
    ];
    const weights = [
      [0.5, 0, 0.25],
      [0, 0.75, 0],
    ];
    const inputs = {
      oldLogprobs: f64(oldLogprobs),
      advantages: f64(advantages),
      tokenWeights: f64(weights),
      clip,
    };
    const clean = leaf(logprobs);
    const expected = ppoClipLoss({ ...inputs, logprobs: clean });
    expected.loss.backward();

    test('reduces to the policy gradient where the policies are equal', () => {
      const live = leaf(logprobs);
      ppoClipLoss({ ...inputs, logprobs: live, oldLogprobs: f64(logprobs) }).loss.backward();
      expectClose(
        gradientOf(live),
        weights.map((row, i) => row.map((w, t) => -w * (advantages[i]?.[t] ?? NaN))),
        EXACT,
      );
    });

    for (const junk of JUNK) {
      test(`never reads ${junk} at weight 0, forward or backward`, () => {
        const dirty = leaf(junkWhere(logprobs, weights, junk));
        const { loss, stats } = ppoClipLoss({
          ...inputs,
          logprobs: dirty,
          oldLogprobs: f64(junkWhere(oldLogprobs, weights, 0)),
          advantages: f64(junkWhere(advantages, weights, -junk)),
          dualClip: 100,
        });
        loss.backward();
        assert.equal(loss.item(), expected.loss.item());
        assert.deepEqual(gradientOf(dirty).toArray(), gradientOf(clean).toArray());
        for (const [name, stat] of Object.entries(expected.stats))
          assert.equal(stats[name as keyof PolicyLossStats].item(), stat.item());
      });
    }

    test('a weight that is negative or NaN does not count', () => {
      const live = leaf([[-1, -1, -1]]);
      const { loss } = ppoClipLoss({
        ...inputs,
        logprobs: live,
        oldLogprobs: f64([[-1, -1, -1]]),
        advantages: f64([[2, 2, 2]]),
        tokenWeights: f64([[1, -1, NaN]]),
      });
      loss.backward();
      assert.equal(loss.item(), -2);
      expectClose(gradientOf(live), [[-2, 0, 0]]);
    });

    const REDUCTIONS: LossReduction[] = [
      { kind: 'sequenceMean' },
      { kind: 'tokenMean' },
      { kind: 'constant', budget: 4 },
      { kind: 'sequenceSum' },
      { kind: 'promptMean', groupSize: 2 },
    ];
    for (const reduction of REDUCTIONS) {
      test(`micro-batches of different length add up to the minibatch (${reduction.kind})`, () => {
        const mask = weights.map((row) => row.map((w) => Math.sign(w)));
        const all = { ...inputs, tokenWeights: tokenWeights(f64(mask), reduction) };
        const run = (first: number, last: number) => {
          const live = leaf(logprobs.slice(first, last));
          const { loss, stats } = ppoClipLoss({
            logprobs: live,
            oldLogprobs: all.oldLogprobs.slice(0, first, last),
            advantages: all.advantages.slice(0, first, last),
            tokenWeights: all.tokenWeights.slice(0, first, last),
            clip,
          });
          loss.backward();
          return { loss, stats, gradient: gradientOf(live).toArray() as number[][] };
        };
        const [whole, one, two] = [run(0, 2), run(0, 1), run(1, 2)];
        expectClose(one.loss.add(two.loss), whole.loss, EXACT);
        expectClose([...one.gradient, ...two.gradient], whole.gradient, EXACT);
        for (const name of [
          'meanRatio',
          'approxKl',
          'clipFractionLow',
          'clipFractionHigh',
        ] as const)
          expectClose(one.stats[name].add(two.stats[name]), whole.stats[name], EXACT);
        const largest = one.stats.maxRatioDeviation.maximum(two.stats.maxRatioDeviation);
        expectClose(largest, whole.stats.maxRatioDeviation, EXACT);
      });
    }

    test('sends no gradient to anything but logprobs', () => {
      const constants = {
        oldLogprobs: leaf(oldLogprobs),
        advantages: leaf(advantages),
        tokenWeights: leaf(weights),
      };
      const { loss, stats } = ppoClipLoss({ ...constants, logprobs: leaf(logprobs), clip });
      loss.backward();
      for (const constant of Object.values(constants)) assert.equal(constant.grad, null);
      for (const stat of Object.values(stats)) assert.equal(stat.requiresGrad, false);
    });

    test('takes weights of any dtype; results take the dtype of the floating inputs', () => {
      for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
        const row = tensor([[-1, NaN]], { dtype });
        const { loss } = ppoClipLoss({
          logprobs: row,
          oldLogprobs: row,
          advantages: tensor([[3, 7]], { dtype }),
          tokenWeights: tensor([[1, 0]], { dtype: 'bool' }),
          clip,
        });
        assert.deepEqual([loss.dtype, loss.item()], [dtype, -3]);
      }
    });
  });

  describe('rejects', () => {
    const one = f64([[1]]);
    const valid = { logprobs: one, oldLogprobs: one, advantages: one, tokenWeights: one, clip };
    test('any tensor of another shape', () => {
      for (const name of ['oldLogprobs', 'advantages', 'tokenWeights'] as const) {
        assert.throws(
          () =>
            ppoClipLoss({
              ...valid,
              logprobs: f64([[1, 2]]),
              oldLogprobs: f64([[1, 2]]),
              advantages: f64([[1, 2]]),
              tokenWeights: f64([[1, 2]]),
              [name]: one,
            }),
          new ShapeError(
            `ppoClipLoss: expected ${name} to have shape [B, T] = [1, 2] like logprobs, received [1, 1].`,
          ),
        );
      }
    });
    test('advantages that were not spread over tokens', () => {
      assert.throws(
        () => ppoClipLoss({ ...valid, advantages: f64([1]) }),
        new ShapeError(
          'ppoClipLoss: expected advantages to have shape [B, T] = [1, 1] like logprobs, received [1].',
        ),
      );
    });
    test('a negative bound, and a dualClip that is not above 1', () => {
      assert.throws(
        () => ppoClipLoss({ ...valid, clip: { low: -0.1, high: 0.2 } }),
        new ValueRangeError('ppoClipLoss: expected clip.low to be at least 0, received -0.1.'),
      );
      assert.throws(
        () => ppoClipLoss({ ...valid, clip: { low: 0.1, high: NaN } }),
        new ValueRangeError('ppoClipLoss: expected clip.high to be at least 0, received NaN.'),
      );
      assert.throws(
        () => ppoClipLoss({ ...valid, dualClip: 1 }),
        new ValueRangeError('ppoClipLoss: expected dualClip to be above 1, received 1.'),
      );
    });
  });
});
