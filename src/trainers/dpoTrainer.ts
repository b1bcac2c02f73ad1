/** Direct Preference Optimization, and what learns from pairs without a reference: ORPO, SimPO, CPO. */
import type { PreferenceExample } from '../data/index.js';
import { ConfigError, ValueRangeError } from '../errors/index.js';
import { whileAwake, type Decoder } from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { noGrad, type Tensor } from '../torch/index.js';
import { DataEpochs } from './dataEpochs.js';
import { pairLossRecord } from './lossRecord.js';
import { takeOptimizerStep } from './optimizerStep.js';
import { couplesPairs, pairLosses, type PairMethod } from './pairObjective.js';
import {
  backwardPairs,
  countPairTokens,
  measurePairs,
  referencePass,
  type Pair,
  type PairTokens,
} from './pairPass.js';
import { pairRecords } from './pairRecord.js';
import { longerOfPair, requirePositions } from './requirePositions.js';
import { RunningMoments } from './runningMoments.js';
import {
  checkParameters,
  copyParameters,
  nestedState,
  withoutPrefix,
  withPrefix,
  type SavedState,
} from './savedState.js';
import type { PairRecord, StepReport, Trainer } from './trainer.js';
import {
  isSource,
  trainingRows,
  type TrainingExamples,
  type TrainingRows,
} from './trainingRows.js';

/** Warm-up of a run that names none and is long enough. */
const MOST_WARMUP_STEPS = 150;

/** What DPO acts on, built before. */
export interface DpoParts {
  readonly policy: Decoder;
  /** Frozen, and another object than the policy; null for methods without a reference. */
  readonly reference: Decoder | null;
  readonly optimizer: AdamW;
  readonly pairs: TrainingExamples<PreferenceExample>;
  /** Held-out pairs, for `evaluate`. */
  readonly evalPairs?: readonly PreferenceExample[] | undefined;
  /** Writes pairs down as text; none are without it. */
  readonly tokenizer?: Tokenizer | undefined;
}

/**
 * Makes the chosen completion of every pair more likely than the rejected one, measured against a frozen reference:
 *
 *     L = −mean over pairs of log σ(β·(log π(y_w|x)/π_ref(y_w|x) − log π(y_l|x)/π_ref(y_l|x)))
 *
 * and the other objectives of `pairLosses`. Log-probabilities are sums over the completion, its end token included.
 *
 * Source: Rafailov et al. 2023, arXiv:2305.18290, Eq. 7. Departures and metrics: docs/algorithms/preferences.md.
 */
export class DpoTrainer implements Trainer {
  readonly method: PairMethod['method'];
  private readonly parts: DpoParts;
  private readonly objective: PairMethod;
  private readonly parameters: readonly Tensor[];
  private readonly pairs: TrainingRows<Pair>;
  private readonly evalPairs: readonly Pair[];
  /** Whether pairs bring their reference, which is then needed no more. */
  readonly isPrecomputed: boolean;
  private shift = new RunningMoments();
  private readonly data: DataEpochs;

  /**
   * @throws ConfigError where the loss lacks its reference, or is to compute that of pairs that stay in their files; DataError for a pair that is longer than the model's
   *   positions
   */
  constructor(parts: DpoParts, objective: PairMethod) {
    const { policy, reference } = parts;
    const { config, method } = objective;
    checkReference(parts, objective);
    this.method = method;
    this.parts = parts;
    this.objective = objective;
    this.isPrecomputed = method === 'dpo' && config.reference === 'precomputed';
    const toPairs = (examples: readonly PreferenceExample[]): Pair[] => {
      requirePositions('DpoTrainer', 'pairs', examples.map(longerOfPair), policy);
      const pairs = examples.map(toPair);
      if (!this.isPrecomputed || !reference) return pairs;
      const found = referencePass(reference, pairs, config);
      return pairs.map((pair, index) => ({ ...pair, refLogprobs: found[index] }));
    };
    this.pairs = trainingRows(parts.pairs, toPairs);
    this.evalPairs = toPairs(parts.evalPairs ?? []);
    this.parameters = policy.parameters();
    this.data = new DataEpochs('DpoTrainer', method, this.pairs.sources, config);
  }

  get step(): number {
    return this.data.step;
  }

  get totalSteps(): number {
    return this.data.totalSteps;
  }

  /** One optimizer step on the next batch of pairs. */
  async trainStep(): Promise<StepReport> {
    const batch = await this.pairs.at(this.data.next());
    const recorded = this.recordedPlaces(batch);
    const report = this.update(batch, recorded);
    const pairs = this.pairRecords(batch, recorded); // before the shift of the loss moves on
    this.shift.add([report['rewards/chosen'] ?? 0, report['rewards/rejected'] ?? 0]);
    this.data.advance();
    this.moveReference();
    const metrics = { ...report, tokens: countPairTokens(batch), epoch: this.data.epoch };
    return { metrics, samples: [], pairs, warnings: [] };
  }

  /** The pairs of a batch that are written down. */
  private recordedPlaces(batch: readonly Pair[]): Map<number, PairTokens | null> {
    const count = this.parts.tokenizer ? this.objective.config.samplesPerStep : 0;
    return new Map(batch.slice(0, count).map((_, place) => [place, null]));
  }

  private pairRecords(
    batch: readonly Pair[],
    recorded: ReadonlyMap<number, PairTokens | null>,
  ): PairRecord[] {
    const { tokenizer } = this.parts;
    if (!tokenizer) return [];
    const known = [...recorded].flatMap(([place, tokens]) => {
      const pair = batch[place];
      return pair && tokens ? [{ pair, place, tokens }] : [];
    });
    return pairRecords(known, {
      ...{ step: this.step + 1, tokenizer, lossOf: this.lossOf, count: batch.length },
      ...{ settings: pairLossRecord(this.objective), isCoupled: this.passing.isCoupled },
    });
  }

