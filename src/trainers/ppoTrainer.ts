/** Proximal Policy Optimization with its four models: policy, frozen reference, reward, value. */
import { adaptiveKlCoef, entropyBonus, valueLoss } from '../algorithms/index.js';
import type { PpoConfig } from '../config/index.js';
import { backwardTokenLogprobs, tokenValues, type TokenLogprobs } from '../models/index.js';
import { deriveSeed, type Tensor, tidy } from '../torch/index.js';
import { ppoLossRecord } from './lossRecord.js';
import { groupMinibatches, updatesPerStep } from './minibatches.js';
import { StatSums, StepMeans, takeOptimizerStep } from './optimizerStep.js';
import { policyObjective } from './policyObjective.js';
import {
  experienceMetrics,
  ppoExperience,
  sequenceKl,
  usedScores,
  type EvaluatedRow,
  type ExperienceRow,
} from './ppoExperience.js';
import { checkPpoParts, type PpoParts } from './ppoParts.js';
import { checkRatioInvariant } from './ratioInvariant.js';
import { describeFailures, type RolloutRow } from './rollout.js';
import { rolloutMetrics, sampleRecord } from './rolloutRecord.js';
import { RolloutSource } from './rolloutSource.js';
import { RunningMoments } from './runningMoments.js';
import {
  checkParameters,
  checkSavedRun,
  copyParameters,
  nestedState,
  savedCount,
  savedNumber,
  withoutPrefix,
  withPrefix,
  type SavedState,
} from './savedState.js';
import { microBatches } from './microBatches.js';
import {
  collate,
  logprobPass,
  lossWeights,
  perToken,
  scorePass,
  valuePass,
  weightsOfRows,
} from './tokenRows.js';
import type { StepReport, Trainer } from './trainer.js';
import { UpdateRecord } from './updateRecord.js';

/**
 * Per step, two phases. Rollout: completions, their log-probabilities under policy and reference, values and scores;
 * nothing is updated. Update: K epochs of shuffled minibatches of
 *
 *     L = L_policy(ρ, Â) + c_v·½·max((V − R)², (clip(V) − R)²) + β·KL (where it is in the loss) − c_e·H
 *
 * with Â and R from GAE over token rewards, which hold −β·k1 where the KL is in the reward, and the score at the last
 * token that the model drew.
 *
 * Source: Schulman et al. 2017, arXiv:1707.06347, Algorithm 1 and Eq. 9; for language models Ziegler et al. 2019,
 * arXiv:1909.08593, and Stiennon et al. 2020, arXiv:2009.01325. Departures: docs/algorithms/ppo.md.
 */
export class PpoTrainer implements Trainer {
  readonly method = 'ppo';
  readonly totalSteps: number;
  private readonly parts: PpoParts;
  private readonly config: PpoConfig;
  private readonly parameters: readonly Tensor[];
  private readonly rollouts: RolloutSource;
  private moments = new RunningMoments();
  private written = new UpdateRecord<ExperienceRow>();
  private klCoef: number;
  private stepsDone = 0;
  private updates = 0;

  /** @throws ConfigError where the KL lacks its reference; DataError for a prompt that is too long to complete */
  constructor(parts: PpoParts, config: PpoConfig) {
    checkPpoParts(parts, config);
    this.parts = parts;
    this.config = config;
    this.totalSteps = config.steps;
    this.klCoef = config.klCoef;
    this.parameters = parts.policy.parameters();
    this.rollouts = new RolloutSource('PpoTrainer', parts, config);
  }

  get step(): number {
    return this.stepsDone;
  }

  /** Phase 1: rollout, evaluation, advantages. Phase 2: K epochs of minibatch updates. */
  async trainStep(): Promise<StepReport> {
    const { rows, failures } = await this.rollouts.next(this.updates);
    const evaluated = this.evaluate(rows);
    const deviation = checkRatioInvariant(this.where, this.parts.policy.computeDtype, evaluated);
    const scores = usedScores(rows, this.config, this.moments);
    const batch = ppoExperience(evaluated, scores, this.klCoef, this.config);
    const { klCoef } = this; // of this step
    this.written = new UpdateRecord(batch, this.config);
    const updates = this.updateEpochs(batch);

    this.stepsDone++;
    this.adaptKlCoef(evaluated);
    const loss = ppoLossRecord(this.config, klCoef);
    return {
      metrics: {
        ...rolloutMetrics(rows),
        ...experienceMetrics(batch),
        ...(this.parts.reference && { klCoef }),
        ...updates,
        rolloutRatioDeviation: deviation.max,
        tokens: rows.reduce((sum, row) => sum + row.promptIds.length + row.completionIds.length, 0),
      },
      samples: this.written.map((row, update) =>
        sampleRecord({ ...row, update, loss }, this.stepsDone, this.parts.tokenizer),
      ),
      warnings: [...describeFailures(failures), ...(deviation.warning ? [deviation.warning] : [])],
    };
  }

