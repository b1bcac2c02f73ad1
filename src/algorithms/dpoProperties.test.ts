import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, gradientOf, JUNK, leaf } from '../../test/golden/algorithms/golden.js';
import {
  lengthsOnly,
  needs,
  policyAndReference,
  flipped,
  policyChosen,
  policyRejected,
  refChosen,
  refRejected,
  pairs,
  runRows,
  typed,
} from '../../test/golden/algorithms/preferencePairs.js';
import { tensor } from '../torch/index.js';
import {
  dpoLoss,
  DPO_VARIANT_TRAITS,
  DPO_VARIANTS,
  F_DIVERGENCES,
  groupPreferenceLoss,
  type DpoLossInputs,
  type DpoVariant,
  type FDivergence,
} from './index.js';

const logistic = (x: number) => Math.log1p(Math.exp(-x));

/** Every pair that a variant may make with a divergence. */
const COMBINATIONS = DPO_VARIANTS.flatMap((variant) =>
  F_DIVERGENCES.filter(
    (divergence) => divergence === 'reverse_kl' || DPO_VARIANT_TRAITS[variant].acceptsFDivergence,
  ).map((fDivergence) => ({ variant, fDivergence })),
);

describe('dpoLoss', () => {
  describe('properties', () => {
    test('where the policy is the reference the loss is ln 2 exactly, in float32 too', () => {
      for (const dtype of ['float32', 'float64'] as const) {
        const same = tensor([-123.456, -0.1, -1e4], { dtype });
        const other = tensor([-7.7, -3e3, -2], { dtype });
        const { loss } = dpoLoss({
          policyChosenLogprobs: same,
          policyRejectedLogprobs: other,
          refChosenLogprobs: same,
          refRejectedLogprobs: other,
          beta: 0.1,
          variant: 'sigmoid',
        });
        const ln2 = tensor([Math.LN2], { dtype }).item();
        assert.deepEqual(loss.toArray(), [ln2, ln2, ln2]);
      }
    });

    test('without label smoothing robust is sigmoid, and sigmoid_norm of single tokens too', () => {
      const inputs = { ...policyAndReference(), beta: 0.3 };
      const plain = dpoLoss({ ...inputs, variant: 'sigmoid' }).loss;
      expectClose(dpoLoss({ ...inputs, variant: 'robust' }).loss, plain, EXACT);
      const single = f64([1, 1, 1, 1]);
      const lengths = { chosenLengths: single, rejectedLengths: single };
      expectClose(dpoLoss({ ...inputs, ...lengths, variant: 'sigmoid_norm' }).loss, plain, EXACT);
    });

    test('robust is unbiased: flipped with probability ε it is the clean sigmoid loss on average', () => {
      const labelSmoothing = 0.2;
      const clean = dpoLoss({ ...policyAndReference(), beta: 0.3, variant: 'sigmoid' }).loss;
      const settings = { beta: 0.3, variant: 'robust', labelSmoothing } as const;
      const right = dpoLoss({ ...policyAndReference(), ...settings }).loss;
      const wrong = dpoLoss({ ...flipped(), ...settings }).loss;
      expectClose(right.mul(0.8).add(wrong.mul(0.2)), clean, EXACT);
    });

    test('label smoothing in sigmoid is the loss of the flipped pair with probability ε', () => {
      const plain = { beta: 0.3, variant: 'sigmoid' } as const;
      const right = dpoLoss({ ...policyAndReference(), ...plain }).loss;
      const wrong = dpoLoss({ ...flipped(), ...plain }).loss;
      const smoothed = dpoLoss({ ...policyAndReference(), ...plain, labelSmoothing: 0.2 }).loss;
      expectClose(smoothed, right.mul(0.8).add(wrong.mul(0.2)), EXACT);
    });

    test('the mean of sigmoid is groupPreferenceLoss with the chosen one good of two', () => {
      const stacked = (chosen: number[], rejected: number[]) =>
        f64(chosen.map((value, row) => [rejected[row] ?? NaN, value]));
      const { loss } = groupPreferenceLoss({
        policyLogprobs: stacked(policyChosen, policyRejected),
        refLogprobs: stacked(refChosen, refRejected),
        goodMask: f64(policyChosen.map(() => [0, 1])),
        beta: 0.3,
      });
      const dpo = dpoLoss({ ...policyAndReference(), beta: 0.3, variant: 'sigmoid' });
      expectClose(dpo.loss.mean(), loss, EXACT);
    });

    test('α = 1 is the reverse KL, α = 0 the forward one, and both are reached from nearby', () => {
      const at = (settings: Partial<DpoLossInputs>) =>
        dpoLoss({ ...policyAndReference(), beta: 0.3, variant: 'sigmoid', ...settings }).loss;
      const alpha = (alphaDivergenceCoef: number) =>
        at({ fDivergence: 'alpha_divergence', alphaDivergenceCoef });
      assert.deepEqual(alpha(1).toArray(), at({}).toArray());
      expectClose(alpha(0), at({ fDivergence: 'forward_kl' }), EXACT);
      for (const near of [1e-12, -1e-12]) {
        expectClose(alpha(1 + near), at({}), { rtol: 1e-7 });
        expectClose(alpha(near), at({ fDivergence: 'forward_kl' }), { rtol: 1e-7 });
      }
      assert.deepEqual(at({ fDivergence: 'reverse_kl' }).toArray(), at({}).toArray());
    });

    test('js is symmetric: with r = −c, Δ is c itself', () => {
      // log σ(c) − log σ(−c) = c, whatever c.
      const zeros = f64([0, 0, 0]);
      const { loss } = dpoLoss({
        policyChosenLogprobs: f64([1.5, -4, 30]),
        policyRejectedLogprobs: f64([-1.5, 4, -30]),
        refChosenLogprobs: zeros,
        refRejectedLogprobs: zeros,
        beta: 0.3,
        variant: 'sigmoid',
        fDivergence: 'js_divergence',
      });
      expectClose(loss, [0.45, -1.2, 9].map(logistic), EXACT);
    });

    test('near the reference every divergence is the reverse KL to first order', () => {
      const policyChosenLogprobs = leaf([-10]);
      for (const fDivergence of F_DIVERGENCES) {
        policyChosenLogprobs.grad = null;
        const { loss } = dpoLoss({
          policyChosenLogprobs,
          policyRejectedLogprobs: f64([-12]),
          refChosenLogprobs: f64([-10]),
          refRejectedLogprobs: f64([-12]),
          beta: 0.4,
          variant: 'sigmoid',
          fDivergence,
          alphaDivergenceCoef: 0.3,
        });
        loss.sum().backward();
        expectClose(loss, [Math.LN2], EXACT);
        // f″(1) = 1, but ½ for js.
        const slope = fDivergence === 'js_divergence' ? 0.1 : 0.2;
        expectClose(gradientOf(policyChosenLogprobs), [-slope], EXACT);
      }
    });

    test('a divergence leaves the rewards what they are', () => {
      const plain = dpoLoss({ ...policyAndReference(), beta: 0.3, variant: 'sigmoid' });
      const other = dpoLoss({
        ...policyAndReference(),
        beta: 0.3,
        variant: 'sigmoid',
        fDivergence: 'forward_kl',
      });
      expectClose(other.chosenRewards, plain.chosenRewards, EXACT);
      expectClose(other.rejectedRewards, plain.rejectedRewards, EXACT);
    });

    test('cappedExponents counts both completions of a pair', () => {
      const zeros = f64([0, 0, 0, 0]);
      const inputs = {
        policyChosenLogprobs: f64([-81, -80, -81, 90]),
        policyRejectedLogprobs: f64([-300, 0, 81, 90]),
        refChosenLogprobs: zeros,
        refRejectedLogprobs: zeros,
        beta: 0.1,
        variant: 'sigmoid',
      } as const;
      const count = (settings: Partial<DpoLossInputs>) =>
        dpoLoss({ ...inputs, ...settings }).cappedExponents.toArray();
      assert.deepEqual(count({ fDivergence: 'forward_kl' }), [2, 0, 1, 0]);
      assert.deepEqual(count({ fDivergence: 'js_divergence' }), [0, 0, 0, 0]);
      assert.deepEqual(count({}), [0, 0, 0, 0]);
      const alpha = { fDivergence: 'alpha_divergence', alphaDivergenceCoef: 2 } as const;
      assert.deepEqual(count(alpha), [0, 0, 1, 2]);
      const lengths = { chosenLengths: f64([1, 1, 1, 1]), rejectedLengths: f64([1, 1, 1, 1]) };
      const ipo = { ...lengths, variant: 'ipo', fDivergence: 'forward_kl' } as const;
      assert.deepEqual(
        count({ ...ipo, policyChosenLogprobs: f64([-35, -37, 0, 0]) }),
        [1, 1, 0, 0],
      );
    });

    test('reference-free is the loss against a reference of zeros', () => {
      const zeros = f64([0, 0, 0, 0]);
      for (const variant of DPO_VARIANTS) {
        const shared = { ...lengthsOnly(), ...needs(variant), beta: 0.1, variant };
        const policy = {
          policyChosenLogprobs: f64(policyChosen),
          policyRejectedLogprobs: f64(policyRejected),
        };
        const free = dpoLoss({ ...policy, ...shared, referenceFree: true });
        const against = dpoLoss({
          ...policy,
          ...shared,
          refChosenLogprobs: zeros,
          refRejectedLogprobs: zeros,
        });
        assert.deepEqual(free.loss.toArray(), against.loss.toArray(), variant);
        assert.deepEqual(free.chosenRewards.toArray(), against.chosenRewards.toArray(), variant);
      }
    });

    for (const variant of DPO_VARIANTS) {
      const settings = {
        ...needs(variant),
        beta: 0.3,
        variant,
        fDivergence: divergenceOf(variant),
      };

      test(`${variant} sends a gradient to the policy and the NLL only`, () => {
        const constants = {
          refChosenLogprobs: leaf(refChosen),
          refRejectedLogprobs: leaf(refRejected),
          chosenLengths: leaf(pairs.chosenLengths),
          rejectedLengths: leaf(pairs.rejectedLengths),
          weights: leaf([0.25, 0.25, 0.25, 0.25]),
        };
        const live = {
          policyChosenLogprobs: leaf(policyChosen),
          policyRejectedLogprobs: leaf(policyRejected),
          chosenNll: leaf([1, 2, 3, 4]),
        };
        const output = dpoLoss({ ...settings, ...constants, ...live });
        output.loss.sum().backward();
        for (const [name, { grad }] of Object.entries(constants)) assert.equal(grad, null, name);
        for (const [name, values] of Object.entries(live))
          assert.ok(gradientOf(values).abs().sum().item() > 0, name);
        for (const name of ['chosenRewards', 'rejectedRewards', 'cappedExponents'] as const)
          assert.equal(output[name].requiresGrad, false, name);
      });

      if (DPO_VARIANT_TRAITS[variant].couplesBatch) {
        test(`${variant} couples the batch: its halves do not add up to it`, () => {
          const whole = runRows(settings, [0, 1, 2, 3]);
          const halves = [runRows(settings, [0, 2]), runRows(settings, [1, 3])];
          const apart = halves.reduce((total, { sum }) => total + sum, 0);
          assert.ok(Math.abs(whole.sum - apart) > 1e-3, `${whole.sum} and ${apart} are the same`);
        });
        continue;
      }

      test(`${variant}: micro-batches add up, loss and gradient`, () => {
        const whole = runRows(settings, [0, 1, 2, 3]);
        const parts = [runRows(settings, [0]), runRows(settings, [1, 2, 3])];
        expectClose(
          parts.flatMap(({ loss }) => loss),
          whole.loss,
          EXACT,
        );
        expectClose(
          parts.flatMap(({ gradient }) => gradient),
          whole.gradient,
          EXACT,
        );
      });

      test(`${variant} never reads a row of weight 0, forward or backward`, () => {
        const expected = runRows(settings, [0, 1, 2, 3], [0.5, 0, 0.25, 0]);
        for (const junk of JUNK) {
          const dirty = runRows(settings, [0, 1, 2, 3], [0.5, 0, 0.25, 0], junk);
          assert.deepEqual(dirty, expected, `${junk}`);
        }
        assert.deepEqual([expected.loss[1], expected.gradient[3]], [0, 0]);
      });
    }

    test('the loss has the dtype of the log-probabilities, whatever lengths and weights have', () => {
      for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
        for (const other of ['int64', 'bool', 'float32'] as const) {
          if (dtype === 'bfloat16' && other === 'float32') continue; // those two meet in float32
          const { loss, cappedExponents, chosenRewards } = dpoLoss({
            ...typed(dtype),
            chosenLengths: tensor([1, 1, 1, 1], { dtype: other }),
            rejectedLengths: tensor([1, 1, 1, 1], { dtype: other }),
            weights: tensor([1, 1, 1, 0], { dtype: other }),
            beta: 0.1,
            variant: 'ipo',
            fDivergence: 'forward_kl',
          });
          assert.deepEqual(
            [loss.dtype, cappedExponents.dtype, chosenRewards.dtype],
            [dtype, dtype, dtype],
          );
        }
      }
    });
  });

  describe('is finite at ±1e4, value and gradient', () => {
    const extremes = [1e4, -1e4, 0];
    const chosen = extremes.flatMap((x) => extremes.map(() => x));
    const rejected = extremes.flatMap(() => extremes);
    const zeros = chosen.map(() => 0);
    const settings = { labelSmoothing: 0.1, rewardShift: 0.5, beta: 1 };
    for (const { variant, fDivergence } of COMBINATIONS) {
      test(`${variant}, ${fDivergence}`, () => {
        for (const dtype of ['float32', 'float64'] as const) {
          for (const alphaDivergenceCoef of [2, -1, 0.5, 1.004]) {
            const policyChosenLogprobs = tensor(chosen, { dtype, requiresGrad: true });
            const policyRejectedLogprobs = tensor(rejected, { dtype, requiresGrad: true });
            const { loss } = dpoLoss({
              ...settings,
              policyChosenLogprobs,
              policyRejectedLogprobs,
              refChosenLogprobs: tensor(zeros, { dtype }),
              refRejectedLogprobs: tensor(zeros, { dtype }),
              chosenLengths: tensor(chosen.map(() => 1)),
              rejectedLengths: tensor(chosen.map(() => 1)),
              variant,
              fDivergence,
              alphaDivergenceCoef,
            });
            loss.sum().backward();
            for (const values of [
              loss,
              gradientOf(policyChosenLogprobs),
              gradientOf(policyRejectedLogprobs),
            ]) {
              const found = values.toArray() as number[];
              assert.ok(found.every(Number.isFinite), `${dtype}: ${found.join(', ')}`);
            }
          }
        }
      });
    }
    test('and the logistic loss of a hopeless pair is −βΔ, with slope ∓β', () => {
      const policyChosenLogprobs = tensor([-1e4], { requiresGrad: true });
      const { loss } = dpoLoss({
        policyChosenLogprobs,
        policyRejectedLogprobs: tensor([1e4]),
        beta: 0.5,
        variant: 'sigmoid',
        referenceFree: true,
      });
      loss.sum().backward();
      expectClose(loss, [1e4]);
      expectClose(gradientOf(policyChosenLogprobs), [-0.5]);
    });
    test('and a capped score is constant', () => {
      const policyChosenLogprobs = leaf([-100]);
      const { loss } = dpoLoss({
        policyChosenLogprobs,
        policyRejectedLogprobs: f64([0]),
        beta: 1e-34,
        variant: 'sigmoid',
        referenceFree: true,
        fDivergence: 'forward_kl',
      });
      loss.sum().backward();
      expectClose(loss, [logistic(-1e-34 * Math.expm1(80))], EXACT);
      expectClose(gradientOf(policyChosenLogprobs), [0]);
    });
  });
});

/** Something other than the reverse KL wherever that is accepted, so that its path is tested too. */
function divergenceOf(variant: DpoVariant): FDivergence {
  return DPO_VARIANT_TRAITS[variant].acceptsFDivergence ? 'forward_kl' : 'reverse_kl';
}
