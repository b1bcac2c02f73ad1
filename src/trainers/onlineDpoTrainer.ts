/** Online DPO: two completions of each prompt, judged, and the DPO loss on them. */
import type { OnlineDpoConfig } from '../config/index.js';
import { ConfigError } from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import type { PairwiseJudge } from '../rewards/index.js';
import type { Tensor } from '../torch/index.js';
import { checkRoom } from './grpoParts.js';
import { judgeRows, SHOWN_FIRST, type JudgeRowsOptions } from './judgeRows.js';
import { pairLossRecord } from './lossRecord.js';
import { takeOptimizerStep } from './optimizerStep.js';
import { couplesPairs, dpoLosses, type PairLogprobs } from './pairObjective.js';
import { backwardPairs, type Pair } from './pairPass.js';
import { pairRecords } from './pairRecord.js';
import { checkRatioInvariant } from './ratioInvariant.js';
import { describeFailures, type RolloutRow } from './rollout.js';
import {
  firstGroups,
  groupsOf,
  lacksVariance,
  mean,
  rolloutMetrics,
  sampleRecord,
  type RecordedRow,
} from './rolloutRecord.js';
import { RolloutSource, type RolloutParts } from './rolloutSource.js';
import { RunningMoments } from './runningMoments.js';
import {
  checkParameters,
  checkSavedRun,
  copyParameters,
  nestedState,
  replaceReference,
  savedCount,
  withoutPrefix,
  withPrefix,
  type SavedState,
} from './savedState.js';
import { logprobPass, recordPass } from './tokenRows.js';
import type { PairRecord, StepReport, Trainer } from './trainer.js';

/** What online DPO acts on, built before. */
export interface OnlineDpoParts extends RolloutParts {
  /** Frozen, and another object than the policy. */
  readonly reference: Decoder;
  readonly optimizer: AdamW;
  /** Compares the completions of a pair; in place of rewards and reward models, which then are none. */
  readonly judge?: PairwiseJudge | undefined;
}

const GROUP_SIZE = 2;

/**
 * Per step: sample two completions of each prompt, score both or have a judge compare them, and take one step on the DPO
 * loss with the better one as the chosen. Pairs of equal scores, ties, and pairs that could not be scored or judged teach
 * nothing and are left out.
 *
 * Source: Guo et al. 2024 (OAIF), arXiv:2402.04792, Algorithm 1; scores may stand in place of a judge. A judge sees either
 * completion first with probability ½, because judges tend to prefer a place.
 * Metrics: docs/algorithms/preferences.md.
 */
export class OnlineDpoTrainer implements Trainer {
  readonly method = 'online-dpo';
  readonly totalSteps: number;
  private readonly parts: OnlineDpoParts;
  private readonly config: OnlineDpoConfig;
  private readonly parameters: readonly Tensor[];
  private readonly rollouts: RolloutSource;
  private shift = new RunningMoments();
  private stepsDone = 0;
  private updates = 0;

  /** @throws ConfigError where the reference is the policy; DataError for a prompt that is too long to complete */
  constructor(parts: OnlineDpoParts, config: OnlineDpoConfig) {
    const { policy, reference, rewardModels = [] } = parts;
    if (reference === policy) {
      throw new ConfigError(
        'OnlineDpoTrainer: expected a reference model of its own, received the policy itself.',
        { hint: 'Load the starting model a second time.' },
      );
    }
    const readers = [reference, ...rewardModels.map(({ model }) => model)];
    checkRoom('OnlineDpoTrainer', parts, config.sampling.maxNewTokens, readers);
    this.parts = parts;
    this.config = config;
    this.totalSteps = config.steps;
    this.parameters = policy.parameters();
    const { judge } = parts;
    if (judge) requireJudgeAlone(parts, config);
    const score = judge && ((pairs: JudgeRowsOptions) => judgeRows(judge, pairs));
    const settings = { ...config, groupSize: GROUP_SIZE };
    this.rollouts = new RolloutSource('OnlineDpoTrainer', { ...parts, score }, settings);
  }

  get step(): number {
    return this.stepsDone;
  }

  private get where(): string {
    return `OnlineDpoTrainer: step ${this.stepsDone}`;
  }

