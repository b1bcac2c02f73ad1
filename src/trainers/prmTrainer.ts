/** Process reward models: learn to tell right from wrong steps. */
import { processRewardLoss } from '../algorithms/index.js';
import type { PrmConfig } from '../config/index.js';
import { padRight, tokenBudgetBatches, type StepExample } from '../data/index.js';
import { stepLogits, type StepModel } from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { tensor, tidy, type Tensor } from '../torch/index.js';
import { DataEpochs } from './dataEpochs.js';
import { withDropout } from './dropout.js';
import { StatSums, takeOptimizerStep } from './optimizerStep.js';
import { requirePositions, type PlacedSequence } from './requirePositions.js';
import type { SavedState } from './savedState.js';
import { stepRecord } from './stepRecord.js';
import type { GivenRecord, StepReport, Trainer } from './trainer.js';
import { trainingRows, type TrainingExamples, type TrainingRows } from './trainingRows.js';

/** What the training of a process reward model acts on, built before. */
export interface PrmParts {
  readonly model: StepModel;
  readonly optimizer: AdamW;
  readonly examples: TrainingExamples<StepExample>;
  /** Writes answers down as text; none are without it. */
  readonly tokenizer?: Tokenizer | undefined;
}

/**
 * Maximises the likelihood of the judgements of single steps, read at the last token of the separator after each:
 *
 *     L = −Σᵢ Σₛ (yᵢₛ·log pᵢₛ + (1 − yᵢₛ)·log(1 − pᵢₛ)) / Σᵢ Sᵢ
 *
 * The divisor is the number of steps of the whole optimizer step, so gradient accumulation changes nothing, and a step of
 * a long answer weighs what one of a short answer does. Source: Lightman et al. 2023, arXiv:2305.20050, §2.6; TRL 1.13,
 * PRMTrainer. Metrics: docs/algorithms/process-rewards.md.
 */
export class PrmTrainer implements Trainer {
  readonly method = 'prm';
  private readonly parts: PrmParts;
  private readonly config: PrmConfig;
  private readonly parameters: readonly Tensor[];
  private readonly examples: TrainingRows<StepExample>;
  private readonly data: DataEpochs;

  /** @throws DataError for an example that is longer than the model's positions */
  constructor(parts: PrmParts, config: PrmConfig) {
    this.parts = parts;
    this.config = config;
    this.examples = trainingRows(parts.examples, (examples) => {
      requirePositions('PrmTrainer', 'prompts and steps', examples.map(lengthOf), parts.model);
      return examples;
    });
    this.parameters = parts.model.parameters();
    this.data = new DataEpochs('PrmTrainer', this.method, this.examples.sources, config);
  }

  get step(): number {
    return this.data.step;
  }

  get totalSteps(): number {
    return this.data.totalSteps;
  }

  /** One optimizer step on the next batch of examples. */
  async trainStep(): Promise<StepReport> {
    const batch = await this.examples.at(this.data.next());
    const { stats, scores, gradNorm, learningRate } = this.update(batch);
    this.data.advance();
    const metrics = {
      loss: stats.get('loss'),
      accuracy: stats.get('accuracy'),
      ...probabilities(stats),
      gradNorm,
      learningRate,
      steps: countSteps(batch),
      tokens: batch.reduce((sum, { inputIds }) => sum + inputIds.length, 0),
      epoch: this.data.epoch,
    };
    return { metrics, samples: [], given: this.records(batch, scores), warnings: [] };
  }

  private records(
    batch: readonly StepExample[],
    scores: ReadonlyMap<number, readonly number[]>,
  ): GivenRecord[] {
    const { tokenizer } = this.parts;
    if (!tokenizer) return [];
    const steps = countSteps(batch);
    return batch.slice(0, this.config.samplesPerStep).map((example, place) => {
      const known = { example, place, scores: scores.get(place) ?? [], steps };
      return stepRecord(known, this.step, tokenizer);
    });
  }

  private update(batch: readonly StepExample[]): {
    stats: StatSums;
    scores: ReadonlyMap<number, readonly number[]>;
    gradNorm: number;
    learningRate: number;
  } {
    const { optimizer } = this.parts;
    const { learningRate: base, warmupSteps, schedule, maxGradNorm } = this.config;
    try {
      const { stats, scores } = this.accumulate(batch);
      const where = `PrmTrainer: step ${this.step}`;
      const taken = takeOptimizerStep(where, optimizer, this.parameters, {
        loss: stats.get('loss'),
        update: this.step,
        maxGradNorm,
        schedule: { ...schedule, base, warmupSteps, totalSteps: this.totalSteps },
      });
      return { stats, scores, ...taken };
    } finally {
      optimizer.zeroGrad();
    }
  }

