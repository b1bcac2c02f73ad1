/**
 * Where an on-policy trainer gets its rollouts from: prompts in order, groups that were sampled again until they vary,
 * and rollouts that were drawn some steps before they are trained on.
 */
import { BatchOrder, type BatchPosition, type PromptExample } from '../data/index.js';
import type { Environment } from '../environments/index.js';
import { CheckpointError } from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import { sourcesOf } from './dataEpochs.js';
import type { NamedReward } from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import { deriveSeed } from '../torch/index.js';
import {
  checkRewardParts,
  requireScores,
  rollout,
  type RolloutRow,
  type RolloutSampling,
} from './rollout.js';
import type { RewardModel, RowScorer } from './scoreRows.js';
import { groupsOf, lacksVariance } from './rolloutRecord.js';
import { savedOrder, type SavedState } from './savedState.js';

/** What is sampled from, and what answers and scores it. */
export interface RolloutParts {
  readonly policy: Decoder;
  readonly tokenizer: Tokenizer;
  readonly prompts: readonly PromptExample[];
  readonly rewards: readonly NamedReward[];
  readonly rewardModels?: readonly RewardModel[] | undefined;
  /** In place of the weighted sum of rewards and reward models, which then may be none. */
  readonly score?: RowScorer | undefined;
  readonly environment?: Environment | undefined;
}

/** How it is sampled. */
export interface RolloutSettings {
  readonly promptsPerStep: number;
  readonly groupSize: number;
  readonly sampling: RolloutSampling;
  readonly maxTurns: number;
  readonly rewardTimeoutSeconds: number;
  readonly rewardConcurrency: number;
  readonly microBatchTokens: number;
  readonly seed: number;
  /** Shares of several sources, see `BatchOrder`. */
  readonly data?: { readonly weights: readonly number[] | null } | undefined;
  /** Sample again for groups without variance. */
  readonly dynamicSampling?: {
    readonly filterOn: 'accuracy' | 'reward';
    readonly accuracyReward: string | null;
    readonly maxRounds: number;
  } | null;
  /** Steps between drawing a rollout and training on it. */
  readonly rolloutLag?: number;
  readonly withGreedy?: boolean;
  readonly penaltyOf?: ((row: { readonly length: number }) => number) | undefined;
}

/** The rows of one step. */
export interface Rollout {
  readonly rows: readonly RolloutRow[];
  /** Sentences about what could not be scored. */
  readonly failures: readonly string[];
  /** Rounds of sampling it took. */
  readonly rounds: number;
  /** Share of all groups drawn for this step that had no variance; what is trained on may have fewer. */
  readonly discardedShare: number;
}

/** A stream of rollouts that can be left and gone on with. */
export class RolloutSource {
  private readonly parts: RolloutParts;
  private readonly settings: RolloutSettings;
  private readonly where: string;
  private order: BatchOrder;
  /** Rollouts drawn so far: what their seeds are derived from. */
  private drawn = 0;
  private waiting: Rollout[] = [];

  /** @throws RewardError as `checkRewardParts` */
  constructor(where: string, parts: RolloutParts, settings: RolloutSettings) {
    if (!parts.score) checkRewardParts(where, parts.rewards, parts.rewardModels ?? []);
    this.where = where;
    this.parts = parts;
    this.settings = settings;
    this.order = this.orderFrom();
  }

  private orderFrom(position?: BatchPosition): BatchOrder {
    const { promptsPerStep: batchSize, seed, data } = this.settings;
    const rowCount = this.parts.prompts.length;
    const orderSeed = deriveSeed(seed, 'prompt order');
    const mixture = data?.weights
      ? { sources: sourcesOf(this.parts.prompts), weights: data.weights }
      : undefined;
    return new BatchOrder({ rowCount, batchSize, seed: orderSeed, mixture }, position);
  }

  /**
   * The rollout that the next step trains on, drawn now if it was not before. It stays the next one.
   *
   * @param weightVersion updates that the policy has seen
   */
  async peek(weightVersion: number): Promise<Rollout> {
    const { rolloutLag = 0 } = this.settings;
    while (this.waiting.length <= rolloutLag) this.waiting.push(await this.draw(weightVersion));
    return this.waiting[0] as Rollout; // at least one was just drawn
  }

  /** Takes what `peek` gives. */
  async next(weightVersion: number): Promise<Rollout> {
    const next = await this.peek(weightVersion);
    this.waiting.shift();
    return next;
  }

  private async draw(weightVersion: number): Promise<Rollout> {
    const { promptsPerStep, groupSize, dynamicSampling = null } = this.settings;
    const seed = deriveSeed(this.settings.seed, 'rollout', this.drawn++);
    const kept: RolloutRow[][] = [];
    const discarded: RolloutRow[][] = [];
    const failures: string[] = [];
    const maxRounds = dynamicSampling?.maxRounds ?? 1;
    let rounds = 0;
    while (kept.length < promptsPerStep && rounds < maxRounds) {
      const found = await this.sample(deriveRoundSeed(seed, rounds), weightVersion);
      rounds++;
      failures.push(...found.failures);
      for (const group of groupsOf(found.rows, groupSize)) {
        (this.varies(group) ? kept : discarded).push(group);
      }
    }
    const groups = [...kept, ...discarded].slice(0, promptsPerStep);
    requireScores(groups.flat(), failures);
    return {
      // A group's place in the batch is not its place in the round that drew it.
      rows: groups.flatMap((group, promptIndex) => group.map((row) => ({ ...row, promptIndex }))),
      failures,
      rounds,
      discardedShare: discarded.length / (kept.length + discarded.length),
    };
  }

