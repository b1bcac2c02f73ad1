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
import { klEstimate, klLoss, type KlEstimator, type KlLossEstimator } from './index.js';

interface GoldenCase {
  name: string;
  estimator: KlLossEstimator;
  logprobs: number[][];
  oldLogprobs: number[][];
  refLogprobs: number[][];
  tokenWeights: number[][];
  expected: { perToken: number[][]; loss: number; gradient: number[][] };
}
const golden = goldenCases<GoldenCase>('kl.json');
const ESTIMATORS: KlEstimator[] = ['k1', 'k2', 'k3'];
const LOSS_ESTIMATORS: KlLossEstimator[] = [...ESTIMATORS, 'k3Unbiased'];

/** The loss of one token with weight 1, its gradient, and its capped share. */
function oneToken(estimator: KlLossEstimator, logprob: number, refLogprob: number, old = logprob) {
  const logprobs = leaf([[logprob]]);
  const { loss, stats } = klLoss({
    logprobs,
    oldLogprobs: f64([[old]]),
    refLogprobs: f64([[refLogprob]]),
    tokenWeights: f64([[1]]),
    estimator,
  });
  loss.backward();
  return {
    loss: loss.item(),
    gradient: gradientOf(logprobs).item(),
    capped: stats.klCapFraction.item(),
  };
}

