import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { lengthsOnly, policyAndReference } from '../../test/golden/algorithms/preferencePairs.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import {
  dpoLoss,
  DPO_VARIANTS,
  F_DIVERGENCES,
  type DpoLossInputs,
  type DpoVariant,
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

/** d/dx of −log σ(x)·(1 − σ(x/τ)) + e⁻ˣ·σ(x/τ). */
function discopopSlope(x: number, tau: number): number {
  const m = sigmoid(x / tau);
  const slope = (m * (1 - m)) / tau;
  return -sigmoid(-x) * (1 - m) - logistic(x) * slope - Math.exp(-x) * m + Math.exp(-x) * slope;
}
