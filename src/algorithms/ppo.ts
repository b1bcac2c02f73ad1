/** The clipped surrogate of PPO, which GRPO, DAPO, Dr. GRPO and GSPO use too. */
import { ValueRangeError } from '../errors/index.js';
import { assertSameShape, type Tensor } from '../torch/index.js';
import { constantWhere, countedWeights, maskedLogRatio, weightedSum } from './counted.js';

/** How far the ratio may move before its gradient ends: below 1 − low for A < 0, above 1 + high for A > 0. */
export interface ClipRange {
  /** εlow ≥ 0. PPO: 0.2. */
  readonly low: number;
  /** εhigh ≥ 0. PPO: 0.2; above εlow it is DAPO's "clip-higher", 0.28. */
  readonly high: number;
}

/** What `ppoClipLoss` reads. */
export interface PpoClipLossInputs {
  /** [B, T] nats. log π_θ of the sampled tokens, from the current policy. The only input that receives a gradient. */
  readonly logprobs: Tensor;
  /** [B, T] nats. The same tokens under the policy at the start of the update phase. Constant. */
  readonly oldLogprobs: Tensor;
  /** [B, T] Â, already spread over the tokens. Constant. */
  readonly advantages: Tensor;
  /** [B, T] wₜ from `tokenWeights`. A token with weight 0 is never read, so it may hold anything. Constant. */
  readonly tokenWeights: Tensor;
  /** εlow and εhigh. */
  readonly clip: ClipRange;
  /** c > 1: the objective of a negative advantage is not below c·Â. Off unless given. */
  readonly dualClip?: number | undefined;
}

// Types, not interfaces: they are assignable to Record<string, Tensor>, so that trainers can add them up by name.

/** Detached [] scalars that tell how far the policy moved. All but `maxRatioDeviation` add up over micro-batches. */
export type RatioStats = {
  /** Σ w·ρ. */
  readonly meanRatio: Tensor;
  /** Σ w·(ρ − 1 − log ρ), the k3 estimate of KL(old ‖ new). */
  readonly approxKl: Tensor;
  /** Largest |ρ − 1| of a counted token. Combines by maximum. */
  readonly maxRatioDeviation: Tensor;
};

/** Detached [] scalars, weighted like the loss: add them over micro-batches (`maxRatioDeviation`: take the maximum). */
export type PolicyLossStats = RatioStats & {
  /** Σ w over tokens with Â < 0 whose ratio is below 1 − εlow. */
  readonly clipFractionLow: Tensor;
  /** Σ w over tokens with Â > 0 whose ratio is above 1 + εhigh. */
  readonly clipFractionHigh: Tensor;
};

/** What every policy objective returns. */
export interface PolicyLossOutput<Stats = PolicyLossStats> {
  /** [] to minimise. */
  readonly loss: Tensor;
  /** Detached [] scalars. */
  readonly stats: Stats;
}

/**
 * Clipped surrogate policy loss.
 *
 *     ρₜ = exp(logprobsₜ − oldLogprobsₜ)
 *     L  = −Σₜ wₜ · min(ρₜ Âₜ, clip(ρₜ, 1 − εlow, 1 + εhigh) Âₜ)
 *
 * With `dualClip` c the term of a negative advantage is max(that, c·Âₜ). Where a bound is chosen the gradient is exactly
 * 0, also where ρ overflows to ∞.
 *
 * Source: Schulman et al. 2017, arXiv:1707.06347, Eq. 7; two ε from Yu et al. 2025, arXiv:2503.14476, §3.1; dual clip
 * from Ye et al. 2020, arXiv:1912.09729, Eq. 5. We differ in the sign (we minimise) and in leaving the reduction to
 * `tokenWeights`.
 *
 * @throws ShapeError unless all tensors have the shape [B, T] of logprobs
 * @throws ValueRangeError for a negative bound or a dualClip that is not above 1
 */
