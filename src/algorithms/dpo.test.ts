import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  EXACT,
  f64,
  goldenCases,
  gradientOf,
  JUNK,
  leaf,
} from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor, type Dtype, type Tensor } from '../torch/index.js';
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

type Settings = Omit<
  DpoLossInputs,
  | 'policyChosenLogprobs'
  | 'policyRejectedLogprobs'
  | 'refChosenLogprobs'
  | 'refRejectedLogprobs'
  | 'chosenLengths'
  | 'rejectedLengths'
  | 'weights'
  | 'chosenNll'
>;

interface GoldenCase {
  name: string;
  settings: Settings;
  policyChosenLogprobs: number[];
  policyRejectedLogprobs: number[];
  refChosenLogprobs?: number[];
  refRejectedLogprobs?: number[];
  chosenLengths: number[];
  rejectedLengths: number[];
  weights?: number[];
  chosenNll?: number[];
  expected: { loss: number[]; gradChosen: number[]; gradRejected: number[]; gradNll: number[] };
}

interface TrlCase extends Omit<GoldenCase, 'settings' | 'expected'> {
  settings: {
    loss_type: DpoVariant;
    beta: number;
    label_smoothing?: number;
    discopop_tau?: number;
    f_divergence_type?: DpoLossInputs['fDivergence'];
    f_alpha_divergence_coef?: number;
  };
  precision: 'float64' | 'float32';
  expected: {
    meanLoss: number;
    loss: number[] | null;
    gradChosen: number[];
    gradRejected: number[];
    meanChosenReward: number;
    meanRejectedReward: number;
  };
}

const optional = (values: number[] | undefined) => (values ? f64(values) : undefined);

