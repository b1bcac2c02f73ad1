/** Reward models: learn a score from pairs of completions of which one was preferred. */
import { bradleyTerryLoss } from '../algorithms/index.js';
import type { RewardConfig } from '../config/index.js';
import {
  groupComparisons,
  tokenBudgetBatches,
  type Comparison,
  type PreferenceExample,
} from '../data/index.js';
import { sequenceScores, type ScalarModel } from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import { tensor, tidy, type Tensor } from '../torch/index.js';
import { DataEpochs } from './dataEpochs.js';
import { withDropout } from './dropout.js';
import { StatSums, takeOptimizerStep } from './optimizerStep.js';
import { requirePositions, type PlacedSequence } from './requirePositions.js';
import type { SavedState } from './savedState.js';
import { collate } from './tokenRows.js';
import type { StepReport, Trainer } from './trainer.js';
import { isSource, trainingRows, type ExampleSource, type TrainingRows } from './trainingRows.js';

/** What the training of a reward model acts on, built before. */
export interface RewardParts {
  readonly model: ScalarModel;
  readonly optimizer: AdamW;
  /** Pairs, or comparisons that stay in their files. */
  readonly pairs: readonly PreferenceExample[] | ExampleSource<Comparison>;
}

/**
 * Maximises the likelihood of preferences under the model of Bradley and Terry, by the scores at the last token:
 *
 *     L = Σ_c 1/(C·|c|) · Σ_{(w, l) ∈ c} −log σ(r(x, y_w) − r(x, y_l) − m) + centerCoef·(r(x, y_w) + r(x, y_l))²
 *
 * over the C comparisons c of a step. Every comparison weighs the same, however many pairs its ranking has, and each of
 * its completions is read once.
 *
 * Source: InstructGPT, arXiv:2203.02155, §3.5 and Eq. 1. Metrics: docs/algorithms/reward-models.md.
 */
export class RewardTrainer implements Trainer {
  readonly method = 'reward';
  private readonly parts: RewardParts;
  private readonly config: RewardConfig;
  private readonly comparisons: TrainingRows<Comparison>;
  private readonly parameters: readonly Tensor[];
  private readonly data: DataEpochs;

  /** @throws DataError for a completion that is longer than the model's positions */
  constructor(parts: RewardParts, config: RewardConfig) {
    this.parts = parts;
    this.config = config;
    const { pairs, model } = parts;
    const comparisons = isSource(pairs) ? pairs : groupComparisons(pairs);
    this.comparisons = trainingRows(comparisons, (read) => {
      requirePositions('RewardTrainer', 'prompts and completions', read.map(longestOf), model);
      return read;
    });
    this.parameters = parts.model.parameters();
    this.data = new DataEpochs('RewardTrainer', this.method, this.comparisons.sources, config);
  }

  get step(): number {
    return this.data.step;
  }

  get totalSteps(): number {
    return this.data.totalSteps;
  }

  /** One optimizer step on the next batch of comparisons. */
  async trainStep(): Promise<StepReport> {
    const batch = await this.comparisons.at(this.data.next());
    const { stats, scores, gradNorm, learningRate } = this.update(batch);
    this.data.advance();
    const named = ['loss', 'accuracy', 'margin', 'chosenReward', 'rejectedReward', 'probability'];
    const metrics = {
      ...Object.fromEntries(named.map((name) => [name, stats.get(name)])),
      rewardStd: populationStd(scores),
      gradNorm,
      learningRate,
      pairs: batch.reduce((sum, { pairs }) => sum + pairs.length, 0),
      tokens: batch.flatMap(lengthsOf).reduce((sum, length) => sum + length, 0),
      epoch: this.data.epoch,
    };
    return { metrics, samples: [], warnings: [] };
  }

