/** Kahneman–Tversky Optimization: from completions that are good or bad by themselves. */
import { ktoLoss, sequenceLogprob } from '../algorithms/index.js';
import type { KtoConfig } from '../config/index.js';
import type { UnpairedExample } from '../data/index.js';
import { ConfigError, DataError, ValueRangeError } from '../errors/index.js';
import {
  backwardTokenLogprobs,
  tokenLogprobs,
  type Decoder,
  type TokenLogprobs,
  whileAwake,
} from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { DataEpochs } from './dataEpochs.js';
import {
  BY_LABEL,
  klBaselineOf,
  ktoMetrics,
  ktoRecord,
  lengthOfUnpaired,
  partnersOf,
  toKtoRow,
  type KtoRow,
  type KtoTokens,
} from './ktoRows.js';
import { StatSums, takeOptimizerStep } from './optimizerStep.js';
import { requirePositions } from './requirePositions.js';
import type { SavedState } from './savedState.js';
import { microBatches } from './microBatches.js';
import {
  collate,
  completionMask,
  logprobPass,
  rowsOf,
  type TokenRow,
  type TokenTensors,
} from './tokenRows.js';
import type { GivenRecord, StepReport, Trainer } from './trainer.js';
import { trainingRows, type TrainingExamples, type TrainingRows } from './trainingRows.js';

/** What KTO acts on, built before. */
export interface KtoParts {
  readonly policy: Decoder;
  /** Frozen, and another object than the policy. */
  readonly reference: Decoder;
  readonly optimizer: AdamW;
  readonly examples: TrainingExamples<UnpairedExample>;
  /** Held-out examples, for `evaluate`. */
  readonly evalExamples?: readonly UnpairedExample[] | undefined;
  /** Writes rows down as text; none are without it. */
  readonly tokenizer?: Tokenizer | undefined;
}

type KtoLoss = (scored: TokenLogprobs) => { loss: Tensor } & Record<string, Tensor>;

/**
 * Desirable completions should gain on the reference more than the policy does on average, undesirable ones less:
 *
 *     r = β·log(π/π_ref)      L = mean of λ_D·(1 − σ(r − β·z)) over desirable, λ_U·(1 − σ(β·z − r)) over undesirable rows
 *
 * z is an estimate of KL(π ‖ π_ref), shared by the step: the mean log-ratio of prompts with the completion of the next
 * row in the batch that has another prompt, at least 0, and a constant.
 *
 * Source: Ethayarajh et al. 2024, arXiv:2402.01306, §4.1. Metrics: docs/algorithms/preferences.md.
 */
export class KtoTrainer implements Trainer {
  readonly method = 'kto';
  private readonly parts: KtoParts;
  private readonly config: KtoConfig;
  private readonly parameters: readonly Tensor[];
  private readonly rows: TrainingRows<KtoRow>;
  private readonly evalRows: readonly KtoRow[];
  private readonly data: DataEpochs;

  /**
   * @throws ConfigError where the reference is the policy; DataError for a row longer than the model's positions, or a
   *   single one, to train on or held out, whose KL would be estimated from its own completion
   */
  constructor(parts: KtoParts, config: KtoConfig) {
    if (parts.reference === parts.policy) {
      throw new ConfigError(
        'KtoTrainer: expected a reference model of its own, received the policy itself.',
        { hint: 'Load the starting model a second time.' },
      );
    }
    this.parts = parts;
    this.config = config;
    const { examples, evalExamples = [], policy } = parts;
    const toRows = (read: readonly UnpairedExample[]): KtoRow[] => {
      requirePositions('KtoTrainer', 'rows', read.map(lengthOfUnpaired), policy);
      return read.map(toKtoRow);
    };
    this.rows = trainingRows(examples, toRows);
    this.evalRows = toRows(evalExamples);
    for (const [what, rows] of [
      ['rows', examples],
      ['held-out rows', evalExamples],
    ] as const) {
      if (rows.length !== 1) continue;
      throw new DataError(
        `KtoTrainer: expected at least two ${what}, because the KL is estimated from prompts with completions of others, received 1.`,
      );
    }
    this.parameters = parts.policy.parameters();
    this.data = new DataEpochs('KtoTrainer', this.method, this.rows.sources, config);
  }

  get step(): number {
    return this.data.step;
  }

  get totalSteps(): number {
    return this.data.totalSteps;
  }

  /** One optimizer step on the next batch of rows. */
  async trainStep(): Promise<StepReport> {
    const batch = await this.rows.at(this.data.next());
    const { report, klLogratios, recorded } = this.update(batch);
    this.data.advance();
    const tokens = batch.reduce(
      (sum, row) => sum + row.promptIds.length + row.completionIds.length,
      0,
    );
    const metrics = { ...report, tokens, epoch: this.data.epoch };
    const given = this.records(batch, recorded, klBaselineOf(klLogratios));
    return { metrics, samples: [], given, warnings: [] };
  }

  private records(
    batch: readonly KtoRow[],
    recorded: ReadonlyMap<number, KtoTokens>,
    klBaseline: number,
  ): GivenRecord[] {
    const { tokenizer } = this.parts;
    if (!tokenizer) return [];
    return batch.slice(0, this.config.samplesPerStep).flatMap((row, place) => {
      const tokens = recorded.get(place);
      const known = { row, place, rows: batch.length, klBaseline, config: this.config };
      return tokens ? [ktoRecord({ ...known, ...tokens }, this.step, tokenizer)] : [];
    });
  }

