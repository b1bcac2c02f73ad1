import { assertIntegerAtLeast, assertPositive } from '../torch/index.js';
import { ValueRangeError } from '../errors/index.js';

/** How the learning rate moves over a run. */
export interface Schedule {
  /** What happens after the warm-up. */
  readonly kind: 'constant' | 'linear' | 'cosine';
  /** The learning rate at the end of the warm-up. */
  readonly base: number;
  /** Steps over which the rate rises from 0: 0 unless said. */
  readonly warmupSteps?: number | undefined;
  /** Steps of the whole run. */
  readonly totalSteps: number;
  /** The rate at the end as a share of `base`, for linear and cosine: 0 unless said. */
  readonly minRatio?: number | undefined;
}

/**
 * The learning rate of one step. W = warmupSteps, N = totalSteps, r = minRatio, p = (step − W)/(N − W) limited to [0, 1].
 *
 *     step < W:  base · step/W
 *     constant:  base
 *     linear:    base · (r + (1 − r)·(1 − p))
 *     cosine:    base · (r + (1 − r)·(1 + cos πp)/2)
 *
 * Source: transformers' get_constant_schedule_with_warmup, get_linear_schedule_with_warmup,
 * get_cosine_schedule_with_warmup and get_cosine_with_min_lr_schedule_with_warmup, to which it is equal up to step N (so
 * the first step of a warm-up has rate 0). We differ beyond N, where the rate stays at r·base.
 *
 * @param step updates made so far: 0 for the first
 * @throws ValueRangeError for a negative or fractional count, base ≤ 0, or r outside [0, 1]
 */
export function learningRateAt(schedule: Schedule, step: number): number {
  const { kind, base, warmupSteps = 0, totalSteps, minRatio = 0 } = schedule;
  assertPositive('learningRateAt', 'base', base);
  assertIntegerAtLeast('learningRateAt', 'warmupSteps', warmupSteps, 0);
  assertIntegerAtLeast('learningRateAt', 'totalSteps', totalSteps, 0);
  assertIntegerAtLeast('learningRateAt', 'step', step, 0);
  if (!(minRatio >= 0 && minRatio <= 1))
    throw new ValueRangeError(
      `learningRateAt: expected minRatio to be from 0 to 1, received ${minRatio}.`,
    );
  if (step < warmupSteps) return (base * step) / warmupSteps;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
  switch (kind) {
    case 'constant':
      return base;
    case 'linear':
      return base * (minRatio + (1 - minRatio) * (1 - progress));
    case 'cosine':
      return base * (minRatio + (1 - minRatio) * 0.5 * (1 + Math.cos(Math.PI * progress)));
  }
}
