/** One optimizer step from accumulated gradients, and the sums of what its micro-batches report. */
import { NumericsError } from '../errors/index.js';
import { clipGradNorm, learningRateAt, type AdamW, type Schedule } from '../optim/index.js';
import type { Tensor } from '../torch/index.js';

/** What an update needs beside its gradients. */
export interface UpdateSettings {
  readonly schedule: Schedule;
  /** Largest global norm of the gradient; null leaves it as it is. */
  readonly maxGradNorm: number | null;
  /** Further parameters of the same optimizer, clipped on their own: a value model's. */
  readonly valueParameters?: readonly Tensor[] | undefined;
}

/**
 * Clips the accumulated gradient and takes an optimizer step. The gradient stays: the caller drops it, also when
 * something failed before the step.
 *
 * @param where the trainer and its step, for messages
 * @param update how many updates came before this one
 * @returns the gradient's norm before clipping and the learning rate used
 * @throws NumericsError when the loss or the gradient is not finite; nothing was updated then
 */
export function takeOptimizerStep(
  where: string,
  optimizer: AdamW,
  parameters: readonly Tensor[],
  settings: UpdateSettings & { loss: number; update: number },
): { gradNorm: number; valueGradNorm?: number; learningRate: number } {
  const { loss, update, maxGradNorm, schedule, valueParameters } = settings;
  const hint =
    'Lower learningRate or the KL coefficient, or resume from the last checkpoint with dtype float32.';
  if (!Number.isFinite(loss)) {
    throw new NumericsError(`${where}: the loss is ${loss}; no update was applied.`, { hint });
  }
  const clip = (clipped: readonly Tensor[], what: string): number => {
    const norm = clipGradNorm(clipped, maxGradNorm ?? Infinity);
    if (Number.isFinite(norm)) return norm;
    throw new NumericsError(`${where}: the ${what} is ${norm}; no update was applied.`, { hint });
  };
  const gradNorm = clip(parameters, 'gradient norm');
  const valueGradNorm =
    valueParameters && clip(valueParameters, 'gradient norm of the value model');
  const learningRate = learningRateAt(schedule, update);
  optimizer.step(learningRate);
  return { gradNorm, ...(valueGradNorm !== undefined && { valueGradNorm }), learningRate };
}

/** Names that combine by maximum over micro-batches; everything else adds up. */
const COMBINE_BY_MAXIMUM = new Set(['maxRatioDeviation']);
/** Names that are terms of the loss. The other sums are weighted means once they are divided by the sum of weights. */
const TERMS_OF_THE_LOSS = new Set(['loss', 'policyLoss', 'valueLoss']);

/** Sums of statistics over the micro-batches of one optimizer step. Reads each tensor when it is added. */
export class StatSums {
  private readonly sums = new Map<string, number>();

  add(stats: Readonly<Record<string, Tensor | number>>): void {
    for (const [name, value] of Object.entries(stats)) {
      const number = typeof value === 'number' ? value : value.item();
      const before = this.sums.get(name);
      if (before === undefined) this.sums.set(name, number);
      else if (COMBINE_BY_MAXIMUM.has(name)) this.sums.set(name, Math.max(before, number));
      else this.sums.set(name, before + number);
    }
  }

  /** The sum of one statistic, 0 where none was added. */
  get(name: string): number {
    return this.sums.get(name) ?? 0;
  }

  /**
   * Terms of the loss as they are, and everything else as a mean: where the weights of the loss do not add up to 1
   * (unscored rows, a sum over tokens, a constant divisor) a weighted sum of ratios or entropies would mean nothing.
   *
   * @param totalWeight Σ w of the whole optimizer step
   */
  means(totalWeight: number): Record<string, number> {
    return Object.fromEntries(
      Array.from(this.sums, ([name, value]) => [
        name,
        COMBINE_BY_MAXIMUM.has(name) || TERMS_OF_THE_LOSS.has(name) ? value : value / totalWeight,
      ]),
    );
  }
}

/** Means of what several optimizer steps of one training step reported (the maximum where that is how it combines). */
export class StepMeans {
  private readonly reports: Record<string, number>[] = [];

  add(report: Record<string, number>): void {
    this.reports.push(report);
  }

  read(): Record<string, number> {
    const names = new Set(this.reports.flatMap((report) => Object.keys(report)));
    return Object.fromEntries(
      Array.from(names, (name) => {
        const values = this.reports.flatMap((report) => report[name] ?? []);
        const combined = COMBINE_BY_MAXIMUM.has(name)
          ? Math.max(...values)
          : values.reduce((sum, value) => sum + value, 0) / values.length;
        return [name, combined];
      }),
    );
  }
}
