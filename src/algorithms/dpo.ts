/** Direct preference optimisation and its family: losses on pairs of completions, without a reward model. */
import { ValueRangeError } from '../errors/index.js';
import { assertPositive, assertSameShape, zerosLike, type Tensor } from '../torch/index.js';
import { DPO_OBJECTIVES, type PairTerms } from './dpoObjectives.js';
import {
  DPO_VARIANTS,
  DPO_VARIANT_TRAITS,
  type DpoVariant,
  type DpoVariantTraits,
} from './dpoVariants.js';
import { divergenceScores, type FDivergence } from './fDivergences.js';
import { toHost } from './hostValues.js';
import { addNll, rowsOf, type PreferenceLossOutput, type Rows } from './preferencePairs.js';

/** What `dpoLoss` reads. A setting that the variant does not use is not read. */
export interface DpoLossInputs {
  /** [B] nats. log π_θ of the whole chosen completions, from `sequenceLogprob`. A gradient flows through. */
  readonly policyChosenLogprobs: Tensor;
  /** [B] nats. The same of the rejected completions. A gradient flows through. */
  readonly policyRejectedLogprobs: Tensor;
  /** [B] nats. The chosen completions under the frozen reference. Constant. Needed unless referenceFree. */
  readonly refChosenLogprobs?: Tensor | undefined;
  /** [B] nats. The rejected completions under the frozen reference. Constant. Needed unless referenceFree. */
  readonly refRejectedLogprobs?: Tensor | undefined;
  /** β > 0: the scale of the implicit reward, the τ of IPO. */
  readonly beta: number;
  /** Which loss. */
  readonly variant: DpoVariant;
  /** ε in [0, ½): the probability that a label is wrong. 0 when omitted. `DPO_VARIANT_TRAITS` says who reads it. */
  readonly labelSmoothing?: number | undefined;
  /** [B] tokens of the chosen completions. Constant. Needed by `ipo` and `sigmoid_norm`. */
  readonly chosenLengths?: Tensor | undefined;
  /** [B] tokens of the rejected completions. Constant. */
  readonly rejectedLengths?: Tensor | undefined;
  /** The divergence to the reference. `reverse_kl` when omitted; `DPO_VARIANT_TRAITS` says who accepts another. */
  readonly fDivergence?: FDivergence | undefined;
  /** α of `alpha_divergence`, which needs it. */
  readonly alphaDivergenceCoef?: number | undefined;
  /** τ in (0, 1] of `discopop`. 0.05 when omitted. */
  readonly discopopTau?: number | undefined;
  /** δ of `bco_pair`: the running mean of the rewards βc and βr. 0 when omitted. */
  readonly rewardShift?: number | undefined;
  /**
   * [B] wᵢ: row i of the loss is multiplied by it, so that the rows add up to the weighted sum. 1/B over the minibatch
   * gives the mean. A row with weight 0 is never read. All equal in `aot` and `aot_unpaired`. Constant; 1 when omitted.
   */
  readonly weights?: Tensor | undefined;
  /** Takes the reference as uniform: the log-ratios are the log-probabilities. false when omitted. */
  readonly referenceFree?: boolean | undefined;
  /** [B] nats. −log π_θ of the chosen completions, as sum or mean over tokens. A gradient flows through. */
  readonly chosenNll?: Tensor | undefined;
  /** At least 0. 1 when omitted, and chosenNll is given. */
  readonly nllCoef?: number | undefined;
}

/** What `dpoLoss` returns. */
export interface DpoLossOutput extends PreferenceLossOutput {
  /** [B] how many of the pair's two exponents were capped, 0 to 2, in `forward_kl` and `alpha_divergence`. A count. */
  readonly cappedExponents: Tensor;
}

/** e⁸⁰ ≈ 5.5e34: the largest score of an f-divergence that float32 holds with room for β. TRL caps its α form here. */
const MAX_EXPONENT = 80;

/** IPO squares the score: e⁸⁰ squared is ∞ in float32. */
const MAX_SQUARED_EXPONENT = 36;

