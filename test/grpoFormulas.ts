/**
 * The GRPO family written out: whole steps from the published formulas, row by row and token by token, with whole forward
 * passes. No cache, no padding, no micro-batches, and nothing of src/algorithms or src/trainers.
 */
import assert from 'node:assert/strict';
import type { GrpoConfig } from '../src/config/index.js';
import type { Decoder } from '../src/models/index.js';
import { AdamW, decayGroups } from '../src/optim/index.js';
import type { NamedReward, RewardInput } from '../src/rewards/index.js';
import { noGrad, tensor, tidy, type Tensor } from '../src/torch/index.js';
import type { SampleRecord } from '../src/trainers/index.js';
import { tinyModel, tinyTokenizer } from './tinyRun.js';

const tokenizer = tinyTokenizer();

/** A completion with all that is known of it before the updates. */
interface Row {
  readonly record: SampleRecord;
  /** Place of its group. */
  readonly group: number;
  /** What is maximised; null where a reward gave no score. */
  readonly reward: number | null;
  /** By reward. */
  readonly parts: readonly number[];
  readonly penalty: number;
  /** 1 where the model drew the token. */
  readonly drawn: readonly number[];
  readonly old: readonly number[];
  readonly ref: readonly number[];
  readonly rollout: readonly number[];
  readonly allowed: readonly (readonly boolean[])[] | null;
  advantages: number[];
}

/** What one step comes to. */
export interface Written {
  readonly loss: number;
  readonly gradNorm: number;
  /** Means over the weights of the loss: what the trainer's metrics of these names are. */
  readonly means: Readonly<Record<string, number>>;
  readonly rows: readonly Row[];
}

const sum = (values: readonly number[]): number =>
  values.reduce((total, value) => total + value, 0);
const mean = (values: readonly number[]): number => sum(values) / values.length;
const std = (values: readonly number[]): number =>
  Math.sqrt(sum(values.map((value) => (value - mean(values)) ** 2)) / (values.length - 1));
const f64 = (values: readonly number[]): Tensor =>
  tensor(Float64Array.from(values), { dtype: 'float64' });

/** A run by formulas; it starts as the trainer of `tinyModel` in float64 with `tinyModel({ seed: 2 })` as reference. */
export class WrittenOut {
  readonly policy = tinyModel({ dtype: 'float64' });
  private readonly reference = tinyModel({ seed: 2, dtype: 'float64' });
  private readonly versions: Decoder[] = [tinyModel({ dtype: 'float64' })];
  private readonly config: GrpoConfig;
  private readonly rewards: readonly NamedReward[];
  private readonly optimizer: AdamW;
  private steps = 0;

  constructor(config: GrpoConfig, rewards: readonly NamedReward[]) {
    this.config = config;
    this.rewards = rewards;
    this.optimizer = new AdamW(decayGroups(this.policy, config.weightDecay));
  }

  /**
   * One step on the completions that the trainer sampled.
   *
   * @param cut the rows in minibatches; all in one unless given
   */
  step(
    samples: readonly SampleRecord[],
    cut: (rows: readonly Row[], epoch: number) => Row[][] = (rows) => [[...rows]],
  ): Written {
    const rows = samples.map((record) => this.rowOf(record));
    this.setAdvantages(rows);
    const losses: number[] = [];
    const norms: number[] = [];
    const found: Record<string, number>[] = [];
    for (let epoch = 0; epoch < this.config.updatesPerRollout; epoch++) {
      for (const all of cut(rows, epoch)) {
        const minibatch = all.filter((row) => this.stays(row, rows));
        if (!minibatch.some((row) => this.counts(row))) continue;
        tidy(() => {
          const { loss, means } = this.lossOf(minibatch);
          loss.backward();
          losses.push(loss.item());
          found.push(means);
          norms.push(this.update());
        });
      }
    }
    this.steps++;
    const { referenceEvery } = this.config;
    if (referenceEvery !== null && this.steps % referenceEvery === 0) {
      copy(this.policy, this.reference);
    }
    const names = Object.keys(found[0] ?? {});
    return {
      loss: mean(losses),
      gradNorm: mean(norms),
      means: Object.fromEntries(
        names.map((name) => [name, mean(found.map((each) => each[name] ?? NaN))]),
      ),
      rows,
    };
  }

  private update(): number {
    const { maxGradNorm, learningRate } = this.config;
    const parameters = this.policy.parameters();
    const norm = Math.sqrt(sum(parameters.map(({ grad }) => grad?.square().sum().item() ?? 0)));
    const factor = Math.min(1, (maxGradNorm ?? Infinity) / (norm + 1e-6));
    for (const { grad } of parameters) noGrad(() => grad?.mul_(factor));
    this.optimizer.step(learningRate);
    this.optimizer.zeroGrad();
    const version = tinyModel({ dtype: 'float64' });
    copy(this.policy, version);
    this.versions.push(version);
    return norm;
  }

