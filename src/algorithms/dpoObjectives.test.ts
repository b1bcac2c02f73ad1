import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { f64, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { tidy, type Tensor } from '../torch/index.js';
import { DPO_OBJECTIVES, type PairTerms } from './dpoObjectives.js';
import { DPO_VARIANTS, type DpoVariant } from './index.js';

/** Log-ratios to the reference of three pairs, nats; nothing is symmetric. */
const C = [0.9, -1.7, 0.2];
const R = [-0.4, 0.6, 1.3];
const LENGTHS = [
  [3, 5],
  [2, 7],
  [4, 1],
] as const;
const [BETA, EPSILON, TAU, DELTA] = [0.7, 0.15, 0.4, 0.25];

const logSigmoid = (x: number): number => -Math.log1p(Math.exp(-x));
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const smoothed = (x: number): number => -(1 - EPSILON) * logSigmoid(x) - EPSILON * logSigmoid(-x);
const ascending = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);

/** The loss of one pair as the papers write it, with plain numbers; c̄ and r̄ are per token. */
const WRITTEN: Partial<
  Record<DpoVariant, (c: number, r: number, mean: { c: number; r: number }) => number>
> = {
  sigmoid: (c, r) => smoothed(BETA * (c - r)),
  robust: (c, r) => {
    const x = BETA * (c - r);
    return ((1 - EPSILON) * -logSigmoid(x) - EPSILON * -logSigmoid(-x)) / (1 - 2 * EPSILON);
  },
  hinge: (c, r) => Math.max(0, 1 - BETA * (c - r)),
  ipo: (_c, _r, mean) => (mean.c - mean.r - 1 / (2 * BETA)) ** 2,
  exo_pair: (c, r) => {
    const p = sigmoid(BETA * (c - r));
    return p * Math.log(p / (1 - EPSILON)) + (1 - p) * Math.log((1 - p) / EPSILON);
  },
  nca_pair: (c, r) =>
    -logSigmoid(BETA * c) - 0.5 * logSigmoid(-BETA * c) - 0.5 * logSigmoid(-BETA * r),
  bco_pair: (c, r) => -logSigmoid(BETA * c - DELTA) - logSigmoid(-(BETA * r - DELTA)),
  sppo_hard: (c, r) => (c - 0.5 / BETA) ** 2 + (r + 0.5 / BETA) ** 2,
  apo_zero: (c, r) => 1 - sigmoid(BETA * c) + sigmoid(BETA * r),
  apo_down: (c, r) => sigmoid(BETA * c) + 1 - sigmoid(BETA * (c - r)),
  discopop: (c, r) => {
    const x = BETA * (c - r);
    const gate = sigmoid(x / TAU);
    return -logSigmoid(x) * (1 - gate) + Math.exp(-x) * gate;
  },
  sigmoid_norm: (_c, _r, mean) => smoothed(BETA * (mean.c - mean.r)),
};

/** The losses of the pairs, those that couple them included. */
function written(variant: DpoVariant, c: readonly number[], r: readonly number[]): number[] {
  if (variant === 'aot' || variant === 'aot_unpaired') {
    // log π of the reference is REF; the margins of the policy are those of c − r on top.
    const upper = variant === 'aot' ? c.map((one, i) => one - (r[i] ?? NaN) + (REF[i] ?? NaN)) : c;
    const lower = ascending(variant === 'aot' ? REF : r);
    return ascending(upper).map((value, i) => smoothed(BETA * (value - (lower[i] ?? NaN))));
  }
  const formula = WRITTEN[variant] ?? assert.fail(variant);
  return c.map((one, i) => {
    const [ofChosen = NaN, ofRejected = NaN] = LENGTHS[i] ?? [];
    const other = r[i] ?? NaN;
    return formula(one, other, { c: one / ofChosen, r: other / ofRejected });
  });
}
/** Margins of the reference. */
const REF = [0.3, -0.8, 1.9];

function termsOf(chosen: Tensor, rejected: Tensor): PairTerms {
  const [ofChosen, ofRejected] = [0, 1].map((side) =>
    f64(LENGTHS.map((both) => both[side] ?? NaN)),
  );
  const refMargins = f64(REF);
  return {
    ...{ chosen, rejected, chosenScores: chosen, rejectedScores: rejected },
    chosenAverages: chosen.div(ofChosen ?? NaN),
    rejectedAverages: rejected.div(ofRejected ?? NaN),
    ...{ policyMargins: chosen.sub(rejected).add(refMargins), refMargins },
    ...{ beta: BETA, labelSmoothing: EPSILON, discopopTau: TAU, rewardShift: DELTA },
  };
}

describe('DPO_OBJECTIVES', () => {
  for (const variant of DPO_VARIANTS) {
    test(`${variant}: the loss of every pair as it is written`, () => {
      const loss = tidy(() => ({
        values: Array.from(DPO_OBJECTIVES[variant](termsOf(f64(C), f64(R))).toTypedArray(), Number),
      }));
      expectClose(loss.values, written(variant, C, R), { rtol: 1e-12 });
    });

    test(`${variant}: the gradient is that of the written loss, by differences`, () => {
      const found = tidy(() => {
        const [chosen, rejected] = [leaf(C), leaf(R)];
        DPO_OBJECTIVES[variant](termsOf(chosen, rejected)).sum().backward();
        const numbers = [chosen, rejected].map((of) =>
          Array.from(gradientOf(of).toTypedArray(), Number),
        );
        return { numbers };
      }).numbers;
      const h = 1e-4;
      const total = (c: readonly number[], r: readonly number[]): number =>
        written(variant, c, r).reduce((sum, value) => sum + value, 0);
      const slope = (of: (shift: number) => number): number =>
        (8 * (of(h) - of(-h)) - (of(2 * h) - of(-2 * h))) / (12 * h);
      const shifted = (values: readonly number[], at: number, by: number): number[] =>
        values.map((value, i) => (i === at ? value + by : value));
      const expected = [
        C.map((_, i) => slope((by) => total(shifted(C, i, by), R))),
        R.map((_, i) => slope((by) => total(C, shifted(R, i, by)))),
      ];
      expectClose(found, expected, { rtol: 1e-8, atol: 1e-10 });
    });
  }

  test('every variant has a formula', () => {
    assert.deepEqual(Object.keys(DPO_OBJECTIVES).sort(), [...DPO_VARIANTS].sort());
  });
});
