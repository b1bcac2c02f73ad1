import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import { groupPreferenceLoss, topKGoodMask } from './index.js';

interface GoldenCase {
  name: string;
  policyLogprobs: number[][];
  refLogprobs: number[][];
  goodMask: number[][];
  beta: number;
  expected: { loss: number; gradient: number[][]; goodProbability: number };
}

const policy = [
  [-10, -12, -9, -15],
  [-20, -21, -19, -18],
];
const reference = [
  [-11, -11, -11, -14],
  [-19, -22, -18, -21],
];
const good = [
  [1, 0, 1, 0],
  [0, 0, 0, 1],
];

describe('groupPreferenceLoss', () => {
  describe('matches the reference implementation', () => {
    for (const { name, expected, beta, ...c } of goldenCases<GoldenCase>('group_preference.json')) {
      test(`${name}: loss, stats and gradient`, () => {
        const policyLogprobs = leaf(c.policyLogprobs);
        const { loss, stats } = groupPreferenceLoss({
          policyLogprobs,
          refLogprobs: f64(c.refLogprobs),
          goodMask: f64(c.goodMask),
          beta,
        });
        loss.backward();
        expectClose(loss, expected.loss, EXACT);
        expectClose(gradientOf(policyLogprobs), expected.gradient, EXACT);
        expectClose(stats.goodProbability, expected.goodProbability, EXACT);
      });
    }
  });

  describe('by hand', () => {
    test('is not the cross-entropy with a multi-hot target', () => {
      // s = (log 4, log 3, log 2, log 1), the first two are good: −log(7/10). The multi-hot cross-entropy would be
      // −log(4/10) − log(3/10) = 2.120.
      const { loss } = groupPreferenceLoss({
        policyLogprobs: f64([[4, 3, 2, 1].map(Math.log)]),
        refLogprobs: f64([[0, 0, 0, 0]]),
        goodMask: f64([[1, 1, 0, 0]]),
        beta: 1,
      });
      expectClose(loss, -Math.log(0.7), EXACT);
    });
    test('with two completions and one good it is the DPO loss of the pair, gradient too', () => {
      const beta = 0.2;
      const policyLogprobs = leaf([[-10, -12]]);
      const { loss } = groupPreferenceLoss({
        policyLogprobs,
        refLogprobs: f64([[-11, -9]]),
        goodMask: f64([[0, 1]]),
        beta,
      });
      loss.backward();
      // Δ = (−12 + 9) − (−10 + 11) = −4: −log σ(β·Δ); d/d(chosen) = −β·σ(−β·Δ).
      const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
      const slope = beta * sigmoid(4 * beta);
      expectClose(loss, -Math.log(sigmoid(-4 * beta)), EXACT);
      expectClose(gradientOf(policyLogprobs), [[slope, -slope]], EXACT);
    });
    test('a prompt without a good completion is left out of the mean, with no gradient', () => {
      const one = leaf(policy);
      const goodMask = [good[0] ?? [], [0, 0, 0, 0]];
      const both = groupPreferenceLoss({
        policyLogprobs: one,
        refLogprobs: f64(reference),
        goodMask: f64(goodMask),
        beta: 0.3,
      });
      both.loss.backward();
      const alone = groupPreferenceLoss({
        policyLogprobs: f64(policy.slice(0, 1)),
        refLogprobs: f64(reference.slice(0, 1)),
        goodMask: f64(goodMask.slice(0, 1)),
        beta: 0.3,
      });
      expectClose(both.loss, alone.loss, EXACT);
      expectClose(gradientOf(one).select(0, 1), [0, 0, 0, 0]);
    });
    test('is finite for sums of log-probabilities as long completions have them', () => {
      const policyLogprobs = tensor([[-30_000, -10_000, -20_000]], { requiresGrad: true });
      const { loss } = groupPreferenceLoss({
        policyLogprobs,
        refLogprobs: tensor([[-10_000, -20_000, -20_000]]),
        goodMask: tensor([[1, 0, 0]]),
        beta: 1,
      });
      loss.backward();
      expectClose(loss, 30_000);
      expectClose(gradientOf(policyLogprobs), [[-1, 1, 0]]);
    });
  });

  describe('properties', () => {
    const inputs = { refLogprobs: f64(reference), goodMask: f64(good), beta: 0.3 };
    test('promptWeights replace the mean, and micro-batches then add up', () => {
      const whole = groupPreferenceLoss({ ...inputs, policyLogprobs: f64(policy) });
      const parts = [0, 1].map((row) =>
        groupPreferenceLoss({
          policyLogprobs: f64(policy.slice(row, row + 1)),
          refLogprobs: f64(reference.slice(row, row + 1)),
          goodMask: f64(good.slice(row, row + 1)),
          beta: 0.3,
          promptWeights: f64([0.5]),
        }),
      );
      const [one, two] = parts;
      assert.ok(one && two);
      expectClose(one.loss.add(two.loss), whole.loss, EXACT);
      expectClose(
        one.stats.goodProbability.add(two.stats.goodProbability),
        whole.stats.goodProbability,
        EXACT,
      );
    });
    test('with promptWeights a part without any good completion is 0', () => {
      const { loss, stats } = groupPreferenceLoss({
        ...inputs,
        policyLogprobs: f64(policy),
        goodMask: f64(good).mul(0),
        promptWeights: f64([0.5, 0.5]),
      });
      expectClose(loss.abs(), 0);
      expectClose(stats.goodProbability, 0);
    });
    test('sends no gradient to anything but policyLogprobs', () => {
      const constants = {
        refLogprobs: leaf(reference),
        goodMask: leaf(good),
        promptWeights: leaf([0.5, 0.5]),
      };
      const { loss, stats } = groupPreferenceLoss({
        ...constants,
        policyLogprobs: leaf(policy),
        beta: 0.3,
      });
      loss.backward();
      for (const constant of Object.values(constants)) assert.equal(constant.grad, null);
      assert.equal(stats.goodProbability.requiresGrad, false);
    });
    test('the mask may have any dtype; the loss has that of the log-probabilities', () => {
      for (const dtype of ['bool', 'int64', 'float32'] as const) {
        for (const floating of ['float64', 'float32', 'bfloat16'] as const) {
          const { loss } = groupPreferenceLoss({
            policyLogprobs: tensor(policy, { dtype: floating }),
            refLogprobs: tensor(reference, { dtype: floating }),
            goodMask: tensor(good, { dtype }),
            beta: 0.3,
          });
          assert.equal(loss.dtype, floating);
        }
      }
    });
  });

  describe('rejects', () => {
    const valid = { policyLogprobs: f64(policy), refLogprobs: f64(reference), goodMask: f64(good) };
    test('a batch without any good completion', () => {
      assert.throws(
        () => groupPreferenceLoss({ ...valid, goodMask: f64(good).mul(0), beta: 1 }),
        new ValueRangeError(
          'groupPreferenceLoss: expected at least one prompt with a good completion, received none.',
        ),
      );
    });
    test('a β that is not positive', () => {
      assert.throws(
        () => groupPreferenceLoss({ ...valid, beta: 0 }),
        new ValueRangeError(
          'groupPreferenceLoss: expected beta to be a positive number, received 0.',
        ),
      );
    });
    test('shapes that differ', () => {
      assert.throws(
        () => groupPreferenceLoss({ ...valid, goodMask: f64([[1]]), beta: 1 }),
        new ShapeError(
          'groupPreferenceLoss: expected goodMask to have shape [P, G] = [2, 4] like policyLogprobs, received [1, 1].',
        ),
      );
      assert.throws(
        () => groupPreferenceLoss({ ...valid, promptWeights: f64([1]), beta: 1 }),
        new ShapeError(
          'groupPreferenceLoss: expected promptWeights to have shape [P] = [2], received [1].',
        ),
      );
    });
  });
});

