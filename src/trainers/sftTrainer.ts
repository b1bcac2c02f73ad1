/** Supervised fine-tuning: imitate the completions of a data set, token by token. */
import { tokenWeights } from '../algorithms/index.js';
import type { SftConfig } from '../config/index.js';
import { BatchOrder, type BatchPosition, type SftExample } from '../data/index.js';
import { CheckpointError } from '../errors/index.js';
import {
  backwardTokenLogprobs,
  tokenLogprobs,
  type Decoder,
  type TokenLogprobs,
} from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import { deriveSeed, noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { StatSums, takeOptimizerStep } from './optimizerStep.js';
import { collate, microBatches, type TokenRow, type TokenTensors } from './tokenRows.js';
import type { StepReport, Trainer } from './trainer.js';

/** What supervised fine-tuning acts on, built before. */
export interface SftParts {
  readonly model: Decoder;
  readonly optimizer: AdamW;
  readonly examples: readonly SftExample[];
  /** Held-out examples, for `evaluate`. */
  readonly evalExamples?: readonly SftExample[] | undefined;
}

interface SftRow extends TokenRow {
  /** One per completion token; 0 leaves a token out of the loss. */
  readonly mask: Uint8Array;
}

/**
 * Minimises the negative log-likelihood of the completions:
 *
 *     L = −Σᵢ Σₜ mᵢₜ · log π(yᵢₜ | xᵢ, yᵢ,₍<ₜ₎) / Σᵢ Σₜ mᵢₜ
 *
 * The divisor is the number of trained tokens of the whole optimizer step, so gradient accumulation changes nothing.
 * Source: InstructGPT, arXiv:2203.02155, §3.5 (supervised fine-tuning). Metrics: docs/algorithms/sft.md.
 */
export class SftTrainer implements Trainer {
  readonly method = 'sft';
  readonly totalSteps: number;
  private readonly parts: SftParts;
  private readonly config: SftConfig;
  private readonly rows: readonly SftRow[];
  private readonly parameters: readonly Tensor[];
  private order: BatchOrder;
  private stepsDone = 0;

  constructor(parts: SftParts, config: SftConfig) {
    this.parts = parts;
    this.config = config;
    this.rows = parts.examples.map(toRow);
    this.parameters = parts.model.parameters();
    this.totalSteps =
      config.maxSteps ??
      Math.max(1, Math.ceil((config.epochs * this.rows.length) / config.batchSize));
    this.order = this.orderFrom();
  }

  get step(): number {
    return this.stepsDone;
  }

  private orderFrom(position?: BatchPosition): BatchOrder {
    const seed = deriveSeed(this.config.seed, 'sft order');
    return new BatchOrder(
      { rowCount: this.rows.length, batchSize: this.config.batchSize, seed },
      position,
    );
  }

  /** One optimizer step on the next batch of examples. */
  trainStep(): Promise<StepReport> {
    const batch = this.order.next().map((index) => this.rows[index] as SftRow);
    const sums = this.accumulate(batch);
    const loss = sums.get('loss');
    const { gradNorm, learningRate } = takeOptimizerStep(
      `SftTrainer: step ${this.stepsDone}`,
      this.parts.optimizer,
      this.parameters,
      {
        loss,
        update: this.stepsDone,
        maxGradNorm: this.config.maxGradNorm,
        schedule: this.schedule(),
      },
    );
    this.stepsDone++;
    const metrics = {
      loss,
      perplexity: Math.exp(loss),
      gradNorm,
      learningRate,
      trainedTokens: countTrained(batch),
      tokens: batch.reduce((sum, row) => sum + row.promptIds.length + row.completionIds.length, 0),
      epoch: this.order.state().epoch + this.order.state().position / this.rows.length,
    };
    return Promise.resolve({ metrics, samples: [], warnings: [] });
  }

  /** Loss and perplexity of the held-out examples under the present weights. */
  evaluate(): { loss: number; perplexity: number } {
    const rows = (this.parts.evalExamples ?? []).map(toRow);
    const sums = new StatSums();
    if (rows.length > 0) {
      this.forEachMicroBatch(rows, (batch, lossOf) =>
        sums.add({ loss: noGrad(() => lossOf(tokenLogprobs(this.parts.model, batch)).loss) }),
      );
    }
    const loss = rows.length > 0 ? sums.get('loss') : NaN;
    return { loss, perplexity: Math.exp(loss) };
  }

  /** Gradients accumulate over micro-batches and equal those of the whole batch. */
  private accumulate(rows: readonly SftRow[]): StatSums {
    const sums = new StatSums();
    this.forEachMicroBatch(rows, (batch, lossOf) =>
      sums.add(backwardTokenLogprobs(this.parts.model, batch, lossOf)),
    );
    return sums;
  }

  private forEachMicroBatch(
    rows: readonly SftRow[],
    visit: (batch: TokenTensors, lossOf: (scored: TokenLogprobs) => { loss: Tensor }) => void,
  ): void {
    const { device } = this.parts.model;
    const totals = { sequences: rows.length, prompts: rows.length, tokens: countTrained(rows) };
    for (const indices of microBatches(rows, this.config.microBatchTokens)) {
      const part = indices.map((index) => rows[index] as SftRow);
      tidy(() => {
        const batch = collate(part, device);
        visit(batch, ({ logprobs }) => {
          const mask = trainedMask(part, batch.columns, logprobs);
          const weights = tokenWeights(mask, { kind: 'tokenMean' }, totals);
          // Where, not a product alone: 0 · −∞ at a token that is not trained would be NaN.
          return { loss: logprobs.where(mask.gt(0), 0).mul(weights).sum().neg() };
        });
      });
    }
  }

  private schedule(): Parameters<typeof takeOptimizerStep>[3]['schedule'] {
    const { learningRate: base, warmupSteps, schedule } = this.config;
    return { ...schedule, base, warmupSteps, totalSteps: this.totalSteps };
  }

  state(): Record<string, unknown> {
    return {
      method: this.method,
      step: this.stepsDone,
      rows: this.rows.length,
      order: this.order.state(),
    };
  }

  tensors(): Map<string, Tensor> {
    return this.parts.optimizer.stateTensors();
  }

  restore(state: Readonly<Record<string, unknown>>, tensors: ReadonlyMap<string, Tensor>): void {
    if (state['method'] !== this.method || state['rows'] !== this.rows.length) {
      throw new CheckpointError(
        `SftTrainer: expected the state of an sft run over ${this.rows.length} examples, received one of ` +
          `${String(state['method'])} over ${String(state['rows'])}.`,
        { hint: 'Resume with the data and settings that the run was started with.' },
      );
    }
    this.parts.optimizer.loadState(tensors);
    this.stepsDone = state['step'] as number;
    this.order = this.orderFrom(state['order'] as BatchPosition);
  }
}

function toRow({ inputIds, completionStart, completionMask: mask }: SftExample): SftRow {
  return {
    promptIds: inputIds.slice(0, completionStart),
    completionIds: inputIds.slice(completionStart),
    mask: mask.subarray(completionStart),
  };
}

function countTrained(rows: readonly SftRow[]): number {
  return rows.reduce((sum, { mask }) => sum + mask.reduce((count, flag) => count + flag, 0), 0);
}

function trainedMask(rows: readonly SftRow[], columns: number, like: Tensor): Tensor {
  const flat = new Uint8Array(rows.length * columns);
  rows.forEach(({ mask }, index) => flat.set(mask, index * columns));
  const shape = [rows.length, columns];
  return tensor(flat, { shape, dtype: like.dtype, device: like.device });
}
