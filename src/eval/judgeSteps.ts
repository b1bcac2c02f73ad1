/** What a process reward model says of the steps of answers. */
import { aggregateStepScores, type StepAggregation } from '../algorithms/processReward.js';
import {
  padRight,
  promptOf,
  rowsFromObjects,
  splitSteps,
  StepEncoder,
  tokenBudgetBatches,
  type Row,
  type StepTokens,
} from '../data/index.js';
import { NumericsError, ShapeError } from '../errors/index.js';
import { stepLogits, type StepModel } from '../models/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { noGrad, tensor, tidy } from '../torch/index.js';

/**
 * The logarithm of the odds that each step is right, log p/(1 − p): the difference of its two logits.
 *
 * @param microBatchTokens most tokens, padding included, of one forward pass
 * @returns per row one number per step; none for a row without steps
 */
export function stepLogOdds(
  model: StepModel,
  rows: readonly StepTokens[],
  microBatchTokens = 4096,
): number[][] {
  const found: number[][] = rows.map(() => []);
  const judged = [...rows.keys()].filter((index) => (rows[index]?.stepEnds.length ?? 0) > 0);
  const lengths = judged.map((index) => rows[index]?.inputIds.length ?? 0);
  for (const places of tokenBudgetBatches(lengths, microBatchTokens)) {
    const indices = places.map((place) => judged[place] as number);
    const part = indices.map((index) => rows[index] as StepTokens);
    const values = noGrad(() => tidy(() => ({ rows: logOddsOf(model, part) }))).rows;
    indices.forEach((index, place) => {
      found[index] = values[place] ?? [];
    });
  }
  return found;
}

function logOddsOf(model: StepModel, part: readonly StepTokens[]): number[][] {
  const padded = padRight(
    part.map(({ inputIds }) => inputIds),
    0, // never read: lengths say where rows end
  );
  const shape = [padded.rows, padded.columns];
  const inputIds = tensor(padded.ids, { shape, dtype: 'int64', device: model.device });
  const stepEnds = part.map((row) => row.stepEnds);
  const logits = stepLogits(model, { inputIds, lengths: padded.lengths, stepEnds });
  const odds = logits.select(2, 1).sub(logits.select(2, 0));
  const width = odds.size(1);
  const flat = Array.from(odds.toTypedArray(), Number);
  return stepEnds.map((ends, row) => flat.slice(row * width, row * width + ends.length));
}

/** The probability with these log-odds. */
export function probabilityOf(logOdds: number): number {
  return 1 / (1 + Math.exp(-logOdds));
}

/** A step of a completion as a process reward model sees it. */
export interface JudgedStep {
  readonly text: string;
  /** Where it ends in the completion, its separator included, in UTF-16 units. */
  readonly end: number;
  /** The probability that it is right. */
  readonly score: number;
}

/** What `judgeSteps` reads. */
export interface JudgeStepsOptions {
  readonly model: StepModel;
  /** The model's own. Prompts and steps are tokenized by it, whatever tokenizer wrote them. */
  readonly tokenizer: Tokenizer;
  /** Rows with a `prompt`, one per completion. */
  readonly rows: readonly Row[];
  readonly completions: readonly string[];
  /** What stands between steps; what the model was trained with unless set. */
  readonly separator?: string | undefined;
  readonly microBatchTokens?: number | undefined;
}

/**
 * Cuts completions into steps and judges each, tokenized as `tokenizeSteps` does for training.
 *
 * @returns per completion its steps; none where it is nothing but white space
 * @throws ShapeError unless there are as many rows as completions
 * @throws DataError for a row without a usable prompt; NumericsError where a score is not a number
 */
export function judgeSteps(options: JudgeStepsOptions): JudgedStep[][] {
  const { model, tokenizer, rows, completions } = options;
  if (rows.length !== completions.length)
    throw new ShapeError(
      `judgeSteps: expected as many prompts as completions, received ${rows.length} and ${completions.length}.`,
    );
  const { separator = model.stepSeparator } = options;
  const encoder = new StepEncoder(tokenizer, separator);
  const steps = completions.map((completion) => splitSteps(completion, separator));
  const encoded = rows.map((row, index) =>
    encoder.encode(
      promptOf(row, tokenizer).inputIds,
      (steps[index] ?? []).map(({ text }) => text),
    ),
  );
  const odds = stepLogOdds(model, encoded, options.microBatchTokens);
  return steps.map((own, index) =>
    own.map((step, at) => {
      const score = probabilityOf(odds[index]?.[at] ?? NaN);
      if (Number.isNaN(score))
        throw new NumericsError(
          'judgeSteps: expected probabilities, but the process reward model gave NaN.',
          { hint: 'Load it with dtype float32, or look at its training.' },
        );
      return { ...step, score };
    }),
  );
}

/** What `scoreSteps` reads. */
export interface ScoreStepsOptions extends Omit<JudgeStepsOptions, 'rows'> {
  /** A prompt per completion: a string, or a list of messages for the tokenizer's chat template. */
  readonly prompts: readonly unknown[];
  /** How the scores of a completion's steps become one. */
  readonly kind: StepAggregation;
}

/**
 * One score per completion from those of its steps: a process reward model as a verifier.
 *
 * Source: Lightman et al. 2023, arXiv:2305.20050, §2.6 (the product of the steps' probabilities); see
 * `aggregateStepScores`.
 *
 * @returns from 0 to 1; NaN for a completion without a step
 * @throws as `judgeSteps`; ValueRangeError for an unknown kind
 */
export function scoreSteps({ prompts, kind, ...options }: ScoreStepsOptions): number[] {
  const rows = rowsFromObjects(prompts.map((prompt) => ({ prompt })));
  return aggregateSteps(judgeSteps({ ...options, rows }), kind);
}

/**
 * One number per completion from its judged steps, NaN where there is none.
 *
 * @throws as `aggregateStepScores`
 */
export function aggregateSteps(
  judged: readonly (readonly JudgedStep[])[],
  kind: StepAggregation,
): number[] {
  if (judged.length === 0) return [];
  const width = judged.reduce((most, steps) => Math.max(most, steps.length), 0);
  const table = (valueOf: (step: JudgedStep) => number): number[][] =>
    judged.map((steps) =>
      Array.from({ length: width }, (_, at) => {
        const step = steps[at];
        return step === undefined ? 0 : valueOf(step);
      }),
    );
  return tidy(() => ({
    scores: Array.from(
      aggregateStepScores({
        stepScores: tensor(
          table(({ score }) => score),
          { dtype: 'float64' },
        ),
        stepMask: tensor(table(() => 1)),
        kind,
      }).toTypedArray(),
      Number,
    ),
  })).scores;
}