  private rowOf(record: SampleRecord): Row {
    const sampler = this.versions[record.weightVersion] ?? assert.fail('no such weights');
    const unscored = record.reward === null;
    // The record's mask is 0 in rows that are not trained. What an environment wrote has a log-probability of 0 too, but
    // so may have a token that truncation left alone.
    const { mask, rolloutLogprobs } = record.streams;
    const drawn =
      unscored || (!record.turns && !mask.includes(1))
        ? mask.map(() => 1)
        : mask.includes(1)
          ? mask
          : rolloutLogprobs.map((logprob) => (logprob < 0 ? 1 : 0));
    const allowed = this.supportOf(sampler, record, drawn);
    const fixed = (model: Decoder): number[] =>
      tidy(() =>
        noGrad(() => Array.from(this.scored(model, record, allowed).logprobs.toTypedArray())),
      );
    // A reward reads the model's last turn, and counts the tokens of all of its turns.
    const last = record.turns?.findLast(({ role }) => role === 'model')?.text;
    const parts = this.scores(record.prompt, last ?? record.completion, sum(drawn));
    const penalty = this.penaltyOf(sum(drawn));
    const reward = parts.includes(NaN) ? null : this.outcome(parts) + penalty;
    const old = fixed(this.policy);
    const { klCoef, objective } = this.config;
    const hasReference = klCoef > 0 || objective.kind === 'groupPreference';
    return {
      record,
      group: record.promptIndex,
      reward,
      parts,
      penalty,
      drawn,
      allowed,
      old,
      ref: hasReference ? fixed(this.reference) : old.map(() => NaN),
      rollout: record.weightVersion === this.versions.length - 1 ? old : fixed(sampler),
      advantages: [],
    };
  }

  private scores(prompt: string, completion: string, completionTokens: number): number[] {
    const input = { prompt, completion, completionTokens } as RewardInput;
    return this.rewards.map(({ fn }) => {
      const score = fn(input);
      return typeof score === 'number' ? score : NaN;
    });
  }

  private outcome(parts: readonly number[]): number {
    return sum(parts.map((part, index) => part * (this.rewards[index]?.weight ?? NaN)));
  }

  /** DAPO Eq. 13. */
  private penaltyOf(length: number): number {
    const { overlongPenalty, sampling } = this.config;
    if (overlongPenalty === null) return 0;
    const cache = overlongPenalty.cacheTokens ?? Math.round(sampling.maxNewTokens / 5);
    const start = sampling.maxNewTokens - cache;
    const depth = length <= start ? 0 : Math.min(1, (length - start) / cache);
    return -depth * overlongPenalty.weight;
  }

  /** The outcome of the most likely continuation, token by token without a cache. */
  private greedyOutcome({ record }: Row): number {
    const sampler = this.versions[record.weightVersion] ?? assert.fail('no such weights');
    const prompt = tokenizer.encode(record.prompt);
    const drawn: number[] = [];
    while (drawn.length < this.config.sampling.maxNewTokens) {
      const logits = tidy(() =>
        noGrad(() => {
          const inputIds = tensor([[...prompt, ...drawn]], { dtype: 'int64' });
          const all = sampler.forward({ inputIds }).logits.select(0, 0);
          return Array.from(all.select(0, all.size(0) - 1).toTypedArray(), Number);
        }),
      );
      const best = logits.indexOf(Math.max(...logits));
      drawn.push(best);
      if (best === tokenizer.eosTokenId) break;
    }
    const text = tokenizer.decode(drawn, { skipSpecialTokens: true });
    return this.outcome(this.scores(record.prompt, text, drawn.length));
  }

  /** Which tokens truncated sampling left at each place, under the weights that sampled. */
  private supportOf(
    sampler: Decoder,
    record: SampleRecord,
    drawn: readonly number[],
  ): boolean[][] | null {
    const { topK, topP, minP } = this.config.sampling;
    if (topK === 0 && topP === 1 && minP === 0) return null;
    const { all } = tidy(() =>
      noGrad(() => ({ all: this.scored(sampler, record, null).all.exp().toArray() as number[][] })),
    );
    return all.map((probabilities, at) => {
      if (drawn[at] !== 1) return probabilities.map(() => true);
      const ranked = [...probabilities.keys()].sort(
        (a, b) => (probabilities[b] ?? 0) - (probabilities[a] ?? 0),
      );
      const top = topK > 0 ? ranked.slice(0, topK) : ranked;
      const mass = sum(top.map((id) => probabilities[id] ?? 0));
      let before = 0;
      const nucleus = top.filter((id) => {
        const isIn = before < topP * mass;
        before += probabilities[id] ?? 0;
        return isIn;
      });
      const highest = Math.max(...probabilities);
      const left = new Set(nucleus.filter((id) => (probabilities[id] ?? 0) >= minP * highest));
      return probabilities.map((_, id) => left.has(id));
    });
  }