/**
 * The loss of each pair in one of the variants, with the log-ratios to the reference
 *
 *     c = log π_θ(chosen) − log π_ref(chosen)      r = log π_θ(rejected) − log π_ref(rejected)      Δ = c − r
 *
 *     sigmoid        −(1 − ε)·log σ(βΔ) − ε·log σ(−βΔ)
 *     robust         (−(1 − ε)·log σ(βΔ) + ε·log σ(−βΔ))/(1 − 2ε)
 *     hinge          max(0, 1 − βΔ)
 *     ipo            (Δ̄ − 1/(2β))²                                       Δ̄ = c/|chosen| − r/|rejected|
 *     exo_pair       q·(log q − log(1 − ε)) + (1 − q)·(log(1 − q) − log ε)      q = σ(βΔ)
 *     nca_pair       −log σ(βc) − ½·log σ(−βc) − ½·log σ(−βr)
 *     bco_pair       −log σ(βc − δ) − log σ(−(βr − δ))
 *     sppo_hard      (c − 1/(2β))² + (r + 1/(2β))²
 *     aot            sigmoid of the i-th smallest policy margin less the i-th smallest reference margin
 *     aot_unpaired   sigmoid of the i-th smallest c less the i-th smallest r
 *     apo_zero       1 − σ(βc) + σ(βr)
 *     apo_down       σ(βc) + 1 − σ(βΔ)
 *     discopop       −log σ(βΔ)·(1 − m) + e^(−βΔ)·m                       m = σ(βΔ/τ)
 *     sigmoid_norm   sigmoid of Δ̄
 *
 * times wᵢ, and + nllCoef·chosenNll before the weight. An f-divergence replaces c and r by f′ of the ratio wherever only
 * their difference is read; the rewards stay βc and βr. Its exponent is capped at 80, in `ipo` at 36, beyond which the
 * score is constant. Sources and choices of every variant: docs/algorithms/preferences.md.
 *
 * Source: Rafailov et al. 2023, arXiv:2305.18290, Eq. 7. The numbers are those of DPOTrainer of TRL 1.13, except: ε acts
 * in `sigmoid` and `sigmoid_norm` (Mitchell 2023, cDPO), `robust` needs ε < ½, `forward_kl` is capped too,
 * `alpha_divergence` has float64, and δ need not be 0.
 *
 * @throws ShapeError unless all tensors have the shape [B] of policyChosenLogprobs
 * @throws ValueRangeError for a number outside of its range, an unknown variant or divergence, a divergence that the
 *   variant does not accept, and where something is missing that the variant or the reference needs
 */
export function dpoLoss(inputs: DpoLossInputs): DpoLossOutput {
  const traits = checkedTraits(inputs.variant);
  checkShapes(inputs);
  checkNumbers(inputs, traits);
  if (traits.couplesBatch) checkEqualWeights(inputs);

  const rows = rowsOf(inputs.weights);
  const { terms, cappedExponents } = pairTerms(inputs, traits, rows);
  const loss = addNll('dpoLoss', DPO_OBJECTIVES[inputs.variant](terms), inputs, rows);
  return {
    loss: rows.weigh(loss),
    // Metrics carry no gradient.
    chosenRewards: terms.chosen.detach().mul(inputs.beta),
    rejectedRewards: terms.rejected.detach().mul(inputs.beta),
    cappedExponents,
  };
}

function pairTerms(inputs: DpoLossInputs, traits: DpoVariantTraits, rows: Rows) {
  const { beta, labelSmoothing = 0, discopopTau = 0.05, rewardShift = 0 } = inputs;
  const policyChosen = rows.read(inputs.policyChosenLogprobs);
  const policyRejected = rows.read(inputs.policyRejectedLogprobs);
  const [refChosen, refRejected] = references(inputs, rows);
  const chosen = policyChosen.sub(refChosen);
  const rejected = policyRejected.sub(refRejected);
  const better = scoresOf(chosen, inputs, traits);
  const worse = scoresOf(rejected, inputs, traits);
  const { needsLengths } = traits;
  const terms: PairTerms = {
    chosen,
    rejected,
    chosenScores: better.scores,
    rejectedScores: worse.scores,
    chosenAverages: needsLengths
      ? better.scores.div(lengthsOf(inputs, 'chosenLengths', rows))
      : better.scores,
    rejectedAverages: needsLengths
      ? worse.scores.div(lengthsOf(inputs, 'rejectedLengths', rows))
      : worse.scores,
    policyMargins: policyChosen.sub(policyRejected),
    refMargins: refChosen.sub(refRejected),
    beta,
    labelSmoothing,
    discopopTau,
    rewardShift,
  };
  return { terms, cappedExponents: better.isCapped.to(chosen.dtype).add(worse.isCapped) };
}

/** The log-probabilities under the reference: constants, 0 without one. */
function references(inputs: DpoLossInputs, rows: Rows): [Tensor, Tensor] {
  const { refChosenLogprobs, refRejectedLogprobs, referenceFree = false } = inputs;
  if (referenceFree) {
    if (refChosenLogprobs !== undefined || refRejectedLogprobs !== undefined) {
      throw new ValueRangeError(
        'dpoLoss: expected no log-probabilities of a reference with referenceFree, received some.',
      );
    }
    const uniform = zerosLike(inputs.policyChosenLogprobs);
    return [uniform, uniform];
  }
  if (refChosenLogprobs === undefined || refRejectedLogprobs === undefined) {
    const missing = refChosenLogprobs === undefined ? 'refChosenLogprobs' : 'refRejectedLogprobs';
    throw new ValueRangeError(
      `dpoLoss: expected ${missing} unless referenceFree is true, received none.`,
    );
  }
  return [rows.read(refChosenLogprobs.detach()), rows.read(refRejectedLogprobs.detach())]; // frozen
}