  /** Gradients accumulate over micro-batches and equal those of the whole batch. With the steps' scores by answer. */
  private accumulate(batch: readonly StepExample[]): {
    stats: StatSums;
    scores: Map<number, readonly number[]>;
  } {
    const stats = new StatSums();
    const scores = new Map<number, readonly number[]>();
    const steps = countSteps(batch);
    const lengths = batch.map(({ inputIds }) => inputIds.length);
    const dropout = { ...this.config, model: this.parts.model, step: this.step };
    for (const [at, indices] of tokenBudgetBatches(
      lengths,
      this.config.microBatchTokens,
    ).entries()) {
      const part = indices.map((index) => batch[index] as StepExample);
      tidy(() => {
        const {
          loss,
          stats: measured,
          logits,
        } = withDropout({ ...dropout, part: at }, () => this.lossOf(part, steps));
        loss.backward();
        if (indices.some((index) => index < this.config.samplesPerStep))
          scoresOf(logits, part).forEach((found, place) =>
            scores.set(indices[place] as number, found),
          );
        stats.add({ loss: loss.detach(), ...measured });
      });
    }
    return { stats, scores };
  }

  /** @param steps of the whole optimizer step */
  private lossOf(
    part: readonly StepExample[],
    steps: number,
  ): ReturnType<typeof processRewardLoss> & { logits: Tensor } {
    const { model } = this.parts;
    const { ids, rows, columns, lengths } = padRight(
      part.map(({ inputIds }) => inputIds),
      0, // never read: lengths say where rows end
    );
    const inputIds = tensor(ids, { shape: [rows, columns], dtype: 'int64', device: model.device });
    const stepEnds = part.map((example) => example.stepEnds);
    const logits = stepLogits(model, { inputIds, lengths, stepEnds });
    const perStep = (valuesOf: (example: StepExample) => readonly number[]): Tensor =>
      spread(part.map(valuesOf), logits);
    const stepMask = perStep(({ labels }) => labels.map(() => 1));
    const loss = processRewardLoss({
      stepLogits: logits,
      stepLabels: perStep(({ labels }) => labels.map(Number)),
      stepMask,
      stepWeights: stepMask.div(steps),
    });
    return { ...loss, logits };
  }

  state(): Record<string, unknown> {
    return this.data.state();
  }

  tensors(): Map<string, Tensor> {
    return this.parts.optimizer.stateTensors();
  }

  restore(state: SavedState, tensors: ReadonlyMap<string, Tensor>): void {
    // Everything is read before anything is changed.
    const restoreData = this.data.restorer(state);
    this.parts.optimizer.loadState(tensors);
    restoreData();
  }
}

/** The probability that each step is right, answer by answer. */
function scoresOf(logits: Tensor, part: readonly StepExample[]): number[][] {
  const right = logits.detach().softmax(-1).select(2, 1); // for the record
  const flat = Array.from(right.toTypedArray(), Number);
  const width = right.size(1);
  return part.map(({ stepEnds }, row) => flat.slice(row * width, row * width + stepEnds.length));
}

/** One number per step as [B, S], 0 beyond a row's steps. */
function spread(values: readonly (readonly number[])[], like: Tensor): Tensor {
  const width = like.size(1);
  const flat = new Float64Array(values.length * width);
  values.forEach((row, index) => flat.set(row, index * width));
  return tensor(flat, { shape: [values.length, width], dtype: like.dtype, device: like.device });
}

/** Means over right and over wrong steps, each where there is one. */
function probabilities(stats: StatSums): Record<string, number> {
  const rightShare = stats.get('rightShare');
  // The shares of a batch are sums of 1/steps: what is left of 1 may be a rounding.
  const wrongShare = rightShare > 1 - 1e-6 ? 0 : 1 - rightShare;
  return {
    rightShare,
    ...(rightShare > 0 && { rightProbability: stats.get('rightProbability') / rightShare }),
    ...(wrongShare > 0 && { wrongProbability: stats.get('wrongProbability') / wrongShare }),
  };
}

function countSteps(examples: readonly StepExample[]): number {
  return examples.reduce((sum, { stepEnds }) => sum + stepEnds.length, 0);
}

function lengthOf({ inputIds, row }: StepExample): PlacedSequence {
  return { tokens: inputIds.length, row };
}
