/** Standardising over the counted tokens of a batch. */
import { assertSameShape, type Tensor } from '../torch/index.js';
import { countedEntries, floatingDtype } from './counted.js';

/** Added to the variance, as TRL and verl do: a batch without variance must not divide by 0. */
const VARIANCE_EPSILON = 1e-8;

/** What `whiten` reads. */
export interface WhitenInputs {
  /** [B, T] advantages or rewards of the whole batch. A gradient flows through where it requires one. */
  readonly values: Tensor;
  /** [B, T] above 0 where the entry counts. */
  readonly mask: Tensor;
  /** Add the mean back, so that only the scale changes. false when omitted. */
  readonly keepMean?: boolean | undefined;
}

/**
 * Values with mean 0 and variance 1 over the counted entries. Takes the whole batch: it couples the rows.
 *
 *     (x − mean)/√(var + 1e-8), plus the mean where it is kept; var divides by the number of counted entries
 *
 * Source: Engstrom et al. 2020, arXiv:2005.12729, §3, as an implementation detail of PPO.
 *
 * @returns [B, T], 0 where nothing counts, and everywhere in a batch without a counted entry
 * @throws ShapeError unless values and mask are [B, T] alike
 */
export function whiten({ values, mask, keepMean = false }: WhitenInputs): Tensor {
  assertSameShape('whiten', '[B, T]', { values, mask });
  const counted = countedEntries(mask);
  const read = values.where(counted, 0).to('float64'); // sums over a batch in bfloat16 keep two digits
  const count = counted.sum().clamp(1);
  const mean = read.sum().div(count);
  const centered = read.sub(mean).where(counted, 0);
  const variance = centered.square().sum().div(count);
  const scaled = centered.mul(variance.add(VARIANCE_EPSILON).rsqrt());
  const whitened = keepMean ? scaled.add(mean).where(counted, 0) : scaled;
  return whitened.to(floatingDtype(values));
}
