/** How far stated probabilities are from what happens. Plain numbers. */
import { ShapeError, ValueRangeError } from '../errors/index.js';

/** What `calibrationError` reads. */
export interface CalibrationInputs {
  /** Of each case, the probability that was given to the answer that was predicted, from `range`. */
  readonly confidences: readonly number[];
  /** 1 where the predicted answer was right, 0 where it was wrong; between for a case that is half right. */
  readonly correct: readonly number[];
  /** What each case counts; all the same when omitted. */
  readonly weights?: readonly number[] | undefined;
  /** Equal bins over `range`. 10 unless set. */
  readonly bins?: number | undefined;
  /** Where confidences lie: from 0.5 to 1 (unless set) where the likelier of two answers is predicted. */
  readonly range?: readonly [number, number] | undefined;
}

/**
 * The expected calibration error: the mean distance between confidence and accuracy over bins of cases with similar
 * confidence.
 *
 *     ECE = Σ_b (W_b / W)·|accuracy_b − confidence_b|        W_b the weight of the cases in bin b
 *
 * Source: Guo et al. 2017, arXiv:1706.04599, Eq. 3. We differ in the bins of two-way predictions, which divide the half
 * of [0, 1] that confidences can lie in, and in weights. A value on the border of two bins belongs to the upper one.
 *
 * @returns from 0, of a model whose 70 % are right in 70 % of cases, to 1
 * @throws ValueRangeError for no weight, no bin, or a number out of its range; ShapeError for lists of other lengths
 */
export function calibrationError(inputs: CalibrationInputs): number {
  const { confidences, correct, bins = 10, range = [0.5, 1] } = inputs;
  const where = 'calibrationError';
  const { weights = confidences.map(() => 1) } = inputs;
  if (correct.length !== confidences.length || weights.length !== confidences.length) {
    throw new ShapeError(
      `${where}: expected as many correct and weights as the ${confidences.length} confidences, received ${correct.length} and ${weights.length}.`,
    );
  }
  if (!Number.isInteger(bins) || bins < 1) {
    throw new ValueRangeError(`${where}: expected a positive number of bins, received ${bins}.`);
  }
  const [low, high] = range;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (!(total > 0)) {
    throw new ValueRangeError(`${where}: expected cases of some weight, received ${total} in all.`);
  }
  const gaps = new Float64Array(bins);
  confidences.forEach((confidence, index) => {
    if (!(confidence >= low && confidence <= high)) {
      throw new ValueRangeError(
        `${where}: expected confidences from ${low} to ${high}, received ${confidence}.`,
      );
    }
    const bin = Math.min(bins - 1, Math.floor(((confidence - low) / (high - low)) * bins));
    const gap = (correct[index] ?? NaN) - confidence;
    gaps[bin] = (gaps[bin] ?? 0) + (weights[index] ?? NaN) * gap;
  });
  return gaps.reduce((sum, gap) => sum + Math.abs(gap), 0) / total;
}
