/** Policy gradients without a surrogate: REINFORCE, and CISPO's truncated importance weights. */
import { ValueRangeError } from '../errors/index.js';
import { assertSameShape, type Tensor } from '../torch/index.js';
import { constantWhere, countedWeights, maskedLogRatio, weightedSum } from './counted.js';
import { ratioStats, type PolicyLossOutput, type PpoClipLossInputs } from './ppo.js';

/** What `reinforceLoss` reads. */
export interface ReinforceLossInputs {
  /** [B, T] nats. log π_θ of the sampled tokens, from the current policy. The only input that receives a gradient. */
  readonly logprobs: Tensor;
  /** [B, T] Â, already spread over the tokens. Constant. */
  readonly advantages: Tensor;
  /** [B, T] wₜ from `tokenWeights`. A token with weight 0 is never read. Constant. */
  readonly tokenWeights: Tensor;
  /** [B, T] from `truncatedImportanceWeights`, where the sampler is not the policy. 1 when omitted. Constant. */
  readonly rolloutWeights?: Tensor | undefined;
}

/** Detached [] scalars, weighted like the loss: add them over micro-batches. */
export type ReinforceStats = {
  /** Σ w·logprob: how sure the policy is of what it sampled. */
  readonly meanLogprob: Tensor;
  /** Σ w·rolloutWeight, where they are given. */
  readonly meanRolloutWeight?: Tensor;
};

/**
 * Policy gradient of the sampled tokens.
 *
 *     L = −Σₜ wₜ · uₜ · Âₜ · logprobsₜ        u = rolloutWeights, 1 without them
 *
 * Source: Williams 1992, Eq. 5; the importance weights from Yao et al. 2025, "Your Efficient RL Framework Secretly
 * Brings You Off-Policy RL Training".
 *
 * @throws ShapeError unless all tensors have the shape [B, T] of logprobs
 */
export function reinforceLoss(inputs: ReinforceLossInputs): PolicyLossOutput<ReinforceStats> {
  const { logprobs, advantages, tokenWeights, rolloutWeights } = inputs;
  const tensors = { logprobs, advantages, tokenWeights, ...(rolloutWeights && { rolloutWeights }) };
  assertSameShape('reinforceLoss', '[B, T]', tensors);

  const { counted, weights } = countedWeights(tokenWeights);
  const factor = rolloutWeights && constantWhere(rolloutWeights, counted);
  const fixed = constantWhere(advantages, counted);
  const read = logprobs.where(counted, 0);
  return {
    loss: weightedSum(read.mul(factor ? fixed.mul(factor) : fixed), weights).neg(),
    stats: {
      meanLogprob: weightedSum(read.detach(), weights), // a metric carries no gradient
      ...(factor && { meanRolloutWeight: weightedSum(factor, weights) }),
    },
  };
}

/** Bounds of the importance weight itself, not distances from 1. */
export interface CispoClip {
  /** Smallest weight, from 0 to 1. 0 when omitted: no lower bound. */
  readonly low?: number | undefined;
  /** Largest weight, at least 1. 5 when omitted. */
  readonly high?: number | undefined;
}

/** What `cispoLoss` reads. */
export interface CispoLossInputs extends Omit<PpoClipLossInputs, 'clip' | 'dualClip'> {
  /** Bounds of the importance weight; 0 and 5 when omitted. */
  readonly clip?: CispoClip | undefined;
}

/**
 * Policy gradient with a clipped importance weight: no token loses its gradient.
 *
 *     L = −Σₜ wₜ · sg[clip(ρₜ, low, high)] · Âₜ · logprobsₜ
 *
 * Source: MiniMax-M1 2025, arXiv:2506.13585, Eq. 4–5. The default bound is that of ScaleRL, arXiv:2510.13786; one below 1,
 * such as a PPO ε taken for one, would shrink every on-policy token, and is refused. `clipFractionLow` and
 * `clipFractionHigh` count the tokens whose weight was bounded, whatever the sign of their advantage.
 *
 * @throws ShapeError unless all tensors have the shape [B, T] of logprobs
 * @throws ValueRangeError unless 0 ≤ low ≤ 1 ≤ high
 */
export function cispoLoss(inputs: CispoLossInputs): PolicyLossOutput {
  const { logprobs, oldLogprobs, advantages, tokenWeights, clip = {} } = inputs;
  assertSameShape('cispoLoss', '[B, T]', { logprobs, oldLogprobs, advantages, tokenWeights });
  const { low = 0, high = 5 } = clip;
  assertWeightBounds(low, high);

  const { counted, weights } = countedWeights(tokenWeights);
  const logRatio = maskedLogRatio(logprobs, oldLogprobs, counted).detach(); // the weight is a constant
  const ratio = logRatio.exp();
  const factor = ratio.clamp(low, high).mul(constantWhere(advantages, counted));
  return {
    loss: weightedSum(logprobs.where(counted, 0).mul(factor), weights).neg(),
    stats: {
      ...ratioStats(logRatio, weights),
      clipFractionLow: weightedSum(ratio.lt(low), weights),
      clipFractionHigh: weightedSum(ratio.gt(high), weights),
    },
  };
}

function assertWeightBounds(low: number, high: number): void {
  if (!(low >= 0 && low <= 1)) {
    throw new ValueRangeError(`cispoLoss: expected clip.low to be from 0 to 1, received ${low}.`);
  }
  if (!(high >= 1)) {
    throw new ValueRangeError(`cispoLoss: expected clip.high to be at least 1, received ${high}.`, {
      hint: 'It bounds the importance weight itself, so 1 + ε where PPO has ε.',
    });
  }
}
