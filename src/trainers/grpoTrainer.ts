/** Group Relative Policy Optimization: the mean reward of a group of completions is its baseline. */
import {
  entropyBonus,
  groupAdvantages,
  klLoss,
  ppoClipLoss,
  tokenWeights,
  type LossReduction,
} from '../algorithms/index.js';
import type { GrpoConfig } from '../config/index.js';
import { BatchOrder, SeededRandom, type BatchPosition, type PromptExample } from '../data/index.js';
import { CheckpointError } from '../errors/index.js';
import { backwardTokenLogprobs, type Decoder } from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import type { NamedReward } from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { deriveSeed, noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { StatSums, StepMeans, takeOptimizerStep } from './optimizerStep.js';
import { checkRatioInvariant, type RatioDeviation } from './ratioInvariant.js';
import {
  describeFailures,
  rollout,
  rolloutMetrics,
  sampleRecord,
  shareWithoutVariance,
  type RolloutRow,
} from './rollout.js';
import {
  collate,
  completionMask,
  logprobPass,
  microBatches,
  perToken,
  rememberOldLogprobs,
} from './tokenRows.js';
import type { StepReport, Trainer } from './trainer.js';

/** What GRPO acts on, built before. */
export interface GrpoParts {
  readonly policy: Decoder;
  /** Frozen; null where `klCoef` is 0. */
  readonly reference: Decoder | null;
  readonly tokenizer: Tokenizer;
  readonly optimizer: AdamW;
  readonly prompts: readonly PromptExample[];
  readonly rewards: readonly NamedReward[];
}

interface TrainingRow extends RolloutRow {
  readonly advantage: number;
  readonly refLogprobs: readonly number[] | undefined;
  /** nats, of the policy before this step's first update. Empty until it is known. */
  oldLogprobs: readonly number[];
}

/**
 * Per step: sample G completions of each prompt, score them, take the group's mean reward as baseline, and make μ passes
 * of clipped policy-gradient updates with a KL term to the frozen reference.
 *
 *     Âᵢ = (rᵢ − mean(group)) / (std(group) + ε)
 *     L  = −Σ w·min(ρÂ, clip(ρ, 1 − ε_low, 1 + ε_high)Â) + β·Σ w·KL(π ‖ π_ref)
 *
 * Source: Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, §4.1 and Algorithm 1 (outcome supervision).
 * Metrics: docs/algorithms/grpo.md.
 */
export class GrpoTrainer implements Trainer {
  readonly method = 'grpo';
  readonly totalSteps: number;
  private readonly parts: GrpoParts;
  private readonly config: GrpoConfig;
  private readonly parameters: readonly Tensor[];
  private order: BatchOrder;
  private stepsDone = 0;
  private updates = 0;

  constructor(parts: GrpoParts, config: GrpoConfig) {
    this.parts = parts;
    this.config = config;
    this.totalSteps = config.steps;
    this.parameters = parts.policy.parameters();
    this.order = this.orderFrom();
  }

  get step(): number {
    return this.stepsDone;
  }

  private orderFrom(position?: BatchPosition): BatchOrder {
    const { promptsPerStep, seed } = this.config;
    const rowCount = this.parts.prompts.length;
    const orderSeed = deriveSeed(seed, 'prompt order');
    return new BatchOrder({ rowCount, batchSize: promptsPerStep, seed: orderSeed }, position);
  }

  /** One iteration of Algorithm 1's inner loop: rollout, rewards, advantages, μ passes of updates. */
  async trainStep(): Promise<StepReport> {
    const { rows, failures } = await rollout({
      ...this.parts,
      prompts: this.order.next().map((index) => this.parts.prompts[index] as PromptExample),
      groupSize: this.config.groupSize,
      sampling: this.config.sampling,
      seed: deriveSeed(this.config.seed, 'rollout', this.stepsDone),
      weightVersion: this.updates,
      timeoutSeconds: this.config.rewardTimeoutSeconds,
      concurrency: this.config.rewardConcurrency,
    });
    const batch = this.prepare(rows);

    const means = new StepMeans();
    let deviation: RatioDeviation | null = null;
    for (let epoch = 0; epoch < this.config.updatesPerRollout; epoch++) {
      for (const minibatch of this.minibatches(batch, epoch)) {
        const { metrics, deviation: found } = this.update(minibatch);
        means.add(metrics);
        deviation ??= found;
      }
    }

    const step = this.stepsDone++;
    const tokens = batch.reduce(
      (sum, row) => sum + row.promptIds.length + row.completionIds.length,
      0,
    );
    return {
      metrics: {
        ...rolloutMetrics(rows),
        groupsWithoutVariance: shareWithoutVariance(rows, this.config.groupSize),
        ...means.read(),
        ...(deviation && { rolloutRatioDeviation: deviation.max }),
        tokens,
      },
      samples: batch
        .slice(0, this.config.samplesPerStep)
        .map((row) => sampleRecord(row, step, this.parts.tokenizer)),
      warnings: [...describeFailures(failures), ...(deviation?.warning ? [deviation.warning] : [])],
    };
  }

  /** Advantages, and the log-probabilities that stay fixed during the updates. */
  private prepare(rows: readonly RolloutRow[]): TrainingRow[] {
    const { groupSize, advantageScale: scale, klCoef, microBatchTokens: maxTokens } = this.config;
    const { policy, reference } = this.parts;
    const pass = { maxTokens, temperature: this.config.sampling.temperature };
    const advantages = tidy(() => {
      const rewards = tensor(Float64Array.from(rows, (row) => row.reward));
      return Array.from(groupAdvantages({ rewards, groupSize, scale }).toTypedArray());
    });
    const refLogprobs = reference && klCoef > 0 ? logprobPass(reference, rows, pass) : undefined;
    // With one update per rollout the policy of the update is the one that sampled: its own pass gives oldLogprobs.
    const oldLogprobs = this.updatesPerStep(rows.length) > 1 ? logprobPass(policy, rows, pass) : [];
    return rows.map((row, index) => ({
      ...row,
      advantage: advantages[index] ?? 0,
      refLogprobs: refLogprobs?.[index],
      oldLogprobs: oldLogprobs[index] ?? [],
    }));
  }

  private updatesPerStep(rows: number): number {
    return this.config.updatesPerRollout * (rows / (this.config.minibatchSize ?? rows));
  }

  /** The batch in shuffled parts of whole groups. */
  private minibatches(batch: readonly TrainingRow[], epoch: number): TrainingRow[][] {
    const { groupSize, minibatchSize, seed } = this.config;
    const size = minibatchSize ?? batch.length;
    if (size === batch.length) return [[...batch]];
    const shuffleSeed = deriveSeed(seed, 'minibatches', this.stepsDone, epoch);
    const groups = new SeededRandom(shuffleSeed).permutation(batch.length / groupSize);
    const shuffled = Array.from(groups, (group) =>
      batch.slice(group * groupSize, (group + 1) * groupSize),
    ).flat();
    return Array.from({ length: batch.length / size }, (_, part) =>
      shuffled.slice(part * size, (part + 1) * size),
    );
  }

  /** One optimizer step. Gradients accumulate over micro-batches and equal those of the whole minibatch. */
  private update(minibatch: readonly TrainingRow[]): {
    metrics: Record<string, number>;
    deviation: RatioDeviation | null;
  } {
    const where = `GrpoTrainer: step ${this.stepsDone}`;
    const { learningRate: base, warmupSteps, schedule, maxGradNorm } = this.config;
    const scored = minibatch.filter((row) => !Number.isNaN(row.reward));
    if (scored.length === 0) return { metrics: {}, deviation: null }; // nothing to learn from here
    const weights = this.weightsOf(minibatch);
    const sums = new StatSums();
    for (const indices of microBatches(minibatch, this.config.microBatchTokens)) {
      const part = indices.map((index) => minibatch[index] as TrainingRow);
      tidy(() => sums.add(this.accumulate(part, weights, indices)));
    }
    weights.dispose();
    const isFirst = minibatch.every((row) => row.weightVersion === this.updates);
    const deviation = isFirst
      ? checkRatioInvariant(where, this.parts.policy.dtype, minibatch)
      : null;
    const { gradNorm, learningRate } = takeOptimizerStep(
      where,
      this.parts.optimizer,
      this.parameters,
      {
        loss: sums.get('loss'),
        update: this.updates++,
        maxGradNorm,
        schedule: {
          ...schedule,
          base,
          warmupSteps,
          totalSteps:
            this.totalSteps *
            this.updatesPerStep(this.config.promptsPerStep * this.config.groupSize),
        },
      },
    );
    return { metrics: { ...sums.read(), gradNorm, learningRate }, deviation };
  }

  /** [B, T] weights of the whole minibatch; unscored rows weigh nothing and still count as rows. */
  private weightsOf(minibatch: readonly TrainingRow[]): Tensor {
    const { groupSize, reduction } = this.config;
    const resolved: LossReduction =
      reduction.kind === 'promptMean' ? { ...reduction, groupSize } : reduction;
    return tidy(() => {
      const columns = Math.max(...minibatch.map((row) => row.completionIds.length));
      const { device } = this.parts.policy;
      const counts = (row: TrainingRow): boolean => !Number.isNaN(row.reward);
      return tokenWeights(completionMask(minibatch, { columns, device, counts }), resolved);
    });
  }

  /** Forward and backward of one micro-batch: lines 10–11 of Algorithm 1 for some of the rows. */
  private accumulate(
    rows: TrainingRow[],
    allWeights: Tensor,
    indices: readonly number[],
  ): Record<string, Tensor> {
    const { policy } = this.parts;
    const { clip, klCoef, klEstimator, sampling } = this.config;
    const batch = collate(rows, policy.device);
    const input = { ...batch, temperature: sampling.temperature, withEntropy: true };
    return backwardTokenLogprobs(policy, input, ({ logprobs, entropy }) => {
      const places = tensor(Int32Array.from(indices), { device: policy.device });
      const weights = allWeights
        .indexSelect(0, places)
        .narrow(1, 0, batch.columns)
        .to(logprobs.dtype);
      rememberOldLogprobs(rows, logprobs);
      const oldLogprobs = perToken(rows, logprobs, (row) => row.oldLogprobs);
      const advantages = perToken(rows, logprobs, (row) => row.advantage);
      const shared = { logprobs, oldLogprobs, tokenWeights: weights };
      const policyTerm = ppoClipLoss({ ...shared, advantages, clip });
      const stats: Record<string, Tensor> = {
        policyLoss: policyTerm.loss.detach(), // a metric
        ...policyTerm.stats,
        ...(entropy &&
          entropyBonus({ entropy: entropy.detach(), tokenWeights: weights, coef: 0 }).stats),
      };
      if (!rows[0]?.refLogprobs) return { ...stats, loss: policyTerm.loss };
      const refLogprobs = perToken(rows, logprobs, (row) => row.refLogprobs ?? []);
      const klTerm = klLoss({ ...shared, refLogprobs, estimator: klEstimator });
      const k1 = noGrad(() => klLoss({ ...shared, refLogprobs, estimator: 'k1' }).loss);
      const loss = policyTerm.loss.add(klTerm.loss.mul(klCoef));
      return { ...stats, ...klTerm.stats, klPolicyReference: k1, loss };
    });
  }

  state(): Record<string, unknown> {
    return {
      method: this.method,
      step: this.stepsDone,
      updates: this.updates,
      prompts: this.parts.prompts.length,
      order: this.order.state(),
    };
  }

  tensors(): Map<string, Tensor> {
    return this.parts.optimizer.stateTensors();
  }

  restore(state: Readonly<Record<string, unknown>>, tensors: ReadonlyMap<string, Tensor>): void {
    if (state['method'] !== this.method || state['prompts'] !== this.parts.prompts.length) {
      throw new CheckpointError(
        `GrpoTrainer: expected the state of a grpo run over ${this.parts.prompts.length} prompts, received one of ` +
          `${String(state['method'])} over ${String(state['prompts'])}.`,
        { hint: 'Resume with the data and settings that the run was started with.' },
      );
    }
    this.parts.optimizer.loadState(tensors);
    this.stepsDone = state['step'] as number;
    this.updates = state['updates'] as number;
    this.order = this.orderFrom(state['order'] as BatchPosition);
  }
}
