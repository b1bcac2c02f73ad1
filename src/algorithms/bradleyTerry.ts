/** Training of a reward model on pairs of completions of which one is preferred. */
import { ValueRangeError } from '../errors/index.js';
import { assertSameShape, onesLike, type Tensor } from '../torch/index.js';
import { constantWhere, countedWeights, weightedSum } from './counted.js';

/** What `bradleyTerryLoss` reads. */
export interface BradleyTerryInputs {
  /** [B] r(x, y_c), the score of the preferred completion at its last token. Receives a gradient. */
  readonly chosenRewards: Tensor;
  /** [B] r(x, y_r), the score of the other completion. Receives a gradient. */
  readonly rejectedRewards: Tensor;
  /** [B] m: by how much the preferred score should lead, in units of the score. Constant. 0 when omitted. */
  readonly margins?: Tensor | undefined;
  /** c ≥ 0: the weight of the term that keeps the scores of a pair centred on 0. 0 when omitted. */
  readonly centerCoef?: number | undefined;
  /** [B] the weight of each pair in the loss; one with weight 0 is never read. Constant. 1/B when omitted. */
  readonly weights?: Tensor | undefined;
}

/** Detached [] scalars, weighted like the loss: add them over micro-batches. */
export type BradleyTerryStats = {
  /** Σ w over pairs whose preferred completion has the higher score; a tie counts half. The margin plays no part. */
  readonly accuracy: Tensor;
  /** Σ w·(r_c − r_r). */
  readonly margin: Tensor;
  /** Σ w·r_c. */
  readonly chosenReward: Tensor;
  /** Σ w·r_r. */
  readonly rejectedReward: Tensor;
};

/**
 * The negative log-likelihood of the preferences under the model of Bradley and Terry, P(y_c ≻ y_r) = σ(r_c − r_r).
 *
 *     L = Σ w·(−log σ(r_c − r_r − m) + c·(r_c + r_r)²)        w = 1/B unless weights are given
 *
 * Only differences of scores are determined by preferences; the term with c picks one of the solutions. With weights
 * 1/(pairs of the comparison · comparisons) all pairs of a ranking of K completions count as one batch element.
 *
 * Source: Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, Eq. 1 and §3.5 for K-way comparisons; margins: Touvron et
 * al. 2023 (Llama 2), arXiv:2307.09288, Eq. 2; centring: Eisenstein et al. 2023, arXiv:2312.09244, in TRL's form, which
 * takes the sum and not the mean of the two scores.
 *
 * @throws ShapeError unless all tensors have the shape [B] of chosenRewards
 * @throws ValueRangeError for no pair, or a centerCoef that is negative or not finite
 */
export function bradleyTerryLoss(inputs: BradleyTerryInputs): {
  loss: Tensor;
  stats: BradleyTerryStats;
} {
  const { chosenRewards, rejectedRewards, margins, centerCoef = 0, weights: given } = inputs;
  const where = 'bradleyTerryLoss';
  const optional = { ...(margins && { margins }), ...(given && { weights: given }) };
  assertSameShape(where, '[B]', { chosenRewards, rejectedRewards, ...optional });
  if (chosenRewards.size(0) === 0) {
    throw new ValueRangeError(`${where}: expected at least one pair, received none.`);
  }
  if (!(centerCoef >= 0 && centerCoef < Infinity)) {
    throw new ValueRangeError(
      `${where}: expected centerCoef to be a finite number of at least 0, received ${centerCoef}.`,
    );
  }

  const mean = onesLike(chosenRewards).div(chosenRewards.size(0));
  const { counted, weights } = countedWeights(given ?? mean);
  const chosen = chosenRewards.where(counted, 0);
  const rejected = rejectedRewards.where(counted, 0);
  const lead = chosen.sub(rejected);
  const asked = margins ? lead.sub(constantWhere(margins, counted)) : lead;
  const likelihood = asked.logSigmoid().neg();
  const center = centerCoef === 0 ? undefined : chosen.add(rejected).square().mul(centerCoef);
  const perPair = center ? likelihood.add(center) : likelihood;
  return {
    loss: weightedSum(perPair, weights),
    stats: statsOf(chosen.detach(), rejected.detach(), weights), // metrics carry no gradient
  };
}

function statsOf(chosen: Tensor, rejected: Tensor, weights: Tensor): BradleyTerryStats {
  const wins = chosen.gt(rejected).to(weights.dtype);
  const ties = chosen.eq(rejected).to(weights.dtype);
  return {
    accuracy: weightedSum(wins.add(ties.div(2)), weights),
    margin: weightedSum(chosen.sub(rejected), weights),
    chosenReward: weightedSum(chosen, weights),
    rejectedReward: weightedSum(rejected, weights),
  };
}