function scoresOf(logRatio: Tensor, inputs: DpoLossInputs, traits: DpoVariantTraits) {
  const { variant, fDivergence = 'reverse_kl', alphaDivergenceCoef } = inputs;
  if (fDivergence !== 'reverse_kl' && !traits.acceptsFDivergence) {
    throw new ValueRangeError(
      `dpoLoss: expected fDivergence to be reverse_kl with the variant ${variant}, received ${fDivergence}.`,
      { hint: 'Only a difference of scores of one prompt is free of the partition function.' },
    );
  }
  const maxExponent = variant === 'ipo' ? MAX_SQUARED_EXPONENT : MAX_EXPONENT;
  return divergenceScores({ logRatio, fDivergence, alphaDivergenceCoef, maxExponent });
}

/** [B] the lengths, 1 in a row that does not count. */
function lengthsOf(
  inputs: DpoLossInputs,
  name: 'chosenLengths' | 'rejectedLengths',
  rows: Rows,
): Tensor {
  const given = inputs[name]?.detach(); // a constant
  if (given === undefined) {
    throw new ValueRangeError(
      `dpoLoss: expected ${name} with the variant ${inputs.variant}, received none.`,
    );
  }
  const lengths = rows.counted === undefined ? given : given.where(rows.counted, 1);
  const values = toHost(lengths);
  const row = values.findIndex((length) => !(length > 0));
  if (row !== -1) {
    throw new ValueRangeError(
      `dpoLoss: expected ${name} to be positive, received ${values[row]} in row ${row}.`,
    );
  }
  return lengths;
}

function checkedTraits(variant: DpoVariant): DpoVariantTraits {
  if (Object.hasOwn(DPO_VARIANT_TRAITS, variant)) return DPO_VARIANT_TRAITS[variant];
  throw new ValueRangeError(
    `dpoLoss: expected variant to be one of ${DPO_VARIANTS.join(', ')}, received ${JSON.stringify(variant)}.`,
  );
}

function checkShapes(inputs: DpoLossInputs): void {
  const { refChosenLogprobs, refRejectedLogprobs, chosenLengths, rejectedLengths } = inputs;
  const { policyChosenLogprobs, policyRejectedLogprobs, weights, chosenNll } = inputs;
  assertSameShape('dpoLoss', '[B]', {
    policyChosenLogprobs,
    policyRejectedLogprobs,
    ...(refChosenLogprobs && { refChosenLogprobs }),
    ...(refRejectedLogprobs && { refRejectedLogprobs }),
    ...(chosenLengths && { chosenLengths }),
    ...(rejectedLengths && { rejectedLengths }),
    ...(weights && { weights }),
    ...(chosenNll && { chosenNll }),
  });
}

function checkNumbers(inputs: DpoLossInputs, traits: DpoVariantTraits): void {
  const { beta, labelSmoothing = 0, discopopTau = 0.05, rewardShift = 0, variant } = inputs;
  assertPositive('dpoLoss', 'beta', beta);
  if (!(labelSmoothing >= 0 && labelSmoothing < 0.5)) {
    throw new ValueRangeError(
      `dpoLoss: expected labelSmoothing to be at least 0 and below 0.5, received ${labelSmoothing}.`,
    );
  }
  if (traits.labelSmoothing === 'required' && labelSmoothing === 0) {
    throw new ValueRangeError(
      `dpoLoss: expected labelSmoothing above 0 with the variant ${variant}, received 0.`,
      { hint: 'The paper of EXO takes 1e-3.' },
    );
  }
  if (!(discopopTau > 0 && discopopTau <= 1)) {
    throw new ValueRangeError(
      `dpoLoss: expected discopopTau to be above 0 and at most 1, received ${discopopTau}.`,
    );
  }
  if (!Number.isFinite(rewardShift)) {
    throw new ValueRangeError(
      `dpoLoss: expected rewardShift to be a finite number, received ${rewardShift}.`,
    );
  }
}

/** Sorting separates the rows from the pairs that the weights belong to. */
function checkEqualWeights({ weights, variant }: DpoLossInputs): void {
  if (weights === undefined) return;
  const values = toHost(weights);
  const [first = 1] = values;
  const row = values.findIndex((weight) => !(weight > 0 && weight === first));
  if (row === -1) return;
  throw new ValueRangeError(
    `dpoLoss: expected equal weights above 0 with the variant ${variant}, received ${first} in row 0 and ${values[row]} in row ${row}.`,
    { hint: 'It sorts the batch, after which a row is no longer a pair.' },
  );
}