describe('klLoss', () => {
  describe('matches the reference implementation', () => {
    for (const { name, expected, estimator, ...c } of golden) {
      test(`${name}: loss and gradient`, () => {
        const logprobs = leaf(c.logprobs);
        const { loss, stats } = klLoss({
          logprobs,
          oldLogprobs: f64(c.oldLogprobs),
          refLogprobs: f64(c.refLogprobs),
          tokenWeights: f64(c.tokenWeights),
          estimator,
        });
        loss.backward();
        expectClose(loss, expected.loss, EXACT);
        expectClose(gradientOf(logprobs), expected.gradient, EXACT);
        expectClose(stats.kl, expected.loss, EXACT);
        expectClose(stats.klCapFraction, 0);
      });
    }
  });

  describe('by hand', () => {
    // l = log 2: the policy gives the token twice the reference's probability.
    const l = Math.log(2);
    test('k1 is l with gradient 1', () => {
      const { loss, gradient } = oneToken('k1', -1, -1 - l);
      expectClose([loss, gradient], [l, 1], EXACT);
    });
    test('k2 is l²/2 with gradient l', () => {
      const { loss, gradient } = oneToken('k2', -1, -1 - l);
      expectClose([loss, gradient], [l ** 2 / 2, l], EXACT);
    });
    test('k3 is 1/2 − 1 + log 2 with gradient 1 − 1/2', () => {
      const { loss, gradient } = oneToken('k3', -1, -1 - l);
      expectClose([loss, gradient], [-0.5 + l, 0.5], EXACT);
    });
    test('k3Unbiased is ρ·k3 with gradient ρ·(k3 + 1 − e⁻ˡ) = ρ·l', () => {
      // old = logprob + log 4, so ρ = 1/4.
      const { loss, gradient } = oneToken('k3Unbiased', -2, -2 - l, -2 + Math.log(4));
      expectClose([loss, gradient], [(-0.5 + l) / 4, l / 4], EXACT);
    });
  });

  describe('caps the exponent at 20', () => {
    for (const estimator of ['k3', 'k3Unbiased'] as const) {
      test(`${estimator} beyond it is the constant e²⁰ − 21 without gradient, and counted`, () => {
        const { loss, gradient, capped } = oneToken(estimator, -30, -5);
        expectClose(loss, Math.exp(20) - 21, EXACT);
        assert.deepEqual([gradient, capped], [0, 1]);
      });
      test(`${estimator} just within it is not touched`, () => {
        const { gradient, capped } = oneToken(estimator, -24.9, -5);
        assert.equal(capped, 0);
        // k3Unbiased: ρ·(k3 + 1 − e⁻ˡ) = ρ·l, where e¹⁹·⁹ = 4.4e8 cancels and takes eight digits with it.
        const expected = estimator === 'k3' ? 1 - Math.exp(19.9) : -19.9;
        expectClose(gradient, expected, { rtol: 1e-8 });
      });
      test(`${estimator} of a token 10,000 nats below the reference is finite in float32`, () => {
        const logprobs = tensor([[-10_000]], { requiresGrad: true });
        const oldLogprobs = tensor([[-10_000]]);
        const refLogprobs = tensor([[-1]]);
        const tokenWeights = tensor([[1]]);
        const { loss } = klLoss({ logprobs, oldLogprobs, refLogprobs, tokenWeights, estimator });
        loss.backward();
        expectClose(loss, Math.exp(20) - 21);
        assert.equal(gradientOf(logprobs).item(), 0);
      });
    }
    test('only weights of capped tokens are counted', () => {
      const { stats } = klLoss({
        logprobs: f64([[-30, -1, -40]]),
        refLogprobs: f64([[-1, -1, -1]]),
        tokenWeights: f64([[0.25, 0.5, 0]]),
        estimator: 'k3',
      });
      expectClose(stats.klCapFraction, 0.25);
    });
    test('k1 and k2 are never clamped and count nothing', () => {
      assert.deepEqual(oneToken('k1', -30, -5), { loss: -25, gradient: 1, capped: 0 });
      assert.deepEqual(oneToken('k2', -30, -5), { loss: 312.5, gradient: -25, capped: 0 });
    });
  });

  describe('properties', () => {
    const logprobs = [
      [-1, -2, -3],
      [-0.5, -4, -1.5],
    ];
    const refLogprobs = [
      [-1.5, -1, -2],
      [-0.7, -3, -2.5],
    ];
    const oldLogprobs = [
      [-1.1, -2.2, -2.9],
      [-0.4, -4.4, -1.6],
    ];
    const weights = [
      [0.5, 0, 0.25],
      [0, 0.75, 0],
    ];
    const inputs = {
      oldLogprobs: f64(oldLogprobs),
      refLogprobs: f64(refLogprobs),
      tokenWeights: f64(weights),
    };
    for (const estimator of LOSS_ESTIMATORS) {
      const clean = leaf(logprobs);
      const { loss: expected } = klLoss({ ...inputs, logprobs: clean, estimator });
      expected.backward();

      for (const junk of JUNK) {
        test(`${estimator} never reads ${junk} at weight 0, forward or backward`, () => {
          const dirty = leaf(junkWhere(logprobs, weights, junk));
          const { loss, stats } = klLoss({
            logprobs: dirty,
            oldLogprobs: f64(junkWhere(oldLogprobs, weights, -junk)),
            refLogprobs: f64(junkWhere(refLogprobs, weights, 0)),
            tokenWeights: f64(weights),
            estimator,
          });
          loss.backward();
          assert.equal(loss.item(), expected.item());
          assert.equal(stats.klCapFraction.item(), 0);
          assert.deepEqual(gradientOf(dirty).toArray(), gradientOf(clean).toArray());
        });
      }

      test(`${estimator}: micro-batches add up`, () => {
        const parts = [0, 1].map((row) =>
          klLoss({
            logprobs: f64(logprobs).slice(0, row, row + 1),
            oldLogprobs: inputs.oldLogprobs.slice(0, row, row + 1),
            refLogprobs: inputs.refLogprobs.slice(0, row, row + 1),
            tokenWeights: inputs.tokenWeights.slice(0, row, row + 1),
            estimator,
          }).loss.item(),
        );
        expectClose((parts[0] ?? NaN) + (parts[1] ?? NaN), expected.item(), EXACT);
      });

      test(`${estimator} sends no gradient to anything but logprobs`, () => {
        const constants = {
          oldLogprobs: leaf(oldLogprobs),
          refLogprobs: leaf(refLogprobs),
          tokenWeights: leaf(weights),
        };
        const { loss, stats } = klLoss({ ...constants, logprobs: leaf(logprobs), estimator });
        loss.backward();
        for (const constant of Object.values(constants)) assert.equal(constant.grad, null);
        for (const stat of Object.values(stats)) assert.equal(stat.requiresGrad, false);
      });
    }

    test('k3Unbiased on-policy has the value of k3 and the gradient of k2', () => {
      const run = (estimator: KlLossEstimator) => {
        const live = leaf(logprobs);
        const { loss } = klLoss({
          ...inputs,
          logprobs: live,
          oldLogprobs: f64(logprobs),
          estimator,
        });
        loss.backward();
        return { loss, gradient: gradientOf(live) };
      };
      expectClose(run('k3Unbiased').loss, run('k3').loss, EXACT);
      expectClose(run('k3Unbiased').gradient, run('k2').gradient, EXACT);
    });

    test('results take the dtype of the floating inputs, whatever the dtype of the weights', () => {
      const tokenWeights = tensor([[1, 0]], { dtype: 'int64' });
      for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
        const lp = tensor([[-1, NaN]], { dtype });
        const ref = tensor([[-2, 0]], { dtype });
        const { loss } = klLoss({ logprobs: lp, refLogprobs: ref, tokenWeights, estimator: 'k2' });
        assert.equal(loss.dtype, dtype);
        assert.equal(loss.item(), 0.5);
      }
    });
  });

  describe('rejects', () => {
    const one = f64([[1]]);
    test('k3Unbiased without oldLogprobs', () => {
      assert.throws(
        () =>
          klLoss({ logprobs: one, refLogprobs: one, tokenWeights: one, estimator: 'k3Unbiased' }),
        new ValueRangeError(
          'klLoss: expected oldLogprobs with the estimator k3Unbiased, received none.',
          { hint: 'k3Unbiased multiplies k3 by exp(logprobs − oldLogprobs).' },
        ),
      );
    });
    test('shapes that differ', () => {
      const shared = {
        logprobs: f64([[1, 2]]),
        refLogprobs: f64([[1, 2]]),
        estimator: 'k3' as const,
      };
      assert.throws(
        () => klLoss({ ...shared, tokenWeights: one }),
        new ShapeError(
          'klLoss: expected tokenWeights to have shape [B, T] = [1, 2] like logprobs, received [1, 1].',
        ),
      );
      assert.throws(
        () => klLoss({ ...shared, tokenWeights: f64([[1, 1]]), oldLogprobs: one }),
        new ShapeError(
          'klLoss: expected oldLogprobs to have shape [B, T] = [1, 2] like logprobs, received [1, 1].',
        ),
      );
    });
    test('an estimator that does not exist', () => {
      const estimator = 'k4' as KlEstimator;
      assert.throws(
        () => klLoss({ logprobs: one, refLogprobs: one, tokenWeights: one, estimator }),
        new ValueRangeError(
          'klLoss: expected estimator to be k1, k2, k3 or k3Unbiased, received "k4".',
        ),
      );
    });
  });
});