  /** What the models say of the rollout before the updates: constants of phase 2. */
  private evaluate(rows: readonly RolloutRow[]): EvaluatedRow[] {
    const { policy, reference, valueModel } = this.parts;
    const { sampling, microBatchTokens: maxTokens, bootstrapTruncated } = this.config;
    const pass = { temperature: sampling.temperature, maxTokens };
    const oldLogprobs = logprobPass(policy, rows, pass);
    const refLogprobs = reference ? logprobPass(reference, rows, pass) : [];
    const values = valuePass(valueModel, rows, maxTokens);
    const finalValues = bootstrapTruncated ? scorePass(valueModel, rows, maxTokens) : [];
    return rows.map((row, index) => ({
      ...row,
      oldLogprobs: oldLogprobs[index] ?? [],
      refLogprobs: refLogprobs[index],
      values: values[index] ?? [],
      finalValue: finalValues[index] ?? 0,
    }));
  }

  private get where(): string {
    return `PpoTrainer: step ${this.stepsDone}`;
  }

  /** K epochs, fewer where the policy has moved far enough. */
  private updateEpochs(batch: readonly ExperienceRow[]): Record<string, number> {
    const { updatesPerRollout, groupSize, minibatchSize, seed, targetKl } = this.config;
    const means = new StepMeans();
    let place = this.stepsDone * updatesPerStep(this.config);
    let epochs = 0;
    let hasMovedFar = false;
    while (epochs < updatesPerRollout && !hasMovedFar) {
      const ofEpoch = new StepMeans();
      const minibatches = groupMinibatches(batch, {
        groupSize,
        partSize: minibatchSize ?? batch.length,
        seed: deriveSeed(seed, 'minibatches', this.stepsDone, epochs++),
      });
      for (const minibatch of minibatches) {
        const report = this.update(minibatch, place++);
        means.add(report);
        ofEpoch.add(report);
      }
      hasMovedFar = targetKl !== null && (ofEpoch.read()['approxKl'] ?? 0) > targetKl;
    }
    return { ...means.read(), epochs };
  }

  /**
   * One optimizer step of both networks. Gradients accumulate over micro-batches and equal those of the minibatch.
   *
   * @returns metrics; none where no row is scored, and then nothing was updated
   */
  private update(minibatch: readonly ExperienceRow[], place: number): Record<string, number> {
    const { learningRate: base, warmupSteps, schedule, microBatchTokens } = this.config;
    const { optimizer, policy, valueModel, valueParameters } = this.parts;
    const counts = ({ reward }: ExperienceRow): boolean => !Number.isNaN(reward);
    if (!minibatch.some(counts)) return {};
    const weights = lossWeights(minibatch, this.config, { device: policy.device, counts });
    try {
      const totalWeight = tidy(() => weights.sum().item());
      const sums = new StatSums();
      const through = [policy, valueModel.trunk];
      for (const indices of microBatches(minibatch, microBatchTokens, { through })) {
        tidy(() => this.accumulate(minibatch, { weights, indices }).forEach((s) => sums.add(s)));
      }
      const totalSteps = this.totalSteps * updatesPerStep(this.config);
      const taken = takeOptimizerStep(this.where, optimizer, this.parameters, {
        loss: sums.get('loss'),
        update: place,
        maxGradNorm: this.config.maxGradNorm,
        valueParameters: [...valueParameters.values()],
        schedule: { ...schedule, base, warmupSteps, totalSteps },
      });
      this.updates++;
      return { ...sums.means(totalWeight), ...taken };
    } finally {
      weights.dispose();
      optimizer.zeroGrad();
    }
  }