  /** [T] log-probabilities of a completion, and [T, V] those of all tokens, on what sampling left. */
  private scored(
    model: Decoder,
    record: SampleRecord,
    allowed: readonly (readonly boolean[])[] | null,
  ): { logprobs: Tensor; all: Tensor } {
    const prompt = tokenizer.encode(record.prompt);
    const ids = [...prompt, ...record.tokenIds];
    const { logits } = model.forward({ inputIds: tensor([ids], { dtype: 'int64' }) });
    const scaled = logits
      .select(0, 0)
      .narrow(0, prompt.length - 1, record.tokenIds.length)
      .div(this.config.sampling.temperature);
    const left = allowed
      ? scaled.where(tensor(allowed.map((row) => row.map(Number))).gt(0), -Infinity)
      : scaled;
    const all = left.logSoftmax(-1);
    const places = tensor(
      record.tokenIds.map((id) => [id]),
      { dtype: 'int64' },
    );
    return { logprobs: all.gather(1, places).squeeze(1), all };
  }

  /** Whether a row has a weight. */
  private counts({ reward, record }: Row): boolean {
    return reward !== null && !(this.config.overlongFiltering && record.finishReason === 'length');
  }

  /** Whether its group is in the batch. */
  private stays(row: Row, rows: readonly Row[]): boolean {
    const group = rows.filter((other) => other.group === row.group);
    const scored = group.flatMap(({ reward }) => reward ?? []);
    const varies = scored.length > 1 && Math.max(...scored) - Math.min(...scored) > 1e-8;
    if (this.config.objective.kind === 'groupPreference') {
      return varies && scored.length === group.length;
    }
    return varies || !this.config.dropGroupsWithoutVariance;
  }

  private setAdvantages(rows: readonly Row[]): void {
    const { klCoef, klPlacement, baseline, whitenAdvantages } = this.config;
    const isInReward = klPlacement === 'reward' && klCoef > 0;
    const penalties = (row: Row): number[] =>
      row.drawn.map((flag, t) =>
        isInReward && flag === 1 ? klCoef * ((row.old[t] ?? NaN) - (row.ref[t] ?? NaN)) : 0,
      );
    const scored = rows.filter(({ reward }) => reward !== null);
    for (const row of rows) row.advantages = row.drawn.map(() => 0);
    const scores = this.usedScores(rows);
    if (baseline === 'none') {
      for (const row of scored) {
        const kl = penalties(row);
        row.advantages = row.drawn.map(
          (flag, t) => flag * ((scores.get(row) ?? NaN) - sum(kl.slice(t))),
        );
      }
    } else {
      for (const row of scored) {
        scores.set(row, (scores.get(row) ?? NaN) - sum(penalties(row)));
      }
      for (const row of scored) {
        const advantage = this.againstBaseline(row, rows, scores);
        row.advantages = row.drawn.map((flag) => flag * advantage);
      }
    }
    if (baseline !== 'none' && !whitenAdvantages) return;
    const counted = scored.flatMap((row) => row.advantages.filter((_, t) => row.drawn[t] === 1));
    const center = mean(counted);
    const scale = Math.sqrt(mean(counted.map((value) => (value - center) ** 2)) + 1e-8);
    for (const row of scored) {
      row.advantages = row.advantages.map(
        (value, t) => ((row.drawn[t] ?? NaN) * (value - center)) / scale,
      );
    }
  }

  /** The rewards, or the sum of each of them standardised in its group. Of scored rows. */
  private usedScores(rows: readonly Row[]): Map<Row, number> {
    const scored = rows.filter(({ reward }) => reward !== null);
    return new Map(
      scored.map((row) => {
        if (!this.config.normalizeRewards) return [row, row.reward ?? NaN];
        const group = scored.filter((other) => other.group === row.group);
        const terms = this.rewards.map(({ weight }, index) => {
          const values = group.map(({ parts }) => parts[index] ?? NaN);
          if (values.every((value) => value === values[0])) return 0;
          return (weight * ((row.parts[index] ?? NaN) - mean(values))) / (std(values) + 1e-4);
        });
        return [row, sum(terms) + row.penalty];
      }),
    );
  }

