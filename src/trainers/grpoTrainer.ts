/** Group Relative Policy Optimization: the mean reward of a group of completions is its baseline. */
import { entropyBonus, groupAdvantages, klLoss, ppoClipLoss } from '../algorithms/index.js';
import type { GrpoConfig } from '../config/index.js';
import { BatchOrder, type BatchPosition, type PromptExample } from '../data/index.js';
import { CheckpointError } from '../errors/index.js';
import { backwardTokenLogprobs, tokenLogprobs, type TokenLogprobs } from '../models/index.js';
import { deriveSeed, noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { checkGrpoParts, type GrpoParts } from './grpoParts.js';
import { StatSums, StepMeans, takeOptimizerStep } from './optimizerStep.js';
import { checkRatioInvariant, type RatioDeviation } from './ratioInvariant.js';
import {
  describeFailures,
  firstGroups,
  groupMinibatches,
  rollout,
  rolloutMetrics,
  sampleRecord,
  shareWithoutVariance,
  type RolloutRow,
} from './rollout.js';
import { savedCount, savedOrder, type SavedState } from './savedState.js';
import {
  collate,
  logprobPass,
  lossWeights,
  microBatchesByUse,
  perToken,
  rememberOldLogprobs,
} from './tokenRows.js';
import type { StepReport, Trainer } from './trainer.js';

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
 * A minibatch whose groups all lack variance still takes its optimizer step, with a gradient of zero (or of the KL term):
 * the momentum of earlier steps and weight decay go on, as they would in PyTorch. One without a scored row takes none.
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

  /** @throws ConfigError where the KL term lacks its reference; DataError for a prompt that is too long to complete */
  constructor(parts: GrpoParts, config: GrpoConfig) {
    checkGrpoParts(parts, config);
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
    // Where the pass before the updates gave every row its log-probabilities, all of them are compared, not the first
    // minibatch's alone.
    let deviation = this.updatesPerStep > 1 ? this.compareWithSampler(batch) : null;
    const means = new StepMeans();
    let place = this.stepsDone * this.updatesPerStep;
    for (let epoch = 0; epoch < this.config.updatesPerRollout; epoch++) {
      for (const minibatch of this.minibatches(batch, epoch)) {
        means.add(
          this.update(minibatch, place++, () => {
            deviation ??= this.compareWithSampler(minibatch);
          }),
        );
      }
    }

    this.stepsDone++;
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
      samples: firstGroups(batch, this.config.samplesPerStep, this.config.groupSize).map((row) =>
        sampleRecord(row, this.stepsDone, this.parts.tokenizer),
      ),
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
    const oldLogprobs = this.updatesPerStep > 1 ? logprobPass(policy, rows, pass) : [];
    return rows.map((row, index) => ({
      ...row,
      advantage: advantages[index] ?? 0,
      refLogprobs: refLogprobs?.[index],
      oldLogprobs: oldLogprobs[index] ?? [],
    }));
  }

  private get updatesPerStep(): number {
    const { updatesPerRollout, promptsPerStep, groupSize, minibatchSize } = this.config;
    const rows = promptsPerStep * groupSize;
    return updatesPerRollout * (rows / (minibatchSize ?? rows));
  }

  private compareWithSampler(rows: readonly TrainingRow[]): RatioDeviation {
    return checkRatioInvariant(this.where, this.parts.policy.dtype, rows);
  }

  private get where(): string {
    return `GrpoTrainer: step ${this.stepsDone}`;
  }

  private minibatches(batch: readonly TrainingRow[], epoch: number): TrainingRow[][] {
    const { groupSize, minibatchSize, seed } = this.config;
    return groupMinibatches(batch, {
      groupSize,
      partSize: minibatchSize ?? batch.length,
      seed: deriveSeed(seed, 'minibatches', this.stepsDone, epoch),
    });
  }

  /**
   * One optimizer step. Gradients accumulate over micro-batches and equal those of the whole minibatch.
   *
   * @param place of this update among all planned ones; the learning rate follows it
   * @param beforeStep called when everything but the step itself is done
   * @returns metrics; none where no row is scored, and then nothing was updated
   */
  private update(
    minibatch: readonly TrainingRow[],
    place: number,
    beforeStep: () => void,
  ): Record<string, number> {
    const { learningRate: base, warmupSteps, schedule, microBatchTokens } = this.config;
    const { optimizer } = this.parts;
    if (!minibatch.some(isScored)) return {};
    const { device } = this.parts.policy;
    const weights = lossWeights(minibatch, { ...this.config, device, counts: isScored });
    try {
      const totalWeight = tidy(() => weights.sum().item());
      const sums = new StatSums();
      for (const { indices, moves } of microBatchesByUse(minibatch, microBatchTokens, canMove)) {
        tidy(() => sums.add(this.accumulate(minibatch, { weights, indices, moves })));
      }
      beforeStep();
      const totalSteps = this.totalSteps * this.updatesPerStep;
      const taken = takeOptimizerStep(this.where, optimizer, this.parameters, {
        loss: sums.get('loss'),
        update: place,
        maxGradNorm: this.config.maxGradNorm,
        schedule: { ...schedule, base, warmupSteps, totalSteps },
      });
      this.updates++;
      return { ...sums.means(totalWeight), ...taken };
    } finally {
      weights.dispose();
      optimizer.zeroGrad();
    }
  }

  /** Forward and backward of one micro-batch: lines 10–11 of Algorithm 1 for some of the rows. */
  private accumulate(
    minibatch: readonly TrainingRow[],
    part: { weights: Tensor; indices: readonly number[]; moves: boolean },
  ): Record<string, Tensor> {
    const { policy } = this.parts;
    const { clip, klCoef, klEstimator, sampling } = this.config;
    const rows = part.indices.map((index) => minibatch[index] as TrainingRow);
    const batch = collate(rows, policy.device);
    const input = { ...batch, temperature: sampling.temperature, withEntropy: true };
    const objective = ({ logprobs, entropy }: TokenLogprobs) => {
      const places = tensor(Int32Array.from(part.indices), { device: policy.device });
      const weights = part.weights
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
    };
    if (part.moves) return backwardTokenLogprobs(policy, input, objective);
    return noGrad(() => objective(tokenLogprobs(policy, input)));
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

  restore(state: SavedState, tensors: ReadonlyMap<string, Tensor>): void {
    if (state['method'] !== this.method || state['prompts'] !== this.parts.prompts.length) {
      throw new CheckpointError(
        `GrpoTrainer: expected the state of a grpo run over ${this.parts.prompts.length} prompts, received one of ` +
          `${String(state['method'])} over ${String(state['prompts'])}.`,
        { hint: 'Resume with the data and settings that the run was started with.' },
      );
    }
    // Everything is read before anything is changed.
    const step = savedCount('GrpoTrainer', state, 'step');
    const updates = savedCount('GrpoTrainer', state, 'updates');
    const order = savedOrder('GrpoTrainer', state, this.parts.prompts.length);
    this.parts.optimizer.loadState(tensors);
    this.stepsDone = step;
    this.updates = updates;
    this.order = this.orderFrom(order);
  }
}

function isScored({ reward }: TrainingRow): boolean {
  return !Number.isNaN(reward);
}

/** Whether the loss of a row has a gradient: it has a weight, and an advantage or a KL term. */
function canMove(row: TrainingRow): boolean {
  return isScored(row) && (row.advantage !== 0 || row.refLogprobs !== undefined);
}
