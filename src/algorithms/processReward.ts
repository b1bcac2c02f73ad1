/** Process reward models: training on steps that are right or wrong, and one score from those of the steps. */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { assertRank, assertSameShape, type Tensor } from '../torch/index.js';
import { constantWhere, countedEntries, weightedSum } from './counted.js';
import { fromHost, hostRows } from './hostValues.js';

/** What `processRewardLoss` reads. */
export interface ProcessRewardInputs {
  /** [B, S, 2] logits of wrong (0) and right (1), read at the last token of each step. Receives the gradient. */
  readonly stepLogits: Tensor;
  /** [B, S] 1 for a right step, 0 for a wrong one; between them the probability that it is right. Constant. */
  readonly stepLabels: Tensor;
  /** [B, S] above 0 where there is a step; anything else is never read. */
  readonly stepMask: Tensor;
  /** [B, S] the weight of each step in the loss, for micro-batches. Constant. 1/(counted steps) when omitted. */
  readonly stepWeights?: Tensor | undefined;
}

/** Detached [] scalars, weighted like the loss: add them over micro-batches. */
export type ProcessRewardStats = {
  /** Σ w over steps whose likelier class is the label's; a tie counts half, and so does a label of ½. */
  readonly accuracy: Tensor;
  /** Σ w·label. */
  readonly rightShare: Tensor;
  /** Σ w·label·p, p the probability of right: divided by rightShare, the mean probability of right steps. */
  readonly rightProbability: Tensor;
  /** Σ w·(1 − label)·p: divided by 1 − rightShare, the mean probability of wrong steps. */
  readonly wrongProbability: Tensor;
};

/**
 * Cross-entropy of whether each step is right.
 *
 *     p = softmax(stepLogits)₁      L = −Σ w·(y·log p + (1 − y)·log(1 − p))      w = 1/(counted steps) unless given
 *
 * Source: Lightman et al. 2023, arXiv:2305.20050, §2.6 and appendix F (maximum likelihood of the label at the step's
 * last token); as a classifier with two labels it is what AutoModelForTokenClassification computes with ignore_index
 * −100 and TRL's PRMTrainer trains. Labels between 0 and 1: Wang et al. 2023 (Math-Shepherd), arXiv:2312.08935, Eq. 4.
 *
 * @throws ShapeError unless stepLogits is [B, S, 2] and everything else [B, S]
 * @throws ValueRangeError for a counted label outside of [0, 1], or no counted step and no stepWeights
 */
export function processRewardLoss(inputs: ProcessRewardInputs): {
  loss: Tensor;
  stats: ProcessRewardStats;
} {
  const { stepLogits, stepLabels, stepMask, stepWeights } = inputs;
  const where = 'processRewardLoss';
  assertRank(where, '[B, S, 2]', { stepLogits });
  if (stepLogits.size(2) !== 2) {
    throw new ShapeError(
      `${where}: expected stepLogits to have shape [B, S, 2], received [${stepLogits.shape.join(', ')}].`,
    );
  }
  const tensors = { stepLabels, stepMask, ...(stepWeights && { stepWeights }) };
  assertSameShape(where, '[B, S]', { 'stepLogits[..., 0]': stepLogits.select(2, 0), ...tensors });

  const counted = stepWeights
    ? countedEntries(stepMask).logicalAnd(countedEntries(stepWeights))
    : countedEntries(stepMask);
  const labels = constantWhere(stepLabels.to(stepLogits.dtype), counted);
  assertLabels(labels);
  const weights = stepWeights ? constantWhere(stepWeights, counted) : meanWeights(counted, labels);
  const read = stepLogits.where(counted.unsqueeze(-1), 0);
  const lead = read.select(2, 1).sub(read.select(2, 0)); // log p/(1 − p)
  const ofRight = lead.logSigmoid().mul(labels); // y·log p
  const ofWrong = lead.neg().logSigmoid().mul(labels.neg().add(1)); // (1 − y)·log(1 − p)
  return {
    loss: weightedSum(ofRight.add(ofWrong), weights).neg(),
    stats: statsOf(lead.detach(), labels, weights), // metrics carry no gradient
  };
}