describe('topKGoodMask', () => {
  test('marks the k highest scores of each group; of equal ones the first', () => {
    const scores = f64([
      [0.1, 0.9, 0.5, 0.7],
      [1, 1, 1, 1],
      [-3, -Infinity, Infinity, -2],
    ]);
    assert.deepEqual(topKGoodMask(scores, 2).toArray(), [
      [0, 1, 0, 1],
      [1, 1, 0, 0],
      [0, 0, 1, 1],
    ]);
  });
  test('an unscored completion is never good, even where too few are scored', () => {
    const scores = f64([
      [NaN, 0, NaN],
      [NaN, NaN, NaN],
    ]);
    assert.deepEqual(topKGoodMask(scores, 2).toArray(), [
      [0, 1, 0],
      [0, 0, 0],
    ]);
  });
  test('keeps a floating dtype, and is a constant', () => {
    assert.equal(topKGoodMask(tensor([[1, 2]], { dtype: 'bfloat16' }), 1).dtype, 'bfloat16');
    assert.equal(topKGoodMask(tensor([[1, 2]], { dtype: 'int64' }), 1).dtype, 'float32');
    assert.equal(topKGoodMask(leaf([[1, 2]]), 1).requiresGrad, false);
  });
  test('rejects a k that is not from 1 to G, and scores that are not [P, G]', () => {
    const scores = f64([[1, 2]]);
    assert.throws(
      () => topKGoodMask(scores, 0),
      new ValueRangeError('topKGoodMask: expected k to be an integer of at least 1, received 0.'),
    );
    assert.throws(
      () => topKGoodMask(scores, 3),
      new ValueRangeError(
        'topKGoodMask: expected k to be at most the 2 completions of a group, received 3.',
      ),
    );
    assert.throws(
      () => topKGoodMask(f64([1, 2]), 1),
      new ShapeError('topKGoodMask: expected scores to have shape [P, G], received [2].'),
    );
  });
});