/** The tensors of a golden case. Only the policy and the NLL collect a gradient. */
function tensorsOf(c: Omit<GoldenCase, 'settings' | 'expected' | 'name'>) {
  return {
    policyChosenLogprobs: leaf(c.policyChosenLogprobs),
    policyRejectedLogprobs: leaf(c.policyRejectedLogprobs),
    refChosenLogprobs: optional(c.refChosenLogprobs),
    refRejectedLogprobs: optional(c.refRejectedLogprobs),
    chosenLengths: tensor(c.chosenLengths, { dtype: 'int64' }),
    rejectedLengths: tensor(c.rejectedLengths, { dtype: 'int64' }),
    weights: optional(c.weights),
    chosenNll: c.chosenNll && leaf(c.chosenNll),
  };
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const logistic = (x: number) => Math.log1p(Math.exp(-x));

/** One pair with c = 2 and r = −1, β = ½: value, d/dc and d/dr. */
function onePair(variant: DpoVariant, settings: Partial<DpoLossInputs> = {}): number[] {
  const policyChosenLogprobs = leaf([-8]);
  const policyRejectedLogprobs = leaf([-13]);
  const { loss } = dpoLoss({
    policyChosenLogprobs,
    policyRejectedLogprobs,
    refChosenLogprobs: f64([-10]),
    refRejectedLogprobs: f64([-12]),
    chosenLengths: f64([4]),
    rejectedLengths: f64([2]),
    beta: 0.5,
    variant,
    ...settings,
  });
  loss.sum().backward();
  const gradients = [policyChosenLogprobs, policyRejectedLogprobs].map((x) => gradientOf(x).item());
  return [loss.item(), ...gradients];
}

/** What a variant must be given. */
function needs(variant: DpoVariant): { labelSmoothing?: number } {
  return DPO_VARIANT_TRAITS[variant].labelSmoothing === 'required' ? { labelSmoothing: 0.1 } : {};
}

const policyChosen = [-10, -22, -7, -15];
const policyRejected = [-12, -21, -9, -11];
const refChosen = [-11, -20, -8, -14];
const refRejected = [-11.5, -23, -9.5, -12];
const rows = {
  policyChosenLogprobs: policyChosen,
  policyRejectedLogprobs: policyRejected,
  refChosenLogprobs: refChosen,
  refRejectedLogprobs: refRejected,
  chosenLengths: [4, 7, 2, 5],
  rejectedLengths: [6, 3, 8, 1],
};
/** Every pair that a variant may make with a divergence. */
const COMBINATIONS = DPO_VARIANTS.flatMap((variant) =>
  F_DIVERGENCES.filter(
    (divergence) => divergence === 'reverse_kl' || DPO_VARIANT_TRAITS[variant].acceptsFDivergence,
  ).map((fDivergence) => ({ variant, fDivergence })),
);

describe('dpoLoss', () => {
  describe('matches TRL 1.13', () => {
    for (const c of goldenCases<TrlCase>('trl_dpo.json')) {
      const { settings, expected } = c;
      test(`${c.name}: loss, gradients and rewards`, () => {
        // What TRL computes in float32 is compared in float64, so that all of the difference is TRL's rounding.
        const tolerance = c.precision === 'float64' ? EXACT : { rtol: 2e-5, atol: 1e-7 };
        const tensors = tensorsOf(c);
        const { loss, chosenRewards, rejectedRewards } = dpoLoss({
          ...tensors,
          variant: settings.loss_type,
          beta: settings.beta,
          labelSmoothing: settings.label_smoothing,
          discopopTau: settings.discopop_tau,
          fDivergence: settings.f_divergence_type,
          alphaDivergenceCoef: settings.f_alpha_divergence_coef,
        });
        loss.mean().backward();
        expectClose(loss.mean(), expected.meanLoss, tolerance);
        if (expected.loss) expectClose(loss, expected.loss, tolerance);
        expectClose(gradientOf(tensors.policyChosenLogprobs), expected.gradChosen, tolerance);
        expectClose(gradientOf(tensors.policyRejectedLogprobs), expected.gradRejected, tolerance);
        expectClose(chosenRewards.mean(), expected.meanChosenReward, tolerance);
        expectClose(rejectedRewards.mean(), expected.meanRejectedReward, tolerance);
      });
    }
  });

  describe('matches the formulas where TRL has none or another', () => {
    for (const { name, settings, expected, ...c } of goldenCases<GoldenCase>('preferences.json')) {
      test(`${name}: loss and gradients`, () => {
        const tensors = tensorsOf(c);
        const { loss } = dpoLoss({ ...tensors, ...settings });
        loss.sum().backward();
        expectClose(loss, expected.loss, EXACT);
        expectClose(gradientOf(tensors.policyChosenLogprobs), expected.gradChosen, EXACT);
        expectClose(gradientOf(tensors.policyRejectedLogprobs), expected.gradRejected, EXACT);
        if (tensors.chosenNll) expectClose(gradientOf(tensors.chosenNll), expected.gradNll, EXACT);
      });
    }
  });

  describe('by hand', () => {
    // c = 2, r = −1, β = ½: βΔ = 1.5, βc = 1, βr = −½; 4 and 2 tokens: Δ̄ = ½ + ½ = 1.
    const s = sigmoid(1.5);
    const byHand: Record<DpoVariant, [number[], Partial<DpoLossInputs>?]> = {
      sigmoid: [[logistic(1.5), -0.5 * (1 - s), 0.5 * (1 - s)]],
      // ((0.8)·l(1.5) − 0.2·l(−1.5))/0.6; slope (−0.8·(1 − s) − 0.2·s)/0.6·β.
      robust: [
        [
          (0.8 * logistic(1.5) - 0.2 * logistic(-1.5)) / 0.6,
          ((-0.8 * (1 - s) - 0.2 * s) / 0.6) * 0.5,
          ((0.8 * (1 - s) + 0.2 * s) / 0.6) * 0.5,
        ],
        { labelSmoothing: 0.2 },
      ],
      hinge: [[0, 0, 0]], // the margin of 1.5 is above 1
      ipo: [[0.25, (2 * 0.5) / 4, (-2 * 0.5) / 2], { beta: 1 }], // (1 − ½)², by tokens
      // KL between (s, 1 − s) and (0.9, 0.1).
      exo_pair: [
        [
          s * Math.log(s / 0.9) + (1 - s) * Math.log((1 - s) / 0.1),
          0.5 * s * (1 - s) * (Math.log(s / 0.9) - Math.log((1 - s) / 0.1)),
          -0.5 * s * (1 - s) * (Math.log(s / 0.9) - Math.log((1 - s) / 0.1)),
        ],
        { labelSmoothing: 0.1 },
      ],
      nca_pair: [
        [
          logistic(1) + 0.5 * logistic(-1) + 0.5 * logistic(0.5),
          0.5 * (-(1 - sigmoid(1)) + 0.5 * sigmoid(1)),
          0.5 * 0.5 * sigmoid(-0.5),
        ],
      ],
      bco_pair: [
        [logistic(0.75) + logistic(0.75), -0.5 * sigmoid(-0.75), 0.5 * sigmoid(-0.75)],
        { rewardShift: 0.25 },
      ],
      sppo_hard: [[1, 2, 0]], // (2 − 1)² + (−1 + 1)²
      aot: [[logistic(1.5), -0.5 * (1 - s), 0.5 * (1 - s)]], // one pair: nothing to sort
      aot_unpaired: [[logistic(1.5), -0.5 * (1 - s), 0.5 * (1 - s)]],
      apo_zero: [
        [
          1 - sigmoid(1) + sigmoid(-0.5),
          -0.5 * sigmoid(1) * sigmoid(-1),
          0.5 * sigmoid(0.5) * sigmoid(-0.5),
        ],
      ],
      apo_down: [
        [sigmoid(1) + 1 - s, 0.5 * sigmoid(1) * sigmoid(-1) - 0.5 * s * (1 - s), 0.5 * s * (1 - s)],
      ],
      discopop: [
        [
          logistic(1.5) * (1 - sigmoid(3)) + Math.exp(-1.5) * sigmoid(3),
          0.5 * discopopSlope(1.5, 0.5),
          -0.5 * discopopSlope(1.5, 0.5),
        ],
        { discopopTau: 0.5 },
      ],
      sigmoid_norm: [
        [logistic(0.5), (-0.5 * (1 - sigmoid(0.5))) / 4, (0.5 * (1 - sigmoid(0.5))) / 2],
      ],
    };
    for (const variant of DPO_VARIANTS) {
      const [expected, settings] = byHand[variant];
      test(`${variant}: value and both slopes of one pair`, () => {
        expectClose(onePair(variant, settings), expected, EXACT);
      });
    }
    test('hinge below its margin is linear', () => {
      // β = 0.1: 1 − 0.3 and the slope ∓β.
      expectClose(onePair('hinge', { beta: 0.1 }), [0.7, -0.1, 0.1], EXACT);
    });
    test('aot compares quantiles: a reference that is merely permuted costs nothing', () => {
      // Policy margins 3, −1, 1; those of the reference 1, 3, −1: sorted alike, so Δ = 0 in each row.
      const { loss } = dpoLoss({
        policyChosenLogprobs: f64([3, -1, 1]),
        policyRejectedLogprobs: f64([0, 0, 0]),
        refChosenLogprobs: f64([1, 3, -1]),
        refRejectedLogprobs: f64([0, 0, 0]),
        beta: 0.7,
        variant: 'aot',
      });
      expectClose(loss, [Math.LN2, Math.LN2, Math.LN2], EXACT);
    });
    test('aot_unpaired matches the best chosen with the best rejected', () => {
      // c = (2, 0), r = (3, −1): sorted (0, 2) and (−1, 3), Δ = (1, −1); row 0 is the smallest.
      const policyChosenLogprobs = leaf([2, 0]);
      const { loss } = dpoLoss({
        policyChosenLogprobs,
        policyRejectedLogprobs: f64([3, -1]),
        refChosenLogprobs: f64([0, 0]),
        refRejectedLogprobs: f64([0, 0]),
        beta: 1,
        variant: 'aot_unpaired',
      });
      loss.sum().backward();
      expectClose(loss, [logistic(1), logistic(-1)], EXACT);
      expectClose(gradientOf(policyChosenLogprobs), [-sigmoid(1), -sigmoid(-1)], EXACT);
    });
    test('forward_kl: 1 − 1/u at u = e² and e⁻¹', () => {
      const x = 0.5 * (1 - Math.exp(-2) - (1 - Math.exp(1)));
      const slope = 0.5 * sigmoid(-x);
      expectClose(
        onePair('sigmoid', { fDivergence: 'forward_kl' }),
        [logistic(x), -slope * Math.exp(-2), slope * Math.exp(1)],
        EXACT,
      );
    });
    test('the rewards are βc and βr', () => {
      const { chosenRewards, rejectedRewards } = dpoLoss({
        ...policyAndReference(),
        beta: 0.5,
        variant: 'sigmoid',
      });
      expectClose(chosenRewards, [0.5, -1, 0.5, -0.5], EXACT);
      expectClose(rejectedRewards, [-0.25, 1, 0.25, 0.5], EXACT);
    });
  });

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
      for (const near of [1e-9, -1e-9]) {
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
          chosenLengths: leaf(rows.chosenLengths),
          rejectedLengths: leaf(rows.rejectedLengths),
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

  describe('rejects', () => {
    const valid = () => ({ ...policyAndReference(), beta: 0.1, variant: 'sigmoid' as const });
    const cases: [string, Partial<Record<keyof DpoLossInputs, unknown>>, string][] = [
      ['a β of 0', { beta: 0 }, 'expected beta to be a positive number, received 0.'],
      [
        'an unknown variant',
        { variant: 'toString' },
        `expected variant to be one of ${DPO_VARIANTS.join(', ')}, received "toString".`,
      ],
      [
        'an unknown divergence',
        { fDivergence: 'js' },
        `expected fDivergence to be one of ${F_DIVERGENCES.join(', ')}, received "js".`,
      ],
      [
        'α-divergence without α',
        { fDivergence: 'alpha_divergence' },
        'expected alphaDivergenceCoef to be a finite number with alpha_divergence, received none.',
      ],
      [
        'an infinite α',
        { fDivergence: 'alpha_divergence', alphaDivergenceCoef: Infinity },
        'expected alphaDivergenceCoef to be a finite number with alpha_divergence, received Infinity.',
      ],
      [
        'a divergence that the variant has no form for',
        { variant: 'apo_zero', fDivergence: 'forward_kl' },
        'expected fDivergence to be reverse_kl with the variant apo_zero, received forward_kl.',
      ],
      [
        'label smoothing of ½',
        { labelSmoothing: 0.5 },
        'expected labelSmoothing to be at least 0 and below 0.5, received 0.5.',
      ],
      [
        'negative label smoothing',
        { labelSmoothing: -0.1 },
        'expected labelSmoothing to be at least 0 and below 0.5, received -0.1.',
      ],
      [
        'exo_pair without label smoothing',
        { variant: 'exo_pair' },
        'expected labelSmoothing above 0 with the variant exo_pair, received 0.',
      ],
      [
        'a τ above 1',
        { discopopTau: 1.5 },
        'expected discopopTau to be above 0 and at most 1, received 1.5.',
      ],
      [
        'a τ of 0',
        { discopopTau: 0 },
        'expected discopopTau to be above 0 and at most 1, received 0.',
      ],
      [
        'a shift that is not a number',
        { rewardShift: NaN },
        'expected rewardShift to be a finite number, received NaN.',
      ],
      [
        'ipo without lengths',
        { variant: 'ipo' },
        'expected chosenLengths with the variant ipo, received none.',
      ],
      [
        'sigmoid_norm without the lengths of the rejected ones',
        { variant: 'sigmoid_norm', chosenLengths: f64([1, 1, 1, 1]) },
        'expected rejectedLengths with the variant sigmoid_norm, received none.',
      ],
      [
        'an empty completion',
        { ...lengthsOnly(), variant: 'ipo', rejectedLengths: f64([1, 2, 0, 1]) },
        'expected rejectedLengths to be positive, received 0 in row 2.',
      ],
      [
        'a missing reference',
        { refRejectedLogprobs: undefined },
        'expected refRejectedLogprobs unless referenceFree is true, received none.',
      ],
      [
        'both references missing',
        { refChosenLogprobs: undefined, refRejectedLogprobs: undefined },
        'expected refChosenLogprobs unless referenceFree is true, received none.',
      ],
      [
        'a reference with referenceFree',
        { referenceFree: true },
        'expected no log-probabilities of a reference with referenceFree, received some.',
      ],
      [
        'an nllCoef without the NLL',
        { nllCoef: 0.5 },
        'expected chosenNll with nllCoef 0.5, received none.',
      ],
      [
        'a negative nllCoef',
        { nllCoef: -1, chosenNll: f64([1, 1, 1, 1]) },
        'expected nllCoef to be a finite number of at least 0, received -1.',
      ],
      [
        'weights per pair where the batch is sorted',
        { variant: 'aot', weights: f64([0.5, 0.5, 0.25, 0.5]) },
        'expected equal weights above 0 with the variant aot, received 0.5 in row 0 and 0.25 in row 2.',
      ],
      [
        'weights of 0 where the batch is sorted',
        { variant: 'aot_unpaired', weights: f64([0, 0, 0, 0]) },
        'expected equal weights above 0 with the variant aot_unpaired, received 0 in row 0 and 0 in row 0.',
      ],
    ];
    for (const [name, change, message] of cases) {
      test(name, () => {
        assert.throws(
          () => dpoLoss({ ...valid(), ...change } as DpoLossInputs),
          (error) => {
            assert.ok(error instanceof ValueRangeError, `${String(error)} has another class`);
            assert.equal(error.message, `dpoLoss: ${message}`);
            return true;
          },
        );
      });
    }
    test('shapes that differ, of every input', () => {
      const wrong = f64([1, 2]);
      for (const name of [
        'policyRejectedLogprobs',
        'refChosenLogprobs',
        'refRejectedLogprobs',
        'chosenLengths',
        'rejectedLengths',
        'weights',
        'chosenNll',
      ] as const) {
        assert.throws(
          () => dpoLoss({ ...valid(), [name]: wrong }),
          new ShapeError(
            `dpoLoss: expected ${name} to have shape [B] = [4] like policyChosenLogprobs, received [2].`,
          ),
        );
      }
      assert.throws(
        () => dpoLoss({ ...valid(), policyChosenLogprobs: f64([[1]]) }),
        new ShapeError(
          'dpoLoss: expected policyChosenLogprobs to have shape [B], received [1, 1].',
        ),
      );
    });
  });
});

describe('DPO_VARIANT_TRAITS', () => {
  const withTrait = (holds: (variant: DpoVariant) => boolean) => DPO_VARIANTS.filter(holds);
  test('lists every variant, in the order of the names', () => {
    assert.deepEqual(Object.keys(DPO_VARIANT_TRAITS), [...DPO_VARIANTS]);
  });
  test('an f-divergence is accepted where TRL 1.13 accepts one', () => {
    assert.deepEqual(
      withTrait((variant) => DPO_VARIANT_TRAITS[variant].acceptsFDivergence).toSorted(),
      ['discopop', 'exo_pair', 'hinge', 'ipo', 'robust', 'sigmoid', 'sigmoid_norm'],
    );
  });
  test('the batch is coupled where a pair alone gives another loss than within the batch', () => {
    const differs = withTrait((variant) => {
      const settings = { ...needs(variant), beta: 0.3, variant };
      const whole = runRows(settings, [0, 1, 2, 3]).loss;
      const alone = [0, 1, 2, 3].flatMap((row) => runRows(settings, [row]).loss);
      return alone.some((loss, row) => Math.abs(loss - (whole[row] ?? NaN)) > 1e-9);
    });
    assert.deepEqual(
      withTrait((variant) => DPO_VARIANT_TRAITS[variant].couplesBatch),
      differs,
    );
  });
  test('lengths are needed where they change the loss', () => {
    const differs = withTrait((variant) => {
      const settings = { ...needs(variant), beta: 0.3, variant };
      const twice = { chosenLengths: f64([8, 14, 4, 10]) };
      const [one, other] = [lengthsOnly(), { ...lengthsOnly(), ...twice }].map(
        (lengths) => dpoLoss({ ...policyAndReference(), ...lengths, ...settings }).loss,
      );
      return !one?.equal(other as Tensor);
    });
    assert.deepEqual(
      withTrait((variant) => DPO_VARIANT_TRAITS[variant].needsLengths),
      differs,
    );
  });
  test('label smoothing is unused where it changes nothing', () => {
    const same = withTrait((variant) => {
      const settings = { ...policyAndReference(), ...lengthsOnly(), beta: 0.3, variant };
      const [one, other] = [0.1, 0.2].map(
        (labelSmoothing) => dpoLoss({ ...settings, labelSmoothing }).loss,
      );
      return one?.equal(other as Tensor) ?? false;
    });
    assert.deepEqual(
      withTrait((variant) => DPO_VARIANT_TRAITS[variant].labelSmoothing === 'unused'),
      same,
    );
  });
});

/** d/dx of −log σ(x)·(1 − σ(x/τ)) + e⁻ˣ·σ(x/τ). */
function discopopSlope(x: number, tau: number): number {
  const m = sigmoid(x / tau);
  const slope = (m * (1 - m)) / tau;
  return -sigmoid(-x) * (1 - m) - logistic(x) * slope - Math.exp(-x) * m + Math.exp(-x) * slope;
}

/** Something other than the reverse KL wherever that is accepted, so that its path is tested too. */
function divergenceOf(variant: DpoVariant): FDivergence {
  return DPO_VARIANT_TRAITS[variant].acceptsFDivergence ? 'forward_kl' : 'reverse_kl';
}

function policyAndReference() {
  return {
    policyChosenLogprobs: f64(policyChosen),
    policyRejectedLogprobs: f64(policyRejected),
    refChosenLogprobs: f64(refChosen),
    refRejectedLogprobs: f64(refRejected),
  };
}

/** The same pairs with the other one chosen. */
function flipped() {
  return {
    policyChosenLogprobs: f64(policyRejected),
    policyRejectedLogprobs: f64(policyChosen),
    refChosenLogprobs: f64(refRejected),
    refRejectedLogprobs: f64(refChosen),
  };
}

function lengthsOnly() {
  return { chosenLengths: f64(rows.chosenLengths), rejectedLengths: f64(rows.rejectedLengths) };
}

function typed(dtype: Dtype) {
  return {
    policyChosenLogprobs: tensor(policyChosen, { dtype }),
    policyRejectedLogprobs: tensor(policyRejected, { dtype }),
    refChosenLogprobs: tensor(refChosen, { dtype }),
    refRejectedLogprobs: tensor(refRejected, { dtype }),
  };
}

/** These rows of the batch, with `junk` in all inputs where the weight is 0. The gradient is [chosen, rejected] per row. */
function runRows(
  settings: Pick<DpoLossInputs, 'beta' | 'variant' | 'labelSmoothing' | 'fDivergence'>,
  indices: number[],
  weights?: number[],
  junk?: number,
) {
  const pick = (values: number[], sign = 1) =>
    indices.map((row) =>
      junk !== undefined && weights?.[row] === 0 ? sign * junk : (values[row] ?? NaN),
    );
  const policyChosenLogprobs = leaf(pick(rows.policyChosenLogprobs));
  const policyRejectedLogprobs = leaf(pick(rows.policyRejectedLogprobs, -1));
  const { loss } = dpoLoss({
    ...settings,
    policyChosenLogprobs,
    policyRejectedLogprobs,
    refChosenLogprobs: f64(pick(rows.refChosenLogprobs, -1)),
    refRejectedLogprobs: f64(pick(rows.refRejectedLogprobs)),
    chosenLengths: f64(pick(rows.chosenLengths)),
    rejectedLengths: f64(pick(rows.rejectedLengths)),
    chosenNll: f64(pick([0.5, 1, 1.5, 2])),
    weights: weights && f64(weights),
  });
  loss.sum().backward();
  const [chosen, rejected] = [policyChosenLogprobs, policyRejectedLogprobs].map(
    (values) => gradientOf(values).toArray() as number[],
  );
  return {
    loss: loss.toArray() as number[],
    sum: loss.sum().item(),
    gradient: indices.flatMap((_, i) => [chosen?.[i] ?? NaN, rejected?.[i] ?? NaN]),
  };
}