function assertLabels(labels: Tensor): void {
  const fits = labels.ge(0).logicalAnd(labels.le(1));
  if (!fits.all().item()) {
    const [value] = [...labels.toTypedArray()].filter((label) => !(label >= 0 && label <= 1));
    throw new ValueRangeError(
      `processRewardLoss: expected labels from 0 to 1 where stepMask counts, received ${String(value)}.`,
    );
  }
}

/** 1/(counted steps) where a step counts. */
function meanWeights(counted: Tensor, like: Tensor): Tensor {
  const steps = counted.sum().item();
  if (steps === 0) {
    throw new ValueRangeError(
      'processRewardLoss: expected at least one counted step, received none.',
    );
  }
  return counted.to(like.dtype).div(steps);
}

function statsOf(lead: Tensor, labels: Tensor, weights: Tensor): ProcessRewardStats {
  const agreement = lead.sign().mul(labels.mul(2).sub(1).sign()); // 1 right, −1 wrong, 0 undecided
  const probability = lead.sigmoid();
  const ofRight = probability.mul(labels);
  return {
    accuracy: weightedSum(agreement.add(1).div(2), weights),
    rightShare: weightedSum(labels, weights),
    rightProbability: weightedSum(ofRight, weights),
    wrongProbability: weightedSum(probability.sub(ofRight), weights),
  };
}

/** How the scores of steps become one: their product, the smallest, or the last. */
export type StepAggregation = 'product' | 'min' | 'last';

/** What `aggregateStepScores` reads. */
export interface StepScoreInputs {
  /** [B, S] the probability that each step is right. */
  readonly stepScores: Tensor;
  /** [B, S] above 0 where there is a step; a score elsewhere is never read. */
  readonly stepMask: Tensor;
  /** `product`: that all steps are right, if they were independent. `min`: the weakest. `last`: that of the last step. */
  readonly kind: StepAggregation;
}

/**
 * One score of a whole completion from those of its steps.
 *
 *     product  Πₛ pₛ      min  minₛ pₛ      last  p of the last counted step
 *
 * Source: product and minimum: Lightman et al. 2023, arXiv:2305.20050, appendix F (product by default there); last: as a
 * step's label can mean that everything up to it is right.
 *
 * @returns [B], NaN where a row has no step and so no score; a constant
 * @throws ShapeError unless both are [B, S]
 * @throws ValueRangeError for an unknown kind, or a counted score outside of [0, 1]
 */
export function aggregateStepScores({ stepScores, stepMask, kind }: StepScoreInputs): Tensor {
  const where = 'aggregateStepScores';
  assertSameShape(where, '[B, S]', { stepScores, stepMask });
  const fold = folds[kind] as ((scores: readonly number[]) => number) | undefined;
  if (fold === undefined) {
    throw new ValueRangeError(
      `${where}: expected kind to be product, min or last, received ${JSON.stringify(kind)}.`,
    );
  }
  const mask = hostRows(countedEntries(stepMask).to('float64'));
  const scores = hostRows(stepScores).map((row, index) => {
    const counted = [...row].filter((_, step) => mask[index]?.[step] === 1);
    const fault = counted.find((score) => !(score >= 0 && score <= 1));
    if (fault !== undefined) {
      throw new ValueRangeError(
        `${where}: expected scores from 0 to 1 where stepMask counts, received ${fault} in row ${index}.`,
      );
    }
    return counted.length === 0 ? NaN : fold(counted);
  });
  return fromHost(scores, [scores.length], stepScores);
}

const folds: Readonly<Record<StepAggregation, (scores: readonly number[]) => number>> = {
  product: (scores) => scores.reduce((product, score) => product * score, 1),
  min: (scores) => Math.min(...scores),
  last: (scores) => scores.at(-1) ?? NaN,
};