  private update(
    batch: readonly Pair[],
    recorded: Map<number, PairTokens | null>,
  ): Record<string, number> {
    const { optimizer } = this.parts;
    const { learningRate: base, schedule, maxGradNorm } = this.objective.config;
    try {
      const sums = backwardPairs(this.models, batch, this.lossOf, {
        ...this.passing,
        recorded,
      });
      const taken = takeOptimizerStep(`DpoTrainer: step ${this.step}`, optimizer, this.parameters, {
        loss: sums.get('loss'),
        update: this.step,
        maxGradNorm,
        schedule: {
          ...{ ...schedule, base },
          ...{ warmupSteps: this.warmupSteps, totalSteps: this.totalSteps },
        },
      });
      return { ...sums.means(1), ...taken };
    } finally {
      optimizer.zeroGrad();
    }
  }

  /** Steps over which the learning rate rises. */
  get warmupSteps(): number {
    const { warmupSteps } = this.objective.config;
    return warmupSteps ?? Math.min(MOST_WARMUP_STEPS, Math.floor(this.totalSteps / 10));
  }

  private get models() {
    const { policy, reference } = this.parts;
    return { policy, reference: this.isPrecomputed ? null : reference };
  }

  private get passing() {
    const { method, config } = this.objective;
    const isCoupled = method === 'dpo' && couplesPairs(config);
    return { microBatchTokens: config.microBatchTokens, isCoupled };
  }

  private readonly lossOf = (logprobs: Parameters<typeof pairLosses>[1]) =>
    pairLosses(this.objective, logprobs, this.rewardShift);

  /** δ of bco_pair: the mean of all implicit rewards so far. */
  private get rewardShift(): number {
    const { method, config } = this.objective;
    return method === 'dpo' && config.rewardShift === 'runningMean' ? this.shift.mean : 0;
  }

  /**
   * The metrics of a step for the held-out pairs, under the present weights.
   *
   * @throws ValueRangeError where there are none
   */
  evaluate(): Record<string, number> {
    if (this.evalPairs.length === 0) {
      throw new ValueRangeError(
        'DpoTrainer: expected at least one held-out pair to evaluate, received none.',
      );
    }
    return measurePairs(this.models, this.evalPairs, this.lossOf, this.passing).means(1);
  }

  /** TR-DPO: π_ref becomes α·π + (1 − α)·π_ref, weight by weight. */
  private moveReference(): void {
    const { method, config } = this.objective;
    const { policy, reference } = this.parts;
    if (method !== 'dpo' || config.referenceEvery === null || !reference) return;
    if (this.step % config.referenceEvery !== 0) return;
    const from = policy.trainedParameters();
    noGrad(() =>
      whileAwake(reference, () => {
        for (const [name, parameter] of reference.trainedParameters()) {
          const target = from.get(name);
          if (target)
            parameter.mul_(1 - config.referenceMix).add_(target, { alpha: config.referenceMix });
        }
      }),
    );
  }

  /** The weights of a reference that moves: others are loaded from where they came from. */
  private get movingReference(): ReadonlyMap<string, Tensor> | undefined {
    const { method, config } = this.objective;
    const moves = method === 'dpo' && config.referenceEvery !== null;
    return moves ? this.parts.reference?.trainedParameters() : undefined;
  }

  state(): Record<string, unknown> {
    return { ...this.data.state(), shift: this.shift.state() };
  }

  tensors(): Map<string, Tensor> {
    const reference = withPrefix('reference.', this.movingReference);
    return new Map([...this.parts.optimizer.stateTensors(), ...reference]);
  }

  restore(state: SavedState, tensors: ReadonlyMap<string, Tensor>): void {
    // Everything is read before anything is changed.
    const restoreData = this.data.restorer(state);
    const shift = new RunningMoments();
    shift.restore('DpoTrainer', nestedState('DpoTrainer', state, 'shift'));
    const moving = this.movingReference;
    const { named, others } = withoutPrefix('reference.', tensors);
    if (moving) checkParameters(named, moving);
    this.parts.optimizer.loadState(others);
    if (moving) copyParameters(named, moving);
    restoreData();
    this.shift = shift;
  }
}

/** Whether a method compares with a reference. */
export function needsReferenceModel({ method, config }: PairMethod): boolean {
  return method === 'dpo' && !config.referenceFree;
}

function checkReference({ policy, reference, pairs }: DpoParts, objective: PairMethod): void {
  if (
    objective.method === 'dpo' &&
    objective.config.reference === 'precomputed' &&
    isSource(pairs)
  ) {
    throw new ConfigError(
      'DpoTrainer: expected the reference live beside pairs that stay in their files, received precomputed.',
      { hint: 'Leave streaming or reference out.' },
    );
  }
  const isNeeded = needsReferenceModel(objective);
  if (isNeeded && reference !== null && reference !== policy) return;
  if (!isNeeded && reference === null) return;
  const received = reference === null ? 'none' : reference === policy ? 'the policy itself' : 'one';
  throw new ConfigError(
    `DpoTrainer: expected ${isNeeded ? 'a reference model of its own' : `no reference model for ${objective.method === 'dpo' ? 'referenceFree' : objective.method}`}, received ${received}.`,
    isNeeded ? { hint: 'Load the starting model a second time.' } : {},
  );
}

function toPair({ promptIds, chosenIds, rejectedIds }: PreferenceExample): Pair {
  return {
    chosen: { promptIds, completionIds: chosenIds },
    rejected: { promptIds, completionIds: rejectedIds },
  };
}
