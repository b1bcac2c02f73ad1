/** Group Relative Policy Optimization and its family: what is done per step, with the methods as settings. */
import type { GrpoConfig } from '../config/index.js';
import { backwardTokenLogprobs, tokenLogprobs, type TokenLogprobs } from '../models/index.js';
import { deriveSeed, noGrad, tidy, type Tensor } from '../torch/index.js';
import { rowAdvantages } from './advantages.js';
import { checkGrpoParts, needsReference, overlongPenalty, type GrpoParts } from './grpoParts.js';
import { grpoLossRecords } from './lossRecord.js';
import { groupMinibatches, updatesPerStep } from './minibatches.js';
import { forecastOfRollout, type NullGroupForecast } from './nullGroups.js';
import { StatSums, StepMeans, takeOptimizerStep } from './optimizerStep.js';
import {
  objectiveReduction,
  policyObjective,
  rowCounts,
  rowMoves,
  updateRows,
} from './policyObjective.js';
import { checkRatioInvariant, type RatioDeviation } from './ratioInvariant.js';
import { describeFailures, type RolloutRow } from './rollout.js';
import { mean, rolloutMetrics, sampleRecord, shareWithoutVariance } from './rolloutRecord.js';
import { RolloutSource } from './rolloutSource.js';
import {
  checkParameters,
  checkSavedRun,
  copyParameters,
  nestedState,
  replacedParameters,
  replaceReference,
  savedCount,
  withoutPrefix,
  withPrefix,
  type SavedState,
} from './savedState.js';
import { microBatchesByUse } from './microBatches.js';
import {
  collate,
  logprobPass,
  lossWeights,
  rememberOldLogprobs,
  weightsOfRows,
} from './tokenRows.js';
import type { StepReport, Trainer } from './trainer.js';
import { UpdateRecord } from './updateRecord.js';

interface TrainingRow extends RolloutRow {
  /** One per token. */
  readonly advantages: readonly number[];
  readonly refLogprobs: readonly number[] | undefined;
  /** nats, of the policy before this step's first update. Empty until it is known. */
  oldLogprobs: readonly number[];
}

