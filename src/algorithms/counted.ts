/**
 * The steps that every objective over tokens shares: which tokens count, a log-ratio that is safe where they do not,
 * and the weighted sum. Masking always comes before `exp`: afterwards it would turn an overflow at a padded token into
 * 0 · ∞ = NaN in the backward pass.
 */
import { isFloatingPoint, type Dtype, type Tensor } from '../torch/index.js';

/**
 * Which entries count.
 *
 * @param maskOrWeights [...] any dtype; above 0 counts, 0, negative and NaN do not
 * @returns [...] bool
 */
export function countedEntries(maskOrWeights: Tensor): Tensor {
  return maskOrWeights.detach().gt(0);
}

/**
 * The weights of a loss as it uses them.
 *
 * @param tokenWeights [B, T] from `tokenWeights`; a constant
 * @returns `counted` [B, T] bool, and `weights` [B, T], exactly 0 where nothing counts
 */
export function countedWeights(tokenWeights: Tensor): { counted: Tensor; weights: Tensor } {
  const counted = countedEntries(tokenWeights);
  return { counted, weights: tokenWeights.detach().where(counted, 0) };
}

/** A constant that is read only where it counts: no gradient flows into it, and elsewhere it is 0. */
export function constantWhere(values: Tensor, counted: Tensor): Tensor {
  return values.detach().where(counted, 0);
}

/**
 * log(p/q) of the tokens, 0 where they do not count.
 *
 * @param logprobs [...] nats, log p; the gradient flows here
 * @param otherLogprobs [...] nats, log q; a constant
 */
export function maskedLogRatio(logprobs: Tensor, otherLogprobs: Tensor, counted: Tensor): Tensor {
  return logprobs.sub(otherLogprobs.detach()).where(counted, 0);
}

/** [] Σ w·x. x must be finite where w is 0, which the functions above see to. */
export function weightedSum(values: Tensor, weights: Tensor): Tensor {
  return values.mul(weights).sum();
}

/**
 * The dtype of a result: the widest floating one of its inputs, float32 where none is floating. bfloat16 and float16
 * meet in float32.
 */
export function floatingDtype(...inputs: readonly Tensor[]): Dtype {
  const dtypes = new Set(inputs.map(({ dtype }) => dtype).filter(isFloatingPoint));
  if (dtypes.has('float64')) return 'float64';
  const [only = 'float32', ...others] = dtypes;
  return others.length === 0 ? only : 'float32';
}

/**
 * Mean over the counted entries of each row, 0 for a row without any.
 *
 * @param values [B, T], finite or masked where nothing counts
 * @param counted [B, T] bool
 * @returns [B, 1]
 */
export function rowMean(values: Tensor, counted: Tensor): Tensor {
  const lengths = counted.sum(1, { keepDim: true, dtype: values.dtype }).clamp(1);
  return values.where(counted, 0).sum(1, { keepDim: true }).div(lengths);
}
