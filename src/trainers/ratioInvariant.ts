/**
 * The standing check of every on-policy trainer: before the first update after a rollout, the sampler (with its cache)
 * and the trainer (without) must give the sampled tokens the same probabilities.
 */
import { NumericsError } from '../errors/index.js';
import type { Dtype } from '../torch/index.js';

/** Above this ratio deviation a warning is given in float32. */
const WARN_ABOVE = 1e-4;
/** Above this one the run stops in float32. */
const STOP_ABOVE = 1e-2;
/** In 16-bit types single tokens differ by rounding; the mean must not. */
const STOP_ABOVE_MEAN_16_BIT = 0.05;

/** How far sampler and trainer are apart. */
export interface RatioDeviation {
  /** max |exp(logprobs − rolloutLogprobs) − 1| over tokens. */
  readonly max: number;
  readonly mean: number;
  /** A sentence for the log where the deviation is larger than rounding explains. */
  readonly warning: string | null;
}

/**
 * Compares the two computations.
 *
 * @param rows the same tokens' log-probabilities by trainer and sampler, nats; those with mask 0 are not read
 * @throws NumericsError when they differ so much that updates would be computed from wrong ratios
 */
export function checkRatioInvariant(
  where: string,
  dtype: Dtype,
  rows: readonly {
    readonly oldLogprobs: readonly number[];
    readonly rolloutLogprobs: readonly number[];
    readonly completionMask?: readonly number[] | undefined;
  }[],
): RatioDeviation {
  let max = 0;
  let sum = 0;
  let count = 0;
  for (const { oldLogprobs, rolloutLogprobs, completionMask } of rows) {
    oldLogprobs.forEach((value, index) => {
      if (completionMask?.[index] === 0) return; // an environment wrote it
      const deviation = Math.abs(Math.expm1(value - (rolloutLogprobs[index] ?? NaN)));
      // NaN must not slip through a comparison, nor be overwritten by a later number.
      if (Number.isNaN(deviation) || deviation > max) max = deviation;
      sum += deviation;
      count++;
    });
  }
  const mean = sum / count;
  const is16Bit = dtype === 'bfloat16' || dtype === 'float16';
  const stops = is16Bit ? !(mean <= STOP_ABOVE_MEAN_16_BIT) : !(max <= STOP_ABOVE);
  const found = `sampler and trainer disagree about the sampled tokens: |ratio − 1| is ${max.toExponential(2)} at most, ${mean.toExponential(2)} on average`;
  if (stops) {
    throw new NumericsError(`${where}: ${found}; no update was applied.`, {
      hint: 'Before the first update the two must be equal up to rounding. Look at the temperature, at tokens changed after sampling, and at weights that changed in between; report it if there are none.',
    });
  }
  const warning = !is16Bit && max > WARN_ABOVE ? `${where}: ${found}.` : null;
  return { max, mean, warning };
}