  /** Forward and backward of one micro-batch through policy and value model. */
  private accumulate(
    minibatch: readonly ExperienceRow[],
    part: { weights: Tensor; indices: readonly number[] },
  ): Record<string, Tensor>[] {
    const { policy, valueModel } = this.parts;
    const { entropyCoef, sampling } = this.config;
    const rows = part.indices.map((index) => minibatch[index] as ExperienceRow);
    const batch = collate(rows, policy.device);
    const weightsLike = (like: Tensor): Tensor => weightsOfRows(part.weights, part.indices, like);
    const policyTerms = (scored: TokenLogprobs) => {
      const { logprobs, entropy } = scored;
      const tokenWeights = weightsLike(logprobs);
      this.written.note(rows, { ...scored, tokenWeights });
      const terms = policyObjective(rows, { logprobs, entropy, tokenWeights }, this.objective);
      if (entropyCoef === 0 || !entropy) return terms;
      const bonus = entropyBonus({ entropy, tokenWeights, coef: entropyCoef });
      return { ...terms, loss: terms.loss.add(bonus.loss) };
    };
    const pass = { temperature: sampling.temperature, withEntropy: true };
    const input = { ...batch, ...pass, ...this.written.wanted(rows) };
    if (valueModel.trunk !== policy) {
      const ofPolicy = backwardTokenLogprobs(policy, input, policyTerms);
      const { values } = tokenValues(valueModel, batch);
      const ofValue = this.valueTerms(rows, values, weightsLike(values));
      ofValue.loss.backward();
      return [ofPolicy, { ...ofValue, loss: ofValue.loss.detach() }]; // the sum is a metric
    }
    const withHead = { ...input, valueHead: valueModel.head };
    const both = backwardTokenLogprobs(policy, withHead, (scored) => {
      const ofPolicy = policyTerms(scored);
      const values = scored.values as Tensor; // asked for with valueHead
      const ofValue = this.valueTerms(rows, values, weightsLike(values));
      return { ...ofPolicy, ...ofValue, loss: ofPolicy.loss.add(ofValue.loss) };
    });
    return [both];
  }

  /** c_v·L_value, and what it is made of. */
  private valueTerms(
    rows: readonly ExperienceRow[],
    values: Tensor,
    tokenWeights: Tensor,
  ): { loss: Tensor } & Record<string, Tensor> {
    const { loss, stats } = valueLoss({
      values,
      oldValues: perToken(rows, values, (row) => row.values),
      returns: perToken(rows, values, (row) => row.returns),
      tokenWeights,
      clipRange: this.config.valueClip ?? undefined,
    });
    const { valueClipFraction } = stats;
    return { loss: loss.mul(this.config.vfCoef), valueLoss: loss.detach(), valueClipFraction };
  }

  /** The settings of the policy term, with the coefficient of this step. */
  private get objective() {
    const { clip, dualClip, klPlacement, klEstimator, groupSize } = this.config;
    return {
      objective: { kind: 'ppoClip' as const, dualClip },
      ...{ clip, klPlacement, klEstimator, groupSize, klCoef: this.klCoef },
      ...{ ratioAgainst: 'old' as const, importanceWeights: null, offPolicyMask: null },
    };
  }

  private adaptKlCoef(rows: readonly EvaluatedRow[]): void {
    if (this.config.adaptiveKl === null) return;
    const measured = { coef: this.klCoef, kl: sequenceKl(rows), sequences: rows.length };
    this.klCoef = adaptiveKlCoef({ ...measured, ...this.config.adaptiveKl });
  }

  state(): Record<string, unknown> {
    const { stepsDone: step, updates, klCoef, method } = this;
    const [moments, rollouts] = [this.moments.state(), this.rollouts.state()];
    const prompts = this.parts.prompts.length;
    return { method, step, updates, prompts, klCoef, moments, rollouts };
  }

  tensors(): Map<string, Tensor> {
    const { optimizer, valueParameters } = this.parts;
    return new Map([...optimizer.stateTensors(), ...withPrefix('valueModel/', valueParameters)]);
  }

  restore(state: SavedState, tensors: ReadonlyMap<string, Tensor>): void {
    const where = 'PpoTrainer';
    checkSavedRun(where, state, { method: 'ppo', prompts: this.parts.prompts.length });
    const [step, updates] = [savedCount(where, state, 'step'), savedCount(where, state, 'updates')];
    const klCoef = savedNumber(where, state, 'klCoef');
    const restoreRollouts = this.rollouts.restorer(nestedState(where, state, 'rollouts'));
    const { named, others } = withoutPrefix('valueModel/', tensors);
    // Everything is read and compared before anything is changed.
    const moments = new RunningMoments();
    moments.restore(where, nestedState(where, state, 'moments'));
    checkParameters(named, this.parts.valueParameters);
    this.parts.optimizer.loadState(others);
    copyParameters(named, this.parts.valueParameters);
    this.moments = moments;
    this.stepsDone = step;
    this.updates = updates;
    this.klCoef = klCoef;
    restoreRollouts();
  }
}
