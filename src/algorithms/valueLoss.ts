/** Training of the value model. */
import { ValueRangeError } from '../errors/index.js';
import { assertPositive, assertSameShape, zerosLike, type Tensor } from '../torch/index.js';
import { constantWhere, countedWeights, weightedSum } from './counted.js';

/** What `valueLoss` reads. */
export interface ValueLossInputs {
  /** [B, T] V of the state before token t, from the current value model. The only input that receives a gradient. */
  readonly values: Tensor;
  /** [B, T] the same at the start of the update phase. Constant. Needed with clipRange. */
  readonly oldValues?: Tensor | undefined;
  /** [B, T] from `gae` or `monteCarloAdvantages`. Constant. */
  readonly returns: Tensor;
  /** [B, T] wₜ from `tokenWeights`. A token with weight 0 is never read. Constant. */
  readonly tokenWeights: Tensor;
  /** c > 0: how far a value may move from the old one before its gradient ends. No clipping when omitted. */
  readonly clipRange?: number | undefined;
}

/** Detached [] scalars, weighted like the loss: add them over micro-batches. */
export type ValueLossStats = {
  /** Σ w·V. */
  readonly meanValue: Tensor;
  /** Σ w over tokens where the clipped value has the larger error and no gradient is left. */
  readonly valueClipFraction: Tensor;
};

/**
 * Squared error of the values, with the pessimistic clipping of PPO.
 *
 *     L = Σₜ wₜ · ½·max((Vₜ − Rₜ)², (clip(Vₜ, V_old ± c) − Rₜ)²)        without clipRange Σ w·½(V − R)²
 *
 * Source: the clipping is OpenAI Baselines' (Engstrom et al. 2020, arXiv:2005.12729, §3); the ½ is that of TRL and verl.
 *
 * @throws ShapeError unless all tensors have the shape [B, T] of values
 * @throws ValueRangeError for a clipRange that is not positive, or one without oldValues
 */
export function valueLoss(inputs: ValueLossInputs): { loss: Tensor; stats: ValueLossStats } {
  const { values, oldValues, returns, tokenWeights, clipRange } = inputs;
  const tensors = { values, ...(oldValues && { oldValues }), returns, tokenWeights };
  assertSameShape('valueLoss', '[B, T]', tensors);

  const { counted, weights } = countedWeights(tokenWeights);
  const read = values.where(counted, 0);
  const targets = constantWhere(returns, counted);
  const plain = read.sub(targets).square();
  const meanValue = weightedSum(read.detach(), weights); // a metric carries no gradient
  if (clipRange === undefined) {
    const loss = weightedSum(plain, weights).div(2);
    return { loss, stats: { meanValue, valueClipFraction: zerosLike(meanValue) } };
  }
  const clipped = clippedError(read, oldValues, targets, counted, clipRange);
  return {
    loss: weightedSum(plain.maximum(clipped), weights).div(2),
    stats: { meanValue, valueClipFraction: weightedSum(clipped.gt(plain), weights) },
  };
}

/** (clip(V, V_old ± c) − R)². */
function clippedError(
  values: Tensor,
  oldValues: Tensor | undefined,
  targets: Tensor,
  counted: Tensor,
  clipRange: number,
): Tensor {
  assertPositive('valueLoss', 'clipRange', clipRange);
  if (oldValues === undefined) {
    throw new ValueRangeError('valueLoss: expected oldValues with clipRange, received none.');
  }
  const center = constantWhere(oldValues, counted);
  // Not V_old + clip(V − V_old): its rounding would count values that are inside of the range as clipped.
  const clipped = values.maximum(center.sub(clipRange)).minimum(center.add(clipRange));
  return clipped.sub(targets).square();
}