  private againstBaseline(
    row: Row,
    rows: readonly Row[],
    scores: ReadonlyMap<Row, number>,
  ): number {
    const scoreOf = (each: Row): number => scores.get(each) ?? NaN;
    const groupOf = (each: Row): number[] =>
      rows.filter(({ group }) => group === each.group).flatMap((other) => scores.get(other) ?? []);
    const own = scoreOf(row);
    const group = groupOf(row);
    const { baseline, advantageScale } = this.config;
    if (baseline === 'greedy') {
      const greedy = this.greedyOutcome(row);
      return Number.isNaN(greedy) ? 0 : own - greedy;
    }
    if (group.length < 2 || group.every((value) => value === group[0])) return 0;
    if (baseline === 'leaveOneOut') return own - (sum(group) - own) / (group.length - 1);
    if (baseline === 'secondBest') {
      const [best = NaN, second = NaN] = group.toSorted((a, b) => b - a);
      return own === best ? best - second : 0;
    }
    const difference = own - mean(group);
    const all = rows.filter((each) => scores.has(each));
    switch (advantageScale) {
      case 'group':
        return difference / (std(group) + 1e-4);
      case 'batch':
        return difference / (std(all.map(scoreOf)) + 1e-4);
      case 'centered':
        return difference / (std(all.map((each) => scoreOf(each) - mean(groupOf(each)))) + 1e-4);
      case 'none':
        return difference;
    }
  }

  private weightOf(minibatch: readonly Row[], row: Row): number {
    const { reduction, groupSize } = this.config;
    const tokens = (rows: readonly Row[]): number =>
      sum(rows.map((each) => (this.counts(each) ? sum(each.drawn) : 0)));
    if (!this.counts(row)) return 0;
    switch (reduction.kind) {
      case 'sequenceMean':
        return 1 / (minibatch.length * sum(row.drawn));
      case 'tokenMean':
        return 1 / tokens(minibatch);
      case 'constant':
        return 1 / (minibatch.length * (reduction.budget ?? this.config.sampling.maxNewTokens));
      case 'sequenceSum':
        return 1 / minibatch.length;
      case 'promptMean': {
        const group = minibatch.filter((each) => each.group === row.group);
        return 1 / ((minibatch.length / groupSize) * tokens(group));
      }
    }
  }

  private lossOf(minibatch: readonly Row[]): { loss: Tensor; means: Record<string, number> } {
    if (this.config.objective.kind === 'groupPreference') return this.preferenceLoss(minibatch);
    const { klCoef, klPlacement, klEstimator } = this.config;
    let loss = f64([0]).sum();
    let total = 0;
    const sums: Record<string, number> = {};
    const add = (name: string, weights: Tensor, values: Tensor): void => {
      sums[name] = (sums[name] ?? 0) + values.detach().mul(weights).sum().item();
    };
    for (const row of minibatch) {
      const weight = this.weightOf(minibatch, row);
      if (weight === 0) continue;
      const weights = f64(row.drawn.map((flag) => flag * weight));
      total += weight * sum(row.drawn);
      const { logprobs, all } = this.scored(this.policy, row.record, row.allowed);
      const drawnBy = this.config.ratioAgainst === 'rollout' ? row.rollout : row.old;
      const ratio = logprobs.sub(f64(drawnBy)).exp();
      const toRef = f64(row.ref).sub(logprobs);
      const k3 = toRef.exp().sub(1).sub(toRef);
      const kl = { k1: toRef.neg(), k2: toRef.square().div(2), k3, k3Unbiased: ratio.mul(k3) };
      const correction = this.correctionOf(row, logprobs);
      let terms = this.objectiveOf(row, logprobs).mul(correction.factor).neg();
      if (klCoef > 0) add('klPolicyReference', weights, toRef.neg());
      if (klCoef > 0 && klPlacement === 'loss') terms = terms.add(kl[klEstimator].mul(klCoef));
      loss = loss.add(terms.mul(weights).sum());
      const logs = all.where(all.isfinite(), 0);
      add('entropy', weights, logs.mul(all.exp()).sum(-1).neg());
      if (this.config.importanceWeights) add('importanceWeight', weights, correction.importance);
      if (this.config.offPolicyMask) add('offPolicyMasked', weights, correction.masked);
    }
    return {
      loss,
      means: Object.fromEntries(Object.entries(sums).map(([name, value]) => [name, value / total])),
    };
  }