/**
 * Per step: sample G completions of each prompt, score them, take advantages against a baseline, and make μ passes of
 * policy-gradient updates with a KL to the frozen reference. As published (the defaults):
 *
 *     Âᵢ = (rᵢ − mean(group)) / (std(group) + ε)
 *     L  = −Σ w·min(ρÂ, clip(ρ, 1 − ε_low, 1 + ε_high)Â) + β·Σ w·KL(π ‖ π_ref)
 *
 * The other methods of the family differ in settings alone: `rowAdvantages` and `policyObjective` read them.
 *
 * A minibatch whose groups all lack variance still takes its optimizer step, with a gradient of zero (or of the KL term):
 * the momentum of earlier steps and weight decay go on, as they would in PyTorch. One without a row that counts takes
 * none.
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
  private readonly rollouts: RolloutSource;
  private written = new UpdateRecord<TrainingRow>();
  private stepsDone = 0;
  private updates = 0;

  /** @throws ConfigError where the KL term lacks its reference; DataError for a prompt that is too long to complete */
  constructor(parts: GrpoParts, config: GrpoConfig) {
    checkGrpoParts(parts, config);
    this.parts = parts;
    this.config = config;
    this.totalSteps = config.steps;
    this.parameters = parts.policy.parameters();
    this.rollouts = new RolloutSource('GrpoTrainer', parts, {
      ...config,
      withGreedy: config.baseline === 'greedy',
      penaltyOf: overlongPenalty(config),
    });
  }

  get step(): number {
    return this.stepsDone;
  }

  /** What the first rollout says about groups without variance. It is the one that the next step trains on. */
  async forecast(): Promise<NullGroupForecast> {
    return forecastOfRollout(await this.rollouts.peek(this.updates), this.config);
  }

  /** One iteration of Algorithm 1's inner loop: rollout, rewards, advantages, μ passes of updates. */
  async trainStep(): Promise<StepReport> {
    const { groupSize, updatesPerRollout, dynamicSampling, rolloutLag } = this.config;
    const { rows, failures, rounds, discardedShare } = await this.rollouts.next(this.updates);
    const staleness = mean(rows.map(({ weightVersion }) => this.updates - weightVersion));
    const batch = this.prepare(rows);
    this.written = new UpdateRecord(batch, this.config);
    const isKnown = batch.every(({ oldLogprobs }) => oldLogprobs.length > 0);
    let deviation = isKnown ? this.compareWithSampler(batch) : null;
    const compare = () => (deviation ??= this.compareWithSampler(batch));
    const means = new StepMeans();
    let place = this.stepsDone * updatesPerStep(this.config);
    for (let epoch = 0; epoch < updatesPerRollout; epoch++) {
      for (const minibatch of this.minibatches(batch, epoch)) {
        means.add(this.update(minibatch, place++, compare));
      }
    }

    this.stepsDone++;
    this.refreshReference();
    const trained = new Set(updateRows(batch, this.config).filter(this.counts));
    const lossOf = grpoLossRecords(this.written, this.config);
    return {
      metrics: {
        ...rolloutMetrics(rows),
        groupsWithoutVariance: shareWithoutVariance(rows, groupSize),
        ...(dynamicSampling && { samplingRounds: rounds, groupsDiscarded: discardedShare }),
        ...(rolloutLag > 0 && { staleness }),
        ...means.read(),
        ...(deviation && { rolloutRatioDeviation: deviation.max }),
        tokens: rows.reduce((sum, row) => sum + row.promptIds.length + row.completionIds.length, 0),
      },
      samples: this.written.map((row, update) => {
        const known = { ...row, update, loss: lossOf(row), isTrained: trained.has(row) };
        return sampleRecord(known, this.stepsDone, this.parts.tokenizer);
      }),
      warnings: [...describeFailures(failures), ...(deviation?.warning ? [deviation.warning] : [])],
    };
  }

  /** Advantages, and the log-probabilities that stay fixed during the updates. */
  private prepare(rows: readonly RolloutRow[]): TrainingRow[] {
    const { policy, reference, rewards, rewardModels = [] } = this.parts;
    const { sampling, microBatchTokens: maxTokens } = this.config;
    const pass = { maxTokens, temperature: sampling.temperature };
    const refLogprobs =
      reference && needsReference(this.config) ? logprobPass(reference, rows, pass) : [];
    // With one update per rollout the update's own pass is one of the policy before the updates: it gives oldLogprobs.
    const later = new Set(this.needsOldLogprobs() ? [] : updateRows(rows, this.config));
    const early = rows.filter((row) => !later.has(row));
    const found = logprobPass(policy, early, pass);
    const oldLogprobs = new Map(early.map((row, index) => [row, found[index]]));
    const known = rows.map((row, index) => ({
      ...row,
      refLogprobs: refLogprobs[index],
      oldLogprobs: oldLogprobs.get(row) ?? [],
    }));
    const advantages = rowAdvantages(known, this.config, [...rewards, ...rewardModels]);
    return known.map((row, index) => ({ ...row, advantages: advantages[index] ?? [] }));
  }

  /** Whether the oldLogprobs of all rows are needed before the first update, however old the rows are. */
  private needsOldLogprobs(): boolean {
    const { klCoef, klPlacement } = this.config;
    return updatesPerStep(this.config) > 1 || (klCoef > 0 && klPlacement === 'reward');
  }

  /** @returns null where other weights drew the rows: then the ratio need not be 1 */
  private compareWithSampler(rows: readonly TrainingRow[]): RatioDeviation | null {
    if (rows.some(({ weightVersion }) => weightVersion !== this.updates)) return null;
    return checkRatioInvariant(this.where, this.parts.policy.computeDtype, rows);
  }

  private get where(): string {
    return `GrpoTrainer: step ${this.stepsDone}`;
  }

  private minibatches(batch: readonly TrainingRow[], epoch: number): TrainingRow[][] {
    const { groupSize, minibatchSize, seed } = this.config;
    const parts = groupMinibatches(batch, {
      groupSize,
      partSize: minibatchSize ?? batch.length,
      seed: deriveSeed(seed, 'minibatches', this.stepsDone, epoch),
    });
    return parts.map((rows) => updateRows(rows, this.config));
  }

  private readonly counts = (row: RolloutRow): boolean => rowCounts(row, this.config);

  /**
   * One optimizer step. Gradients accumulate over micro-batches and equal those of the whole minibatch.
   *
   * @param place of this update among all planned ones; the learning rate follows it
   * @param beforeStep called when everything but the step itself is done
   * @returns metrics; none where no row counts, and then nothing was updated
   */
  private update(
    minibatch: readonly TrainingRow[],
    place: number,
    beforeStep: () => void,
  ): Record<string, number> {
    if (minibatch.length === 0) return {};
    const { learningRate: base, warmupSteps, schedule, groupSize, microBatchTokens } = this.config;
    const { optimizer, policy } = this.parts;
    const settings = { ...this.config, reduction: objectiveReduction(this.config) };
    const { device } = policy;
    const weights = lossWeights(minibatch, settings, { device, counts: this.counts });
    const unitSize = this.config.objective.kind === 'groupPreference' ? groupSize : 1;
    const canMove = (row: TrainingRow): boolean => rowMoves(row, this.config);
    try {
      const totalWeight = tidy(() => weights.sum().item());
      const sums = new StatSums();
      const options = { unitSize, through: [policy] };
      const batches = microBatchesByUse(minibatch, microBatchTokens, canMove, options);
      for (const { indices, moves } of batches) {
        tidy(() => sums.add(this.accumulate(minibatch, { weights, indices, moves })));
      }
      beforeStep();
      const totalSteps = this.totalSteps * updatesPerStep(this.config);
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
    const rows = part.indices.map((index) => minibatch[index] as TrainingRow);
    const batch = collate(rows, policy.device);
    const pass = { temperature: this.config.sampling.temperature, withEntropy: true };
    const input = { ...batch, ...pass, ...this.written.wanted(rows) };
    const objective = (scored: TokenLogprobs) => {
      const { logprobs, entropy } = scored;
      rememberOldLogprobs(rows, logprobs);
      const tokenWeights = weightsOfRows(part.weights, part.indices, logprobs);
      this.written.note(rows, { ...scored, tokenWeights });
      return policyObjective(rows, { logprobs, entropy, tokenWeights }, this.config);
    };
    if (part.moves) return backwardTokenLogprobs(policy, input, objective);
    return noGrad(() => objective(tokenLogprobs(policy, input)));
  }

  /** Where the reference is replaced now and then: the policy's weights become its own. */
  private refreshReference(): void {
    const { referenceEvery } = this.config;
    const { policy, reference } = this.parts;
    if (!reference || referenceEvery === null || this.stepsDone % referenceEvery !== 0) return;
    replaceReference(reference, policy);
  }

  state(): Record<string, unknown> {
    return {
      method: this.method,
      step: this.stepsDone,
      updates: this.updates,
      prompts: this.parts.prompts.length,
      rollouts: this.rollouts.state(),
    };
  }

  tensors(): Map<string, Tensor> {
    const own = replacedParameters(this.parts.reference, this.config);
    return new Map([...this.parts.optimizer.stateTensors(), ...withPrefix('reference.', own)]);
  }

  restore(state: SavedState, tensors: ReadonlyMap<string, Tensor>): void {
    checkSavedRun('GrpoTrainer', state, { method: 'grpo', prompts: this.parts.prompts.length });
    // Everything is read before anything is changed.
    const step = savedCount('GrpoTrainer', state, 'step');
    const updates = savedCount('GrpoTrainer', state, 'updates');
    const restoreRollouts = this.rollouts.restorer(nestedState('GrpoTrainer', state, 'rollouts'));
    const { optimizer } = this.parts;
    const saved = withoutPrefix('reference.', tensors);
    const replaced = replacedParameters(this.parts.reference, this.config);
    if (replaced) checkParameters(saved.named, replaced);
    optimizer.loadState(saved.others);
    if (replaced) copyParameters(saved.named, replaced);
    this.stepsDone = step;
    this.updates = updates;
    restoreRollouts();
  }
}
