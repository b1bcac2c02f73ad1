/** The good completions of a group against all of them, as a classification by implicit reward. */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import {
  assertIntegerAtLeast,
  assertPositive,
  assertRank,
  assertSameShape,
  type Tensor,
} from '../torch/index.js';
import { countedEntries, weightedSum } from './counted.js';
import { fromHost, hostRows, isScored } from './hostValues.js';

/** What `groupPreferenceLoss` reads. */
export interface GroupPreferenceInputs {
  /** [P, G] nats. log π_θ of whole completions, from `sequenceLogprob`. The only input that receives a gradient. */
  readonly policyLogprobs: Tensor;
  /** [P, G] nats. The same completions under the frozen reference. Constant. */
  readonly refLogprobs: Tensor;
  /** [P, G] above 0 where the completion is good, from `topKGoodMask` or a checker. */
  readonly goodMask: Tensor;
  /** β > 0: the scale of the implicit reward. */
  readonly beta: number;
  /** [P] weights of the prompts in the loss, for micro-batches. 1/(prompts with a good completion) when omitted. */
  readonly promptWeights?: Tensor | undefined;
}

/** Detached [] scalars, weighted like the loss: add them over micro-batches. */
export type GroupPreferenceStats = {
  /** Σ w·P(good): the share of the group's softmax that the good completions hold. */
  readonly goodProbability: Tensor;
};

/**
 * The softmax over a group's implicit rewards should lie on its good completions.
 *
 *     s = β·(log π_θ − log π_ref)      L = −mean over prompts of log(Σ_good eˢ / Σ_all eˢ)
 *
 * With G = 2 and one good completion it is the DPO loss of the pair. A prompt without a good completion is left out of
 * the mean; one whose completions are all good has loss 0.
 *
 * Source: the simplified, preference form of GRPO in which the good and the bad completions of a group are told apart
 * by a reward; for pairs, Rafailov et al. 2023, arXiv:2305.18290, Eq. 7. A cross-entropy against the multi-hot mask,
 * −Σ_good log softmax(s), is another objective: it also asks the good ones to be equally likely.
 *
 * @throws ShapeError unless the tensors are [P, G] alike and promptWeights [P]
 * @throws ValueRangeError where no prompt has a good completion, or β is not positive
 */
export function groupPreferenceLoss(inputs: GroupPreferenceInputs): {
  loss: Tensor;
  stats: GroupPreferenceStats;
} {
  const { policyLogprobs, refLogprobs, goodMask, beta, promptWeights } = inputs;
  const where = 'groupPreferenceLoss';
  assertSameShape(where, '[P, G]', { policyLogprobs, refLogprobs, goodMask });
  assertPositive(where, 'beta', beta);

  const good = countedEntries(goodMask);
  const hasGood = good.any(1); // [P]
  const weights = weightsOfPrompts(hasGood, promptWeights, policyLogprobs);
  const scores = policyLogprobs.sub(refLogprobs.detach()).mul(beta); // the reference is frozen
  // Where no completion is good, all are taken for good: log Σ over nothing is −∞, and its gradient NaN.
  const chosen = good.logicalOr(hasGood.logicalNot().unsqueeze(1));
  const logShare = scores.where(chosen, -Infinity).logsumexp(1).sub(scores.logsumexp(1)); // [P]
  return {
    loss: weightedSum(logShare, weights).neg(),
    stats: { goodProbability: weightedSum(logShare.detach().exp(), weights) }, // a metric, no gradient
  };
}

/** [P] the weight of each prompt, 0 where it has no good completion. */
function weightsOfPrompts(hasGood: Tensor, given: Tensor | undefined, like: Tensor): Tensor {
  const where = 'groupPreferenceLoss';
  if (given !== undefined) {
    assertRank(where, '[P]', { promptWeights: given });
    if (given.size(0) !== hasGood.size(0)) {
      throw new ShapeError(
        `${where}: expected promptWeights to have shape [P] = [${hasGood.size(0)}], received [${given.size(0)}].`,
      );
    }
    return given.detach().where(hasGood, 0);
  }
  const prompts = hasGood.sum().item();
  if (prompts === 0) {
    throw new ValueRangeError(
      `${where}: expected at least one prompt with a good completion, received none.`,
    );
  }
  return hasGood.to(like.dtype).div(prompts);
}

/**
 * The k completions of each group with the highest scores.
 *
 * @param scores [P, G]; NaN where a completion is unscored, which is never good
 * @param k how many, from 1 to G. Of equal scores the lower index comes first
 * @returns [P, G] of 0 and 1 in the floating dtype of scores (else float32); a constant
 * @throws ShapeError unless scores is [P, G]; ValueRangeError unless k is an integer from 1 to G
 */
export function topKGoodMask(scores: Tensor, k: number): Tensor {
  assertRank('topKGoodMask', '[P, G]', { scores });
  assertIntegerAtLeast('topKGoodMask', 'k', k, 1);
  const groupSize = scores.size(1);
  if (k > groupSize) {
    throw new ValueRangeError(
      `topKGoodMask: expected k to be at most the ${groupSize} completions of a group, received ${k}.`,
    );
  }
  const mask = hostRows(scores).flatMap((row) => {
    const ranked = Array.from(row.keys())
      .filter((index) => isScored(row[index] as number))
      .sort((a, b) => compareDown(row[a] as number, row[b] as number)); // stable: ties keep the index
    const good = new Set(ranked.slice(0, k));
    return Array.from(row.keys(), (index) => (good.has(index) ? 1 : 0));
  });
  return fromHost(mask, scores.shape, scores);
}

/** Higher first. A difference would be NaN between two infinities. */
function compareDown(a: number, b: number): number {
  if (a === b) return 0;
  return a > b ? -1 : 1;
}
