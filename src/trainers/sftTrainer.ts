/** Supervised fine-tuning: imitate the completions of a data set, token by token. */
import { tokenWeights } from '../algorithms/index.js';
import type { SftConfig } from '../config/index.js';
import type { SftExample } from '../data/index.js';
import { DataError, ValueRangeError } from '../errors/index.js';
import {
  backwardTokenLogprobs,
  tokenLogprobs,
  type Decoder,
  type TokenLogprobs,
} from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import { noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { DataEpochs } from './dataEpochs.js';
import { withDropout } from './dropout.js';
import { StatSums, takeOptimizerStep } from './optimizerStep.js';
import { rowBatches } from './packedRows.js';
import type { SavedState } from './savedState.js';
import type { TokenRow, TokenTensors } from './tokenRows.js';
import type { StepReport, Trainer } from './trainer.js';
import { trainingRows, type TrainingExamples, type TrainingRows } from './trainingRows.js';

/** What supervised fine-tuning acts on, built before. */
export interface SftParts {
  readonly model: Decoder;
  readonly optimizer: AdamW;
  readonly examples: TrainingExamples<SftExample>;
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
  private readonly parts: SftParts;
  private readonly config: SftConfig;
  private readonly rows: TrainingRows<SftRow>;
  private readonly evalRows: readonly SftRow[];
  private readonly parameters: readonly Tensor[];
  private readonly data: DataEpochs;

  /** @throws DataError for an example without a trained token, or one that is longer than the model's positions */
  constructor(parts: SftParts, config: SftConfig) {
    this.parts = parts;
    this.config = config;
    const { maxPositionEmbeddings } = parts.model.config;
    this.rows = trainingRows(parts.examples, (examples) =>
      examples.map((example) => toRow(example, maxPositionEmbeddings)),
    );
    this.evalRows = (parts.evalExamples ?? []).map((row) => toRow(row, maxPositionEmbeddings));
    this.parameters = parts.model.parameters();
    this.data = new DataEpochs('SftTrainer', this.method, this.rows.sources, config);
  }

  get step(): number {
    return this.data.step;
  }

  get totalSteps(): number {
    return this.data.totalSteps;
  }

  /** One optimizer step on the next batch of examples. */
  async trainStep(): Promise<StepReport> {
    const batch = await this.rows.at(this.data.next());
    const { loss, gradNorm, learningRate } = this.update(batch);
    this.data.advance();
    const metrics = {
      loss,
      perplexity: Math.exp(loss),
      gradNorm,
      learningRate,
      trainedTokens: countTrained(batch),
      tokens: batch.reduce((sum, row) => sum + row.promptIds.length + row.completionIds.length, 0),
      epoch: this.data.epoch,
    };
    return { metrics, samples: [], warnings: [] };
  }

  private update(batch: readonly SftRow[]): {
    loss: number;
    gradNorm: number;
    learningRate: number;
  } {
    const { optimizer } = this.parts;
    const { learningRate: base, warmupSteps, schedule, maxGradNorm } = this.config;
    try {
      const loss = this.accumulate(batch).get('loss');
      const where = `SftTrainer: step ${this.step}`;
      const taken = takeOptimizerStep(where, optimizer, this.parameters, {
        loss,
        update: this.step,
        maxGradNorm,
        schedule: { ...schedule, base, warmupSteps, totalSteps: this.totalSteps },
      });
      return { loss, ...taken };
    } finally {
      optimizer.zeroGrad();
    }
  }

  /**
   * Loss and perplexity of the held-out examples under the present weights.
   *
   * @throws ValueRangeError where there are none
   */
  evaluate(): { loss: number; perplexity: number } {
    if (this.evalRows.length === 0) {
      throw new ValueRangeError(
        'SftTrainer: expected at least one held-out example to evaluate, received none.',
      );
    }
    const sums = new StatSums();
    this.forEachMicroBatch(this.evalRows, (batch, lossOf) =>
      sums.add({ loss: noGrad(() => lossOf(tokenLogprobs(this.parts.model, batch)).loss) }),
    );
    const loss = sums.get('loss');
    return { loss, perplexity: Math.exp(loss) };
  }

  /** Gradients accumulate over micro-batches and equal those of the whole batch. */
  private accumulate(rows: readonly SftRow[]): StatSums {
    const sums = new StatSums();
    const { model } = this.parts;
    const dropout = { ...this.config, model, step: this.step };
    let part = 0;
    this.forEachMicroBatch(rows, (batch, lossOf) => {
      const pass = () => backwardTokenLogprobs(model, batch, lossOf);
      sums.add(withDropout({ ...dropout, part: part++ }, pass));
    });
    return sums;
  }

  private forEachMicroBatch(
    rows: readonly SftRow[],
    visit: (batch: TokenTensors, lossOf: (scored: TokenLogprobs) => { loss: Tensor }) => void,
  ): void {
    const { model } = this.parts;
    const totals = { sequences: rows.length, prompts: rows.length, tokens: countTrained(rows) };
    const { microBatchTokens, packing } = this.config;
    const options = { packing, through: [model] };
    for (const { rows: part, collate } of rowBatches(rows, microBatchTokens, options)) {
      tidy(() => {
        const batch = collate(model.device);
        visit(batch, ({ logprobs }) => {
          const mask = trainedMask(part, batch.columns, logprobs);
          const weights = tokenWeights(mask, { kind: 'tokenMean' }, totals);
          // Where, not a product alone: 0 · −∞ at a token that is not trained would be NaN.
          return { loss: logprobs.where(mask.gt(0), 0).mul(weights).sum().neg() };
        });
      });
    }
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

function toRow(example: SftExample, maxPositionEmbeddings: number): SftRow {
  const { inputIds, completionStart, completionMask, row } = example;
  const mask = completionMask.subarray(completionStart);
  const place = `${row.file}:${row.line}`;
  if (!mask.includes(1)) {
    throw new DataError(
      `SftTrainer: expected a trained token in every example, but that of ${place} has none.`,
      { hint: 'Leave such rows out: there is nothing to learn from them.' },
    );
  }
  if (inputIds.length > maxPositionEmbeddings) {
    throw new DataError(
      `SftTrainer: expected examples of at most ${maxPositionEmbeddings} tokens, the model's positions, but that of ${place} has ${inputIds.length}.`,
      { hint: 'Lower maxLength.' },
    );
  }
  return {
    promptIds: inputIds.slice(0, completionStart),
    completionIds: inputIds.slice(completionStart),
    mask,
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