  async trainStep(): Promise<StepReport> {
    const { rows, failures } = await this.rollouts.next(this.updates);
    const groups = groupsOf(rows, GROUP_SIZE);
    const judged = groups.flatMap((group) => this.preferenceOf(group) ?? []);
    const written = firstGroups(rows, this.config.samplesPerStep, GROUP_SIZE);
    const recorded = this.record(written, judged);
    const deviation = checkRatioInvariant(this.where, this.parts.policy.computeDtype, recorded);
    const pairs = this.pairRecords(judged, new Map(written.map((row, at) => [row, recorded[at]])));
    const report = this.update(judged);

    this.stepsDone++;
    this.refreshReference();
    return {
      metrics: {
        ...rolloutMetrics(rows),
        pairsWithoutPreference: 1 - judged.length / groups.length,
        ...(this.parts.judge &&
          judged.length > 0 && {
            chosenShownFirst: mean(judged.map(({ chosen }) => chosen.rewards[SHOWN_FIRST] ?? NaN)),
          }),
        ...report,
        ...(recorded.length > 0 && { rolloutRatioDeviation: deviation.max }),
        tokens: rows.reduce((sum, row) => sum + row.promptIds.length + row.completionIds.length, 0),
      },
      samples: recorded.map((row) => sampleRecord(row, this.stepsDone, this.parts.tokenizer)),
      pairs,
      warnings: [...describeFailures(failures), ...(deviation.warning ? [deviation.warning] : [])],
    };
  }

  /** @returns undefined where neither completion is better */
  private preferenceOf(group: readonly RolloutRow[]): Judged | undefined {
    const { missingEosPenalty } = this.config;
    const scoreOf = ({ reward, finishReason }: RolloutRow): number =>
      reward - (finishReason === 'length' ? (missingEosPenalty ?? 0) : 0);
    const [first, second] = group as [RolloutRow, RolloutRow];
    const scores = [scoreOf(first), scoreOf(second)] as const;
    if (lacksVariance(scores)) return undefined;
    return scores[0] > scores[1]
      ? { chosen: first, rejected: second }
      : { chosen: second, rejected: first };
  }

  /** Log-probabilities before the update of the rows that are written down, and which side each is on. */
  private record(rows: readonly RolloutRow[], judged: readonly Judged[]): RecordedRow[] {
    const { policy, reference } = this.parts;
    const { sampling, microBatchTokens: maxTokens, sampleAlternatives: alternatives } = this.config;
    const pass = { maxTokens, temperature: sampling.temperature };
    const found = recordPass(policy, rows, { ...pass, alternatives });
    const refLogprobs = logprobPass(reference, rows, pass);
    const sides = new Map(
      judged.flatMap(({ chosen, rejected }): [RolloutRow, number][] => [
        [chosen, 1],
        [rejected, -1],
      ]),
    );
    return rows.map((row, index) => ({
      ...row,
      oldLogprobs: found[index]?.logprobs ?? [],
      refLogprobs: refLogprobs[index],
      alternatives: found[index]?.alternatives,
      advantages: row.completionIds.map(() => sides.get(row) ?? 0),
      isTrained: sides.has(row),
    }));
  }

  /** The judged pairs among the recorded rows, side by side, as they are before the update. */
  private pairRecords(
    judged: readonly Judged[],
    recorded: ReadonlyMap<RolloutRow, RecordedRow | undefined>,
  ): PairRecord[] {
    const known = judged.flatMap((pair) => {
      const [chosen, rejected] = [recorded.get(pair.chosen), recorded.get(pair.rejected)];
      if (!chosen || !rejected) return [];
      const tokens = {
        ...{ chosen: chosen.oldLogprobs, refChosen: chosen.refLogprobs },
        ...{ rejected: rejected.oldLogprobs, refRejected: rejected.refLogprobs },
      };
      return [{ pair, place: pair.chosen.promptIndex, tokens }];
    });
    return pairRecords(known, {
      ...{ step: this.stepsDone + 1, tokenizer: this.parts.tokenizer },
      ...{ lossOf: this.lossOf, count: judged.length, isCoupled: couplesPairs(this.config) },
      settings: pairLossRecord({ method: this.method, config: this.config }),
    });
  }

  private get lossOf() {
    const settings = { ...this.config, referenceFree: false, nllCoef: 0 };
    const shift = this.config.rewardShift === 'runningMean' ? this.shift.mean : 0;
    return (logprobs: PairLogprobs) => dpoLosses(logprobs, settings, shift);
  }