  private sample(
    seed: number,
    weightVersion: number,
  ): Promise<{ rows: RolloutRow[]; failures: readonly string[] }> {
    const { rewardTimeoutSeconds, rewardConcurrency, ...settings } = this.settings;
    return rollout({
      ...this.parts,
      prompts: this.order.next().map((index) => this.parts.prompts[index] as PromptExample),
      groupSize: settings.groupSize,
      sampling: settings.sampling,
      maxTurns: settings.maxTurns,
      withGreedy: settings.withGreedy,
      penaltyOf: settings.penaltyOf,
      seed,
      weightVersion,
      timeoutSeconds: rewardTimeoutSeconds,
      concurrency: rewardConcurrency,
      microBatchTokens: settings.microBatchTokens,
    });
  }

  /** Whether dynamic sampling keeps a group. */
  private varies(group: readonly RolloutRow[]): boolean {
    const { dynamicSampling = null } = this.settings;
    if (dynamicSampling === null) return true;
    const { filterOn, accuracyReward } = dynamicSampling;
    const scoreOf = (row: RolloutRow): number => {
      if (filterOn === 'reward') return row.reward;
      return accuracyReward === null ? row.outcome : (row.rewards[accuracyReward] ?? NaN);
    };
    return !lacksVariance(group.map(scoreOf));
  }

  /** What the next rollouts depend on, as JSON can hold it. */
  state(): Record<string, unknown> {
    const indexOf = new Map(this.parts.prompts.map((prompt, index) => [prompt, index]));
    return {
      order: this.order.state(),
      drawn: this.drawn,
      waiting: this.waiting.map((waiting) => ({
        ...waiting,
        rows: waiting.rows.map(({ prompt, supports, ...row }) => ({
          ...row,
          // JSON has no NaN.
          outcome: Number.isNaN(row.outcome) ? null : row.outcome,
          reward: Number.isNaN(row.reward) ? null : row.reward,
          greedyReward: Number.isNaN(row.greedyReward) ? null : row.greedyReward,
          rewards: Object.entries(row.rewards).map(([name, value]) => [
            name,
            Number.isNaN(value) ? null : value,
          ]),
          prompt: indexOf.get(prompt),
          supports: supports?.map((support) => support && Array.from(support)),
        })),
      })),
    };
  }

  /** Reads a state and gives what takes this source back to it: everything is read before anything is changed. */
  restorer(state: SavedState): () => void {
    const order = savedOrder(this.where, state, this.parts.prompts.length);
    const { drawn, waiting } = state as { drawn?: unknown; waiting?: unknown };
    if (typeof drawn !== 'number' || !Array.isArray(waiting)) {
      throw new CheckpointError(
        `${this.where}: expected the saved state to tell which rollouts were drawn, received none.`,
        { hint: 'The checkpoint was edited or is torn: resume from another one.' },
      );
    }
    const rollouts = (waiting as SavedRollout[]).map((saved): Rollout => ({
      ...saved,
      rows: saved.rows.map((row) => this.restoredRow(row)),
    }));
    return () => {
      this.order = this.orderFrom(order);
      this.drawn = drawn;
      this.waiting = rollouts;
    };
  }

  private restoredRow(row: SavedRow): RolloutRow {
    const prompt = this.parts.prompts[row.prompt];
    if (prompt === undefined) {
      throw new CheckpointError(
        `${this.where}: expected a prompt ${row.prompt} among the ${this.parts.prompts.length} of the data, received none.`,
        { hint: 'Resume with the data that the run was started with.' },
      );
    }
    const { greedyReward, supports, ...rest } = row;
    return {
      ...rest,
      prompt,
      outcome: row.outcome ?? NaN,
      reward: row.reward ?? NaN,
      rewards: Object.fromEntries(row.rewards.map(([name, value]) => [name, value ?? NaN])),
      ...(greedyReward !== undefined && { greedyReward: greedyReward ?? NaN }),
      ...(supports && { supports: supports.map((ids) => ids && Int32Array.from(ids)) }),
    };
  }
}

/** The first round's seed is the rollout's own. */
function deriveRoundSeed(seed: number, round: number): number {
  return round === 0 ? seed : deriveSeed(seed, 'round', round);
}

interface SavedRollout extends Omit<Rollout, 'rows'> {
  readonly rows: readonly SavedRow[];
}

interface SavedRow extends Omit<
  RolloutRow,
  'prompt' | 'outcome' | 'reward' | 'rewards' | 'greedyReward' | 'supports'
> {
  readonly prompt: number;
  readonly outcome: number | null;
  readonly reward: number | null;
  readonly rewards: readonly [string, number | null][];
  readonly greedyReward?: number | null;
  readonly supports?: readonly (readonly number[] | null)[];
}