  /** [T] what is maximised. */
  private objectiveOf(row: Row, logprobs: Tensor): Tensor {
    const { objective, clip, ratioAgainst } = this.config;
    const advantages = f64(row.advantages);
    const logRatio = logprobs.sub(f64(ratioAgainst === 'rollout' ? row.rollout : row.old));
    const clipped = (ratio: Tensor): Tensor =>
      ratio.mul(advantages).minimum(ratio.clamp(1 - clip.low, 1 + clip.high).mul(advantages));
    const ofRow = logRatio.mul(f64(row.drawn)).sum().div(sum(row.drawn));
    switch (objective.kind) {
      case 'ppoClip': {
        const surrogate = clipped(logRatio.exp());
        const floor = advantages.mul(objective.dualClip ?? 1);
        const isBounded =
          objective.dualClip === null ? advantages.ne(advantages) : advantages.lt(0);
        return surrogate.maximum(floor).where(isBounded, surrogate);
      }
      case 'gspo': {
        const spread = ofRow.expand(logprobs.shape);
        if (objective.level === 'sequence') return clipped(spread.exp());
        return clipped(spread.detach().add(logprobs.sub(logprobs.detach())).exp());
      }
      case 'cispo':
        return logRatio
          .detach()
          .exp()
          .clamp(objective.low, objective.high)
          .mul(advantages)
          .mul(logprobs);
      case 'reinforce':
        return logprobs.mul(advantages);
      case 'groupPreference':
        return assert.fail('it has an objective over groups');
    }
  }

  /** [T] what the objective is multiplied by. */
  private correctionOf(
    row: Row,
    logprobs: Tensor,
  ): { factor: Tensor; importance: Tensor; masked: Tensor } {
    const { importanceWeights, offPolicyMask } = this.config;
    const counted = row.drawn.flatMap((flag, t) => (flag === 1 ? [t] : []));
    const ones = row.drawn.map(() => 1);
    let importance = ones;
    if (importanceWeights) {
      const { level, mode, cap } = importanceWeights;
      const logs = row.old.map((old, t) => old - (row.rollout[t] ?? NaN));
      const ofRow = mean(counted.map((t) => logs[t] ?? NaN));
      importance = logs.map((own) => {
        const weight = Math.exp(level === 'token' ? own : ofRow);
        if (weight <= cap) return weight;
        return mode === 'truncate' ? cap : 0;
      });
    }
    let kept = 1;
    if (offPolicyMask) {
      const now = logprobs.detach().toTypedArray();
      const drift = mean(counted.map((t) => (row.rollout[t] ?? NaN) - Number(now[t])));
      const isBad = row.advantages.some((advantage) => advantage < 0);
      kept = isBad && drift > offPolicyMask.threshold ? 0 : 1;
    }
    return {
      factor: f64(importance).mul(kept),
      importance: f64(importance),
      masked: f64(ones).mul(1 - kept),
    };
  }

  /** −mean over prompts of log(Σ_good e^s / Σ e^s), s = β·log(π/π_ref) of whole completions. */
  private preferenceLoss(minibatch: readonly Row[]): {
    loss: Tensor;
    means: Record<string, number>;
  } {
    const { objective } = this.config;
    assert.ok(objective.kind === 'groupPreference');
    const groups = [...new Set(minibatch.map(({ group }) => group))].map((group) =>
      minibatch.filter((row) => row.group === group),
    );
    let loss = f64([0]).sum();
    let goodProbability = 0;
    for (const group of groups) {
      const shares = group.map((row) => {
        const { logprobs } = this.scored(this.policy, row.record, row.allowed);
        const logRatio = logprobs.sub(f64(row.ref)).mul(f64(row.drawn)).sum();
        return logRatio.mul(objective.beta).exp();
      });
      const ranked = [...group.keys()].sort(
        (a, b) => (group[b]?.reward ?? NaN) - (group[a]?.reward ?? NaN) || a - b,
      );
      const highest = group.filter((row) => row.reward === group[ranked[0] ?? NaN]?.reward).length;
      const good = ranked.slice(0, objective.goodCompletions ?? highest);
      const total = shares.reduce((all, share) => all.add(share));
      const ofGood = good
        .map((at) => shares[at] ?? assert.fail())
        .reduce((all, share) => all.add(share));
      const probability = ofGood.div(total);
      loss = loss.sub(probability.log().div(groups.length));
      goodProbability += probability.item() / groups.length;
    }
    return { loss, means: { goodProbability } };
  }
}

function copy(from: Decoder, to: Decoder): void {
  const values = from.namedParameters();
  noGrad(() => {
    for (const [name, parameter] of to.namedParameters()) {
      parameter.copy_(values.get(name) ?? assert.fail(name));
    }
  });
}
