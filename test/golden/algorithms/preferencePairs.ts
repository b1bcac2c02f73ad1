/** Four pairs of completions that tests of preference losses share, and the calls that the tests of `dpoLoss` make. */
import {
  dpoLoss,
  DPO_VARIANT_TRAITS,
  type DpoLossInputs,
  type DpoVariant,
} from '../../../src/algorithms/index.js';
import { tensor, type Dtype } from '../../../src/torch/index.js';
import { f64, gradientOf, leaf } from './golden.js';

/** What a variant must be given. */
export function needs(variant: DpoVariant): { labelSmoothing?: number } {
  return DPO_VARIANT_TRAITS[variant].labelSmoothing === 'required' ? { labelSmoothing: 0.1 } : {};
}

export const policyChosen = [-10, -22, -7, -15];
export const policyRejected = [-12, -21, -9, -11];
export const refChosen = [-11, -20, -8, -14];
export const refRejected = [-11.5, -23, -9.5, -12];
export const pairs = {
  policyChosenLogprobs: policyChosen,
  policyRejectedLogprobs: policyRejected,
  refChosenLogprobs: refChosen,
  refRejectedLogprobs: refRejected,
  chosenLengths: [4, 7, 2, 5],
  rejectedLengths: [6, 3, 8, 1],
};
export function policyAndReference() {
  return {
    policyChosenLogprobs: f64(policyChosen),
    policyRejectedLogprobs: f64(policyRejected),
    refChosenLogprobs: f64(refChosen),
    refRejectedLogprobs: f64(refRejected),
  };
}

/** The same pairs with the other one chosen. */
export function flipped() {
  return {
    policyChosenLogprobs: f64(policyRejected),
    policyRejectedLogprobs: f64(policyChosen),
    refChosenLogprobs: f64(refRejected),
    refRejectedLogprobs: f64(refChosen),
  };
}

export function lengthsOnly() {
  return { chosenLengths: f64(pairs.chosenLengths), rejectedLengths: f64(pairs.rejectedLengths) };
}

export function typed(dtype: Dtype) {
  return {
    policyChosenLogprobs: tensor(policyChosen, { dtype }),
    policyRejectedLogprobs: tensor(policyRejected, { dtype }),
    refChosenLogprobs: tensor(refChosen, { dtype }),
    refRejectedLogprobs: tensor(refRejected, { dtype }),
  };
}

/** These rows of the batch, with `junk` in all inputs where the weight is 0. The gradient is [chosen, rejected] per row. */
export function runRows(
  settings: Pick<DpoLossInputs, 'beta' | 'variant' | 'labelSmoothing' | 'fDivergence'>,
  indices: number[],
  weights?: number[],
  junk?: number,
) {
  const pick = (values: number[], sign = 1) =>
    indices.map((row) =>
      junk !== undefined && weights?.[row] === 0 ? sign * junk : (values[row] ?? NaN),
    );
  const policyChosenLogprobs = leaf(pick(pairs.policyChosenLogprobs));
  const policyRejectedLogprobs = leaf(pick(pairs.policyRejectedLogprobs, -1));
  const { loss } = dpoLoss({
    ...settings,
    policyChosenLogprobs,
    policyRejectedLogprobs,
    refChosenLogprobs: f64(pick(pairs.refChosenLogprobs, -1)),
    refRejectedLogprobs: f64(pick(pairs.refRejectedLogprobs)),
    chosenLengths: f64(pick(pairs.chosenLengths)),
    rejectedLengths: f64(pick(pairs.rejectedLengths)),
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