  private update(batch: readonly KtoRow[]): {
    report: Record<string, number>;
    klLogratios: readonly number[];
    recorded: ReadonlyMap<number, KtoTokens>;
  } {
    const { optimizer, policy } = this.parts;
    const { learningRate: base, warmupSteps, schedule, maxGradNorm } = this.config;
    try {
      const klLogratios = this.mismatchedLogratios(batch);
      const sums = new StatSums();
      const recorded = new Map<number, KtoTokens>();
      const visit = (input: TokenTensors, lossOf: KtoLoss): void =>
        sums.add(backwardTokenLogprobs(policy, input, lossOf));
      this.forEachMicroBatch(batch, klLogratios, visit, recorded);
      const taken = takeOptimizerStep(`KtoTrainer: step ${this.step}`, optimizer, this.parameters, {
        loss: sums.get('loss'),
        update: this.step,
        maxGradNorm,
        schedule: { ...schedule, base, warmupSteps, totalSteps: this.totalSteps },
      });
      const report = { ...ktoMetrics(sums, batch, klLogratios), ...taken };
      return { report, klLogratios, recorded };
    } finally {
      optimizer.zeroGrad();
    }
  }

  /**
   * The metrics of a step for the held-out rows, under the present weights.
   *
   * @throws ValueRangeError where there are fewer than two: the KL needs two
   */
  evaluate(): Record<string, number> {
    const rows = this.evalRows;
    if (rows.length < 2) {
      throw new ValueRangeError(
        `KtoTrainer: expected at least two held-out rows to evaluate, received ${rows.length}.`,
      );
    }
    const klLogratios = this.mismatchedLogratios(rows);
    const sums = new StatSums();
    this.forEachMicroBatch(rows, klLogratios, (input, lossOf) =>
      sums.add(noGrad(() => lossOf(tokenLogprobs(this.parts.policy, input)))),
    );
    return ktoMetrics(sums, rows, klLogratios);
  }

  /** log π/π_ref of every prompt with the completion of the next row that has another prompt, nats. */
  private mismatchedLogratios(rows: readonly KtoRow[]): number[] {
    const { policy, reference } = this.parts;
    const { maxPositionEmbeddings } = policy.config;
    const partners = partnersOf(rows);
    const mismatched = rows.map(({ promptIds }, index): TokenRow => {
      const { completionIds } = rows[partners[index] as number] as KtoRow;
      // A long prompt with a long completion of another row may be more than the model has positions for.
      return {
        promptIds,
        completionIds: completionIds.slice(0, maxPositionEmbeddings - promptIds.length),
      };
    });
    const pass = { maxTokens: this.config.microBatchTokens, temperature: 1 };
    const [ofPolicy, ofReference] = [policy, reference].map((model) =>
      logprobPass(model, mismatched, pass).map((row) => row.reduce((sum, value) => sum + value, 0)),
    );
    return mismatched.map((_, index) => (ofPolicy?.[index] ?? 0) - (ofReference?.[index] ?? 0));
  }

  private forEachMicroBatch(
    rows: readonly KtoRow[],
    klLogratios: readonly number[],
    visit: (batch: TokenTensors, lossOf: KtoLoss) => void,
    recorded?: Map<number, KtoTokens>,
  ): void {
    const { policy, reference } = this.parts;
    const { beta, desirableWeight, undesirableWeight } = this.config;
    for (const indices of microBatches(rows, this.config.microBatchTokens, {
      through: [policy, reference],
    })) {
      tidy(() => {
        const part = indices.map((index) => rows[index] as KtoRow);
        const batch = collate(part, policy.device);
        const sumsOf = ({ logprobs }: TokenLogprobs): Tensor => {
          const mask = completionMask(part, logprobs.size(1), () => true, logprobs.device);
          return sequenceLogprob({ logprobs, mask });
        };
        const ofReference = noGrad(() =>
          whileAwake(reference, () => tokenLogprobs(reference, batch)),
        );
        const refLogprobs = noGrad(() => sumsOf(ofReference));
        visit(batch, (scored) => {
          if (recorded && indices.some((index) => index < this.config.samplesPerStep)) {
            const [own, ref] = [scored, ofReference].map((each) => rowsOf(each.logprobs, part));
            indices.forEach((index, at) =>
              recorded.set(index, { logprobs: own?.[at] ?? [], refLogprobs: ref?.[at] ?? [] }),
            );
          }
          const policyLogprobs = sumsOf(scored);
          const { dtype, device } = policyLogprobs;
          const labels = tensor(
            Float64Array.from(part, ({ label }) => (label ? 1 : 0)),
            {
              dtype,
              device,
            },
          );
          const { loss, rewards } = ktoLoss({
            ...{ policyLogprobs, refLogprobs, labels, beta, desirableWeight, undesirableWeight },
            klLogratios: tensor(Float64Array.from(klLogratios), { dtype, device }),
          });
          const streams = { rewards, logprobs: policyLogprobs.detach() }; // metrics
          const ofKind = { true: labels, false: labels.neg().add(1) };
          const stats = BY_LABEL.map(([stream, side, label]): [string, Tensor] => [
            `${stream}/${side}`,
            streams[stream].mul(ofKind[`${label}`]).sum(),
          ]);
          return { loss: loss.sum().div(rows.length), ...Object.fromEntries(stats) };
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
