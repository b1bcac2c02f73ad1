/** The formulas of the variants of `dpoLoss`. What they are given is checked and masked there. */
import type { Tensor } from '../torch/index.js';
import type { DpoVariant } from './dpoVariants.js';
import { negLogSigmoid } from './preferencePairs.js';

/** What a formula may read. All tensors are [B]. */
export interface PairTerms {
  /** Nats. c = log π_θ − log π_ref of the chosen completion. */
  readonly chosen: Tensor;
  /** Nats. r, the same of the rejected one. */
  readonly rejected: Tensor;
  /** f′ of the divergence at c and at r: c and r themselves with the reverse KL. */
  readonly chosenScores: Tensor;
  readonly rejectedScores: Tensor;
  /** The scores per token, for the variants that need lengths; for the others the scores. */
  readonly chosenAverages: Tensor;
  readonly rejectedAverages: Tensor;
  /** Nats. log π(chosen) − log π(rejected), of the policy and of the reference. */
  readonly policyMargins: Tensor;
  readonly refMargins: Tensor;
  readonly beta: number;
  readonly labelSmoothing: number;
  readonly discopopTau: number;
  readonly rewardShift: number;
}

/** [B] the loss of each pair; of `aot` and `aot_unpaired` that of each rank. */
export const DPO_OBJECTIVES: Readonly<Record<DpoVariant, (terms: PairTerms) => Tensor>> = {
  sigmoid: (terms) => smoothedLogistic(scaledDelta(terms), terms.labelSmoothing),
  robust: (terms) => {
    const { labelSmoothing } = terms;
    const x = scaledDelta(terms);
    const flipped = negLogSigmoid(x.neg()).mul(labelSmoothing);
    return negLogSigmoid(x)
      .mul(1 - labelSmoothing)
      .sub(flipped)
      .div(1 - 2 * labelSmoothing);
  },
  hinge: (terms) => scaledDelta(terms).neg().add(1).relu(),
  ipo: (terms) =>
    averageDelta(terms)
      .sub(1 / (2 * terms.beta))
      .square(),
  exo_pair: (terms) => {
    const { labelSmoothing } = terms;
    const x = scaledDelta(terms);
    const forChosen = x.sigmoid().mul(x.logSigmoid().sub(Math.log1p(-labelSmoothing)));
    const forRejected = x
      .neg()
      .sigmoid()
      .mul(x.neg().logSigmoid().sub(Math.log(labelSmoothing)));
    return forChosen.add(forRejected);
  },
  nca_pair: ({ chosen, rejected, beta }) => {
    const [better, worse] = [chosen.mul(beta), rejected.mul(beta)];
    const contrast = negLogSigmoid(better.neg()).add(negLogSigmoid(worse.neg()));
    return negLogSigmoid(better).add(contrast.div(2));
  },
  bco_pair: ({ chosen, rejected, beta, rewardShift }) => {
    const [better, worse] = [
      chosen.mul(beta).sub(rewardShift),
      rejected.mul(beta).sub(rewardShift),
    ];
    return negLogSigmoid(better).add(negLogSigmoid(worse.neg()));
  },
  sppo_hard: ({ chosen, rejected, beta }) => {
    const target = 0.5 / beta;
    return chosen.sub(target).square().add(rejected.add(target).square());
  },
  aot: ({ policyMargins, refMargins, beta, labelSmoothing }) =>
    smoothedLogistic(quantileDelta(policyMargins, refMargins).mul(beta), labelSmoothing),
  aot_unpaired: ({ chosen, rejected, beta, labelSmoothing }) =>
    smoothedLogistic(quantileDelta(chosen, rejected).mul(beta), labelSmoothing),
  // 1 − σ(x) as σ(−x), which keeps its digits where σ(x) rounds to 1.
  apo_zero: ({ chosen, rejected, beta }) =>
    chosen.mul(-beta).sigmoid().add(rejected.mul(beta).sigmoid()),
  apo_down: ({ chosen, rejected, beta }) =>
    chosen.mul(beta).sigmoid().add(chosen.sub(rejected).mul(-beta).sigmoid()),
  discopop: (terms) => {
    const x = scaledDelta(terms);
    const modulation = x.div(terms.discopopTau);
    const logistic = negLogSigmoid(x).mul(modulation.neg().sigmoid());
    // σ(x/τ)·e⁻ˣ in one exponential: apart, they are 0·∞ at large negative x.
    return logistic.add(modulation.logSigmoid().sub(x).exp());
  },
  sigmoid_norm: (terms) =>
    smoothedLogistic(averageDelta(terms).mul(terms.beta), terms.labelSmoothing),
};

/** βΔ. */
function scaledDelta({ chosenScores, rejectedScores, beta }: PairTerms): Tensor {
  return chosenScores.sub(rejectedScores).mul(beta);
}

/** Δ̄. */
function averageDelta({ chosenAverages, rejectedAverages }: PairTerms): Tensor {
  return chosenAverages.sub(rejectedAverages);
}

/** The difference of the i-th smallest of both, for every i. */
function quantileDelta(upper: Tensor, lower: Tensor): Tensor {
  return upper.sort(0).values.sub(lower.sort(0).values);
}

/** −(1 − ε)·log σ(x) − ε·log σ(−x). */
function smoothedLogistic(x: Tensor, labelSmoothing: number): Tensor {
  if (labelSmoothing === 0) return negLogSigmoid(x);
  return negLogSigmoid(x)
    .mul(1 - labelSmoothing)
    .add(negLogSigmoid(x.neg()).mul(labelSmoothing));
}