describe('klEstimate', () => {
  for (const { name, expected, estimator, ...c } of golden) {
    if (estimator === 'k3Unbiased') continue;
    test(`matches the reference implementation: ${name}`, () => {
      const logprobs = leaf(c.logprobs);
      const refLogprobs = leaf(c.refLogprobs);
      const estimate = klEstimate({ logprobs, refLogprobs, estimator });
      expectClose(estimate, expected.perToken, EXACT);
      estimate.mul(f64(c.tokenWeights)).sum().backward();
      expectClose(gradientOf(logprobs), expected.gradient, EXACT);
      assert.equal(refLogprobs.grad, null, 'the reference is a constant');
    });
  }

  test('by hand: policy and reference are not interchangeable', () => {
    // l = −1 − (−3) = 2.
    const logprobs = f64([[-1]]);
    const refLogprobs = f64([[-3]]);
    const values = ESTIMATORS.map((estimator) =>
      klEstimate({ logprobs, refLogprobs, estimator }).item(),
    );
    expectClose(values, [2, 2, Math.exp(-2) + 1], EXACT);
  });

  test('the means of k1 and k3 under the policy are the KL, exactly', () => {
    const policy = [0.5, 0.3, 0.2];
    const reference = [0.2, 0.2, 0.6];
    const kl = policy.reduce((sum, p, i) => sum + p * Math.log(p / (reference[i] ?? NaN)), 0);
    for (const estimator of ['k1', 'k3'] as const) {
      const estimate = klEstimate({
        logprobs: f64([policy.map(Math.log)]),
        refLogprobs: f64([reference.map(Math.log)]),
        estimator,
      });
      expectClose(estimate.mul(f64([policy])).sum(), kl, EXACT);
    }
  });

  test('with a mask is exactly 0 where nothing counts and never reads it', () => {
    for (const estimator of ESTIMATORS) {
      for (const junk of JUNK) {
        for (const dtype of ['bool', 'int32', 'float32'] as const) {
          const logprobs = leaf([[-1, junk]]);
          const refLogprobs = f64([[-3, 0]]);
          const mask = tensor([[1, 0]], { dtype });
          const estimate = klEstimate({ logprobs, refLogprobs, estimator, mask });
          estimate.sum().backward();
          assert.equal(estimate.select(1, 1).item(), 0);
          assert.equal(gradientOf(logprobs).select(1, 1).item(), 0);
          assert.equal(estimate.dtype, 'float64');
        }
      }
    }
  });

  test('k3 keeps its digits near l = 0', () => {
    // k3 ≈ l²/2 = 5e-9 at l = 1e-4; e⁻ˡ − 1 in float32 would be off by 6e-8.
    const logprobs = tensor([[-1e-4]]);
    const refLogprobs = tensor([[0]]);
    expectClose(klEstimate({ logprobs, refLogprobs, estimator: 'k3' }), [[5e-9]], {
      rtol: 1e-2,
      atol: 1e-11,
    });
  });

  test('rejects shapes that differ and an unknown estimator', () => {
    const logprobs = f64([[1, 2]]);
    assert.throws(
      () => klEstimate({ logprobs, refLogprobs: f64([[1]]), estimator: 'k1' }),
      new ShapeError(
        'klEstimate: expected refLogprobs to have shape [B, T] = [1, 2] like logprobs, received [1, 1].',
      ),
    );
    assert.throws(
      () => klEstimate({ logprobs, refLogprobs: logprobs, estimator: 'k0' as KlEstimator }),
      new ValueRangeError('klEstimate: expected estimator to be k1, k2, k3, received "k0".'),
    );
  });
});
