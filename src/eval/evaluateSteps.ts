/** Measures how well a process reward model tells right from wrong steps. */
import { processRewardLoss } from '../algorithms/processReward.js';
import type { StepExample } from '../data/index.js';
import { NumericsError, ValueRangeError } from '../errors/index.js';
import type { StepModel } from '../models/index.js';
import { deriveSeed, stack, tensor, tidy, zerosLike, type Tensor } from '../torch/index.js';
import { calibrationError } from './calibration.js';
import { bootstrapInterval, mean, wilsonInterval, type Estimate } from './intervals.js';
import { probabilityOf, stepLogOdds } from './judgeSteps.js';

/** What to measure and how. */
export interface EvaluateStepsOptions {
  readonly model: StepModel;
  readonly examples: readonly StepExample[];
  /** Most tokens, padding included, of one forward pass. 4096 unless set. */
  readonly microBatchTokens?: number | undefined;
  /** Seed of the interval. 0 unless set. */
  readonly seed?: number | undefined;
}

/** What was measured. Every step counts the same. */
export interface StepEvaluation {
  readonly examples: number;
  readonly steps: number;
  /** Mean cross-entropy in nats. */
  readonly loss: number;
  /** Share of steps whose likelier class is the label's; a tie counts half. See `rowAccuracy` for the interval. */
  readonly accuracy: number;
  /** Mean over rows of the share of their steps that are judged right, with an interval over rows: steps depend. */
  readonly rowAccuracy: Estimate;
  /** Share of rows of which every step is judged right, with Wilson's interval. */
  readonly wholeRows: Estimate;
  /**
   * Of rows with a wrong step, the share whose first one is found: no step before it is judged wrong, and it is. Undefined
   * where no row has one.
   */
  readonly firstErrors: Estimate | undefined;
  /** Of rows without a wrong step, the share of which none is judged wrong. Undefined where every row has one. */
  readonly rightRows: Estimate | undefined;
  /** Harmonic mean of the two shares; undefined where one is. */
  readonly firstErrorF1: number | undefined;
  /** Share of right steps. A model that knows nothing has the accuracy of the larger class. */
  readonly rightShare: number;
  /** Mean probability of right steps; undefined where there are none. */
  readonly rightProbability: number | undefined;
  /** Mean probability of wrong steps; undefined where there are none. */
  readonly wrongProbability: number | undefined;
  /** See `calibrationError`: the confidence of a step is the probability of the likelier class. */
  readonly calibrationError: number;
}

/**
 * Judges the steps of held-out rows. A step is judged wrong where wrong is the likelier class.
 *
 * Source of `firstErrors`, `rightRows` and `firstErrorF1`: Zheng et al. 2024 (ProcessBench), arXiv:2412.06559: the accuracy
 * on erroneous samples, that on correct ones, and the harmonic mean of both, which is their F1 score.
 *
 * @throws ValueRangeError if there is no example; NumericsError where a probability is not a number
 */
export function evaluateSteps(options: EvaluateStepsOptions): StepEvaluation {
  const { model, examples, microBatchTokens, seed = 0 } = options;
  if (examples.length === 0) {
    throw new ValueRangeError('evaluateSteps: expected at least one example, received none.');
  }
  const odds = stepLogOdds(model, examples, microBatchTokens);
  const rows = examples.map(({ labels }, row) =>
    labels.map((label, step) => judged(label, odds[row]?.[step] ?? NaN)),
  );
  const steps = rows.flat();
  if (steps.some(({ logOdds }) => Number.isNaN(logOdds))) {
    throw new NumericsError('evaluateSteps: expected probabilities, but the model gave NaN.', {
      hint: 'Load it with dtype float32, or look at its training.',
    });
  }
  const hits = steps.map(({ hit }) => hit);
  const shares = rows.map((row) => mean(row.map(({ hit }) => hit)));
  const ofClass = (right: boolean): number | undefined => {
    const values = steps.filter(({ label }) => label === right);
    return values.length === 0 ? undefined : mean(values.map(({ probability }) => probability));
  };
  return {
    examples: examples.length,
    steps: steps.length,
    loss: lossOf(steps),
    accuracy: mean(hits),
    rowAccuracy: bootstrapInterval(shares, deriveSeed(seed, 'step accuracy')),
    wholeRows: wilsonInterval(shares.filter((share) => share === 1).length, examples.length),
    ...firstErrorsOf(rows),
    rightShare: mean(steps.map(({ label }) => Number(label))),
    rightProbability: ofClass(true),
    wrongProbability: ofClass(false),
    calibrationError: calibrationError({
      confidences: steps.map(({ probability }) => Math.max(probability, 1 - probability)),
      correct: hits,
    }),
  };
}

/** Numbers that a run logs: intervals as two of them. */
export function stepMetrics(evaluation: StepEvaluation): Record<string, number> {
  const { examples: _, steps: __, ...measured } = evaluation;
  const numbers = Object.entries(measured).flatMap(
    ([name, value]: [string, number | Estimate | undefined]): [string, number][] => {
      if (value === undefined) return [];
      if (typeof value === 'number') return [[name, value]];
      return [
        [name, value.value],
        [`${name}Low`, value.low],
        [`${name}High`, value.high],
      ];
    },
  );
  return Object.fromEntries(numbers);
}

type FirstErrors = Pick<StepEvaluation, 'firstErrors' | 'rightRows' | 'firstErrorF1'>;

function firstErrorsOf(rows: readonly (readonly Judged[])[]): FirstErrors {
  const found = rows.map((row) => ({
    // −1 of a row in which there is none.
    first: row.findIndex(({ label }) => !label),
    judged: row.findIndex(({ logOdds }) => logOdds < 0),
  }));
  const shareOf = (isFaulty: boolean): Estimate | undefined => {
    const some = found.filter(({ first }) => (first === -1) !== isFaulty);
    const hits = some.filter(({ first, judged: at }) => first === at).length;
    return some.length === 0 ? undefined : wilsonInterval(hits, some.length);
  };
  const [firstErrors, rightRows] = [shareOf(true), shareOf(false)];
  return { firstErrors, rightRows, firstErrorF1: harmonicMean(firstErrors, rightRows) };
}

function harmonicMean(a: Estimate | undefined, b: Estimate | undefined): number | undefined {
  if (a === undefined || b === undefined) return undefined;
  return a.value + b.value === 0 ? 0 : (2 * a.value * b.value) / (a.value + b.value);
}

interface Judged {
  readonly label: boolean;
  readonly logOdds: number;
  readonly probability: number;
  /** 1 where the likelier class is the label's, ½ where neither is likelier. */
  readonly hit: number;
}

function judged(label: boolean, logOdds: number): Judged {
  const isRight = logOdds > 0 === label ? 1 : 0;
  return {
    label,
    logOdds,
    probability: probabilityOf(logOdds),
    hit: logOdds === 0 ? 0.5 : isRight,
  };
}

function lossOf(steps: readonly Judged[]): number {
  const of = (values: readonly number[]): Tensor => tensor([[...values]], { dtype: 'float64' });
  return tidy(() => {
    const odds = of(steps.map(({ logOdds }) => logOdds));
    const { loss } = processRewardLoss({
      stepLogits: stack([zerosLike(odds), odds], 2),
      stepLabels: of(steps.map(({ label }) => Number(label))),
      stepMask: of(steps.map(() => 1)),
    });
    return { loss: loss.item() };
  }).loss;
}