  /** @returns metrics; none where no pair was judged, and then nothing was updated */
  private update(pairs: readonly Pair[]): Record<string, number> {
    if (pairs.length === 0) return {};
    const { optimizer, policy, reference } = this.parts;
    const { learningRate: base, warmupSteps, schedule, maxGradNorm, sampling } = this.config;
    try {
      const sums = backwardPairs({ policy, reference }, pairs, this.lossOf, {
        microBatchTokens: this.config.microBatchTokens,
        temperature: sampling.temperature,
        isCoupled: couplesPairs(this.config),
      });
      const taken = takeOptimizerStep(this.where, optimizer, this.parameters, {
        loss: sums.get('loss'),
        update: this.stepsDone,
        maxGradNorm,
        schedule: { ...schedule, base, warmupSteps, totalSteps: this.totalSteps },
      });
      this.updates++;
      this.shift.add([sums.get('rewards/chosen'), sums.get('rewards/rejected')]);
      return { ...sums.means(1), ...taken };
    } finally {
      optimizer.zeroGrad();
    }
  }

  /** Where the reference is replaced now and then: the policy's weights become its own. */
  private refreshReference(): void {
    const { referenceEvery } = this.config;
    if (referenceEvery === null || this.stepsDone % referenceEvery !== 0) return;
    const { policy, reference } = this.parts;
    replaceReference(reference, policy);
  }

  state(): Record<string, unknown> {
    return {
      method: this.method,
      step: this.stepsDone,
      updates: this.updates,
      prompts: this.parts.prompts.length,
      shift: this.shift.state(),
      rollouts: this.rollouts.state(),
    };
  }

  /** The weights of a reference that moves: another is loaded from where it came from. */
  private get movingReference(): ReadonlyMap<string, Tensor> | undefined {
    const { referenceEvery } = this.config;
    return referenceEvery === null ? undefined : this.parts.reference.trainedParameters();
  }

  tensors(): Map<string, Tensor> {
    const reference = withPrefix('reference.', this.movingReference);
    return new Map([...this.parts.optimizer.stateTensors(), ...reference]);
  }

  restore(state: SavedState, tensors: ReadonlyMap<string, Tensor>): void {
    const where = 'OnlineDpoTrainer';
    const { method } = this;
    checkSavedRun(where, state, { method, prompts: this.parts.prompts.length });
    // Everything is read before anything is changed.
    const [step, updates] = [savedCount(where, state, 'step'), savedCount(where, state, 'updates')];
    const restoreRollouts = this.rollouts.restorer(nestedState(where, state, 'rollouts'));
    const shift = new RunningMoments();
    shift.restore(where, nestedState(where, state, 'shift'));
    const moving = this.movingReference;
    const { named, others } = withoutPrefix('reference.', tensors);
    if (moving) checkParameters(named, moving);
    this.parts.optimizer.loadState(others);
    if (moving) copyParameters(named, moving);
    this.stepsDone = step;
    this.updates = updates;
    this.shift = shift;
    restoreRollouts();
  }
}

/** @throws ConfigError where something else would score the completions too, or would be passed over in silence */
function requireJudgeAlone(
  { rewards, rewardModels = [] }: OnlineDpoParts,
  { missingEosPenalty, rewardWeights }: OnlineDpoConfig,
): void {
  const names = [...rewards, ...rewardModels].map(({ name }) => name);
  if (names.length > 0) {
    throw new ConfigError(
      `OnlineDpoTrainer: expected a judge or rewards, received both (${names.join(', ')}).`,
      { hint: 'Leave one of them out.' },
    );
  }
  if (missingEosPenalty !== null) {
    throw new ConfigError(
      `missingEosPenalty: expected null with a judge, whose verdicts are no scores to subtract it from, received ${missingEosPenalty}.`,
    );
  }
  const [weight] = Object.keys(rewardWeights);
  if (weight !== undefined) {
    throw new ConfigError(
      `rewardWeights: expected none with a judge, received one of ${JSON.stringify(weight)}.`,
    );
  }
}

interface Judged extends Pair {
  readonly chosen: RolloutRow;
  readonly rejected: RolloutRow;
}