  private update(batch: readonly Comparison[]): {
    stats: StatSums;
    scores: number[];
    gradNorm: number;
    learningRate: number;
  } {
    const { optimizer } = this.parts;
    const { learningRate: base, warmupSteps, schedule, maxGradNorm } = this.config;
    try {
      const { stats, scores } = this.accumulate(batch);
      const where = `RewardTrainer: step ${this.step}`;
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

  /**
   * Gradients accumulate over micro-batches and equal those of the whole batch. A comparison is never divided: its loss
   * couples its completions.
   */
  private accumulate(batch: readonly Comparison[]): { stats: StatSums; scores: number[] } {
    const stats = new StatSums();
    const scores: number[] = [];
    const dropout = { ...this.config, model: this.parts.model, step: this.step };
    for (const [at, indices] of microBatches(batch, this.config.microBatchTokens).entries()) {
      const part = indices.map((index) => batch[index] as Comparison);
      tidy(() => {
        const read = withDropout({ ...dropout, part: at }, () => this.scoresOf(part));
        const { loss, ...measured } = this.lossOf(part, read, batch.length);
        loss.backward();
        stats.add({ loss: loss.detach(), ...measured });
        scores.push(...Array.from(read.toTypedArray(), Number));
      });
    }
    return { stats, scores };
  }

  /** @returns [R] the score of every completion of the comparisons, one comparison after the other */
  private scoresOf(part: readonly Comparison[]): Tensor {
    const { model } = this.parts;
    const rows = part.flatMap(({ completions }) => completions);
    return sequenceScores(model, collate(rows, model.device));
  }

  /**
   * The part of the step's loss that these comparisons have, and statistics with its weights.
   *
   * @param count comparisons of the whole step
   */
  private lossOf(
    part: readonly Comparison[],
    scores: Tensor,
    count: number,
  ): { loss: Tensor } & Record<string, Tensor> {
    const { useMargins, centerCoef } = this.config;
    const pairs = pairsOf(part, count);
    const at = (places: number[]): Tensor =>
      scores.indexSelect(0, tensor(Int32Array.from(places), { device: scores.device }));
    const like = { dtype: scores.dtype, device: scores.device };
    const weights = tensor(Float64Array.from(pairs.map(({ weight }) => weight))).to(like);
    const margins = tensor(Float64Array.from(pairs.map(({ margin }) => margin))).to(like);
    const chosenRewards = at(pairs.map(({ chosen }) => chosen));
    const rejectedRewards = at(pairs.map(({ rejected }) => rejected));
    const { loss, stats } = bradleyTerryLoss({
      chosenRewards,
      rejectedRewards,
      ...(useMargins && { margins }),
      centerCoef,
      weights,
    });
    const lead = chosenRewards.detach().sub(rejectedRewards.detach()); // a metric
    return { loss, ...stats, probability: lead.sigmoid().mul(weights).sum() };
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

function longestOf(comparison: Comparison): PlacedSequence {
  return { tokens: Math.max(...lengthsOf(comparison)), row: comparison.row };
}

function lengthsOf({ completions }: Comparison): number[] {
  return completions.map(({ promptIds, completionIds }) => promptIds.length + completionIds.length);
}

/** Groups of comparisons that fit a token budget; one that does not fit by itself is a group of its own. */
function microBatches(batch: readonly Comparison[], maxTokens: number): number[][] {
  const most = Math.max(...batch.map(({ completions }) => completions.length));
  const longest = batch.map((comparison) => Math.max(...lengthsOf(comparison)));
  return tokenBudgetBatches(longest, Math.max(1, Math.floor(maxTokens / most)));
}

/** The pairs of comparisons with what each weighs; indices count through the completions of all of them. */
function pairsOf(part: readonly Comparison[], count: number) {
  let start = 0;
  return part.flatMap(({ completions, pairs }) => {
    const first = start;
    start += completions.length;
    return pairs.map(({ chosen, rejected, margin }) => ({
      chosen: first + chosen,
      rejected: first + rejected,
      margin,
      weight: 1 / (count * pairs.length),
    }));
  });
}

function populationStd(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
}