export function ppoClipLoss(inputs: PpoClipLossInputs): PolicyLossOutput {
  const { logprobs, oldLogprobs, advantages, tokenWeights, clip, dualClip } = inputs;
  assertSameShape('ppoClipLoss', '[B, T]', { logprobs, oldLogprobs, advantages, tokenWeights });
  assertClip('ppoClipLoss', clip, dualClip);

  const { counted, weights } = countedWeights(tokenWeights);
  const logRatio = maskedLogRatio(logprobs, oldLogprobs, counted);
  const surrogate = clippedSurrogate(logRatio, constantWhere(advantages, counted), clip, dualClip);
  return {
    loss: weightedSum(surrogate.objective, weights).neg(),
    stats: {
      ...ratioStats(logRatio, weights),
      clipFractionLow: weightedSum(surrogate.clippedLow, weights),
      clipFractionHigh: weightedSum(surrogate.clippedHigh, weights),
    },
  };
}

/** min(ρÂ, clip(ρ)Â) per entry, and where its low and high bound were chosen (bool). */
export interface ClippedSurrogate {
  /** Same shape as the log-ratio; the gradient flows into the log-ratio where no bound was chosen. */
  readonly objective: Tensor;
  /** bool: Â < 0 and ρ < 1 − εlow. */
  readonly clippedLow: Tensor;
  /** bool: Â > 0 and ρ > 1 + εhigh. */
  readonly clippedHigh: Tensor;
}

/**
 * The clipped objective of each entry.
 *
 * @param logRatio [...] log ρ, finite or not
 * @param advantages same shape; a constant
 */
export function clippedSurrogate(
  logRatio: Tensor,
  advantages: Tensor,
  clip: ClipRange,
  dualClip?: number,
): ClippedSurrogate {
  const ratio = logRatio.detach().exp(); // which branch is chosen is no path for the gradient
  const isNegative = advantages.lt(0);
  const clippedLow = isNegative.logicalAnd(ratio.lt(1 - clip.low));
  const clippedHigh = advantages.gt(0).logicalAnd(ratio.gt(1 + clip.high));
  let bound = ratio.clamp(1 - clip.low, 1 + clip.high);
  let isBounded = clippedLow.logicalOr(clippedHigh);
  if (dualClip !== undefined) {
    const clippedDual = isNegative.logicalAnd(ratio.gt(dualClip));
    bound = bound.where(clippedDual.logicalNot(), dualClip);
    isBounded = isBounded.logicalOr(clippedDual);
  }
  // Selected before exp, whose backward multiplies by its own result: 0 · ∞ would be NaN. An advantage of 0 has the
  // objective 0 whatever the ratio, for the same reason.
  const isFree = isBounded.logicalNot().logicalAnd(advantages.ne(0));
  const free = logRatio.where(isFree, 0).exp().mul(advantages);
  return { objective: bound.mul(advantages).where(isBounded, free), clippedLow, clippedHigh };
}

/**
 * How far the policy has moved from the one that sampled.
 *
 * @param logRatio [...] log ρ, 0 where nothing counts
 * @param weights same shape, 0 where nothing counts
 */
export function ratioStats(logRatio: Tensor, weights: Tensor): RatioStats {
  const logRho = logRatio.detach(); // statistics carry no gradient
  const deviation = logRho.expm1(); // ρ − 1, exact near ρ = 1
  return {
    meanRatio: weightedSum(logRho.exp(), weights),
    approxKl: weightedSum(deviation.sub(logRho), weights),
    maxRatioDeviation: deviation.abs().amax(),
  };
}

/** @throws ValueRangeError for a negative bound or a dualClip that is not above 1 */
export function assertClip(where: string, clip: ClipRange, dualClip?: number): void {
  for (const name of ['low', 'high'] as const) {
    if (!(clip[name] >= 0)) {
      throw new ValueRangeError(
        `${where}: expected clip.${name} to be at least 0, received ${clip[name]}.`,
      );
    }
  }
  if (dualClip !== undefined && !(dualClip > 1)) {
    throw new ValueRangeError(`${where}: expected dualClip to be above 1, received ${dualClip}.`);
  }
}
