/**
 * PPO written out: whole steps from the published formulas, row by row and token by token. Whole forward passes, GAE as
 * the sum that defines it, Adam by hand; no padding, no micro-batches, and nothing of src/algorithms or src/optim.
 */
import assert from 'node:assert/strict';
import { mergedSettings, PpoConfig, type PpoConfigInput } from '../src/config/index.js';
import {
  createScalarHead,
  createScalarModel,
  type Decoder,
  type ScalarParts,
} from '../src/models/index.js';
import type { RewardFunction, RewardInput } from '../src/rewards/index.js';
import {
  deriveSeed,
  keep,
  noGrad,
  tensor,
  tidy,
  zerosLike,
  type Tensor,
} from '../src/torch/index.js';
import type { SampleRecord } from '../src/trainers/index.js';
import { groupMinibatches } from '../src/trainers/minibatches.js';
import { tinyModel, tinyTokenizer } from './tinyRun.js';

/** Completions of a prompt. */
export const GROUP = 2;
/** Completions of a step. */
export const ROWS = 12;
const tokenizer = tinyTokenizer();

/** The models of a run: the same numbers whenever they are made. */
export interface Models {
  readonly policy: Decoder;
  readonly reference: Decoder;
  readonly valueModel: ScalarParts;
  /** What is trained of the value model alone. */
  readonly valueParameters: ReadonlyMap<string, Tensor>;
}

/** A completion with all that is known of it before the updates. */
export interface Row {
  readonly record: SampleRecord;
  /** As the reward function gave it; NaN where it gave none. */
  readonly reward: number;
  /** 1 where the model drew the token. */
  readonly drawn: readonly number[];
  readonly old: readonly number[];
  readonly ref: readonly number[];
  /** V of the state before each token, and last of the state after the last one. */
  readonly values: readonly number[];
  /** Tokens that truncated sampling left, by place. */
  readonly allowed: readonly (readonly boolean[])[] | null;
  score: number;
  tokenRewards: number[];
  advantages: number[];
  returns: number[];
}

const sum = (values: readonly number[]): number => values.reduce((all, value) => all + value, 0);
const mean = (values: readonly number[]): number => sum(values) / values.length;
const variance = (values: readonly number[]): number =>
  mean(values.map((value) => (value - mean(values)) ** 2));
const f64 = (values: readonly number[]): Tensor => tensor(Float64Array.from(values));
const at = (values: readonly number[], place: number): number => values[place] ?? assert.fail();
const clamp = (value: number, low: number, high: number): number =>
  Math.min(Math.max(value, low), high);

export function modelsOf(config: PpoConfig): Models {
  const policy = tinyModel({ dtype: 'float64' });
  const reference = tinyModel({ seed: 2, dtype: 'float64' });
  const options = { seed: 3, std: 0.3 };
  if (config.valueModel.kind === 'sharedTrunk') {
    const head = createScalarHead(policy, options);
    head.weight.requiresGrad = true;
    const valueParameters = new Map([['score.weight', head.weight]]);
    return { policy, reference, valueModel: { trunk: policy, head }, valueParameters };
  }
  const valueModel = createScalarModel(tinyModel({ seed: 5, dtype: 'float64' }), options);
  return { policy, reference, valueModel, valueParameters: valueModel.namedParameters() };
}

/** All that is trained, by name. */
function trainedOf({ policy, valueParameters }: Models): Map<string, Tensor> {
  const ofValue = Array.from(valueParameters, ([name, one]) => [`value.${name}`, one] as const);
  return new Map([...policy.namedParameters(), ...ofValue]);
}

export const numbersOf = (models: Models): Map<string, number[]> =>
  new Map(
    Array.from(trainedOf(models), ([name, one]) => [name, Array.from(one.toTypedArray(), Number)]),
  );

/** Settings of a small run with those of a case. */
export function settingsOf(config: PpoConfigInput): PpoConfig {
  const base: PpoConfigInput = {
    promptsPerStep: ROWS / GROUP,
    groupSize: GROUP,
    steps: 10,
    learningRate: 1e-2,
    valueLearningRate: 5e-3,
    klCoef: 0.1,
    vfCoef: 0.5,
    samplesPerStep: 100,
    sampling: { maxNewTokens: 6 },
  };
  return PpoConfig.parse(mergedSettings({ ...base }, { ...config }));
}

/** Means over the updates of a step (or over its rows), by the names of the trainer's metrics. */
export interface Written {
  readonly metrics: Readonly<Record<string, number>>;
  readonly rows: readonly Row[];
}

/** A run by formulas. */
export class WrittenOut {
  readonly models: Models;
  private readonly config: PpoConfig;
  private readonly reward: RewardFunction;
  private readonly adam = new Map<string, { m: Tensor; v: Tensor; updates: number }>();
  private klCoef: number;
  private readonly seenRewards: number[] = [];
  private steps = 0;
  /** Updates that were planned so far. */
  private place = 0;

  constructor(config: PpoConfig, reward: RewardFunction) {
    this.config = config;
    this.models = modelsOf(config);
    this.reward = reward;
    this.klCoef = this.config.klCoef;
  }

  /** One step on the completions that the trainer sampled. */
  step(samples: readonly SampleRecord[]): Written {
    const { minibatchSize, updatesPerRollout, seed, targetKl } = this.config;
    const { klCoef } = this;
    const rows = samples.map((record) => this.rowOf(record));
    this.setScores(rows);
    this.setAdvantages(rows);
    this.place = this.steps * updatesPerRollout * (ROWS / (minibatchSize ?? ROWS));
    const found: Record<string, number>[] = [];
    let epochs = 0;
    while (epochs < updatesPerRollout) {
      const minibatches = groupMinibatches(rows, {
        groupSize: GROUP,
        partSize: minibatchSize ?? ROWS,
        seed: deriveSeed(seed, 'minibatches', this.steps, epochs),
      });
      epochs++;
      const ofEpoch = minibatches
        .map((minibatch) => this.update(minibatch))
        .filter((report) => report !== null);
      found.push(...ofEpoch);
      const moved = mean(ofEpoch.map(({ approxKl = NaN }) => approxKl));
      if (targetKl !== null && moved > targetKl) break;
    }
    this.steps++;
    const ofRows = this.rowMetrics(rows);
    this.steer(ofRows['klSequence'] ?? NaN);
    const names = Object.keys(found[0] ?? assert.fail('no update was made'));
    const means = names.map((name): [string, number] => [
      name,
      mean(found.map((each) => each[name] ?? NaN)),
    ]);
    const coefficient = this.config.klCoef > 0 && { klCoef };
    return { metrics: { ...Object.fromEntries(means), ...ofRows, ...coefficient, epochs }, rows };
  }

  private rowOf(record: SampleRecord): Row {
    const { policy, reference, valueModel } = this.models;
    const { mask } = record.streams;
    const drawn = mask.includes(1) ? mask : mask.map(() => 1); // unscored rows have none, and count nowhere
    const allowed = this.supportOf(record, drawn);
    const ofModel = (model: Decoder): number[] =>
      constant(() => this.scored(model, record, allowed).logprobs);
    const last = record.turns?.findLast(({ role }) => role === 'model')?.text;
    const given = this.reward({
      prompt: record.prompt,
      completion: last ?? record.completion,
      completionTokens: sum(drawn),
    } as RewardInput);
    return {
      record,
      reward: typeof given === 'number' ? given : NaN,
      drawn,
      old: ofModel(policy),
      ref: ofModel(reference),
      values: constant(() => valuesOf(valueModel, record)),
      allowed,
      score: NaN,
      tokenRewards: drawn.map(() => 0),
      advantages: drawn.map(() => 0),
      returns: drawn.map(() => 0),
    };
  }

  /** The tokens that top-k sampling left at each place. */
  private supportOf(record: SampleRecord, drawn: readonly number[]): boolean[][] | null {
    const { topK } = this.config.sampling;
    if (topK === 0) return null;
    const { all } = tidy(() =>
      noGrad(() => {
        const scored = this.scored(this.models.policy, record, null);
        return { all: scored.all.toArray() as number[][] };
      }),
    );
    return all.map((logprobs, t) => {
      const threshold = at(
        logprobs.toSorted((a, b) => b - a),
        topK - 1,
      );
      return logprobs.map((logprob) => drawn[t] === 0 || logprob >= threshold);
    });
  }

  /** [T] log-probabilities of a completion, and [T, V] those of all tokens, on what sampling left. */
  private scored(
    model: Decoder,
    record: SampleRecord,
    allowed: Row['allowed'],
  ): { logprobs: Tensor; all: Tensor } {
    const prompt = tokenizer.encode(record.prompt);
    const { logits } = model.forward({ inputIds: idsOf(record) });
    const scaled = logits
      .select(0, 0)
      .narrow(0, prompt.length - 1, record.tokenIds.length)
      .div(this.config.sampling.temperature);
    const left = allowed
      ? scaled.where(tensor(allowed.map((row) => row.map(Number))).gt(0), -Infinity)
      : scaled;
    const all = left.sub(left.exp().sum(-1).log().unsqueeze(-1));
    const ids = tensor(
      record.tokenIds.map((id) => [id]),
      { dtype: 'int64' },
    );
    return { logprobs: all.gather(1, ids).squeeze(1), all };
  }

  /** What is maximised: standardised by everything seen so far, limited, less the penalty of what was cut off. */
  private setScores(rows: readonly Row[]): void {
    const { rewardNormalization, rewardClip, missingEosPenalty } = this.config;
    this.seenRewards.push(...scoredOf(rows).map(({ reward }) => reward));
    const center = mean(this.seenRewards);
    const count = this.seenRewards.length;
    const std = Math.sqrt((variance(this.seenRewards) * count) / (count - 1));
    for (const row of scoredOf(rows)) {
      const scaled = rewardNormalization === 'running' ? (row.reward - center) / std : row.reward;
      const limited = rewardClip === null ? scaled : clamp(scaled, -rewardClip, rewardClip);
      const isCutOff = row.record.finishReason === 'length';
      row.score = limited - (isCutOff && missingEosPenalty !== null ? missingEosPenalty : 0);
    }
  }

  /** By the sums that define them, over the tokens that the model drew. */
  private setAdvantages(rows: readonly Row[]): void {
    const { klPlacement, discount, gaeLambda, advantageEstimator } = this.config;
    for (const row of scoredOf(rows)) {
      const places = placesOf(row);
      places.forEach((t, index) => {
        const kl = at(row.old, t) - at(row.ref, t);
        const penalty = klPlacement === 'reward' && this.klCoef > 0 ? this.klCoef * kl : 0;
        row.tokenRewards[t] = (index === places.length - 1 ? row.score : 0) - penalty;
      });
      const after = this.config.bootstrapTruncated && row.record.finishReason === 'length';
      const next = (index: number): number => {
        const t = places[index + 1];
        if (t !== undefined) return at(row.values, t);
        return after ? at(row.values, row.drawn.length) : 0;
      };
      const errors = places.map(
        (t, index) => at(row.tokenRewards, t) + discount * next(index) - at(row.values, t),
      );
      places.forEach((t, index) => {
        const rest = errors.slice(index);
        const advantage =
          advantageEstimator === 'gae'
            ? sum(rest.map((error, k) => (discount * gaeLambda) ** k * error))
            : discount ** (rest.length - 1) * row.score - at(row.values, t);
        row.advantages[t] = advantage;
        row.returns[t] = advantage + at(row.values, t);
      });
    }
    if (!this.config.whitenAdvantages) return;
    const all = overTokens(rows, ({ advantages }) => advantages);
    const scale = Math.sqrt(variance(all) + 1e-8);
    for (const row of scoredOf(rows)) {
      for (const t of placesOf(row)) {
        row.advantages[t] = (at(row.advantages, t) - mean(all)) / scale;
      }
    }
  }

  /** Forward, backward and step of both networks; null where no row is scored. */
  private update(minibatch: readonly Row[]): Record<string, number> | null {
    const place = this.place++;
    if (scoredOf(minibatch).length === 0) return null;
    return tidy(() => {
      const { loss, means } = this.lossOf(minibatch);
      loss.backward();
      const { policy, valueParameters } = this.models;
      const gradNorm = this.clip(policy.parameters());
      const valueGradNorm = this.clip([...valueParameters.values()]);
      const learningRate = this.learningRateAt(place);
      noGrad(() => this.adamStep(learningRate));
      return { ...means, loss: loss.item(), gradNorm, valueGradNorm, learningRate };
    });
  }

  private clip(parameters: readonly Tensor[]): number {
    const { maxGradNorm } = this.config;
    const norm = Math.sqrt(sum(parameters.map(({ grad }) => grad?.square().sum().item() ?? 0)));
    const factor = Math.min(1, (maxGradNorm ?? Infinity) / (norm + 1e-6));
    for (const { grad } of parameters) noGrad(() => grad?.mul_(factor));
    return norm;
  }

  private learningRateAt(place: number): number {
    const { learningRate, warmupSteps, steps, updatesPerRollout, minibatchSize } = this.config;
    if (place < warmupSteps) return (learningRate * place) / warmupSteps;
    const planned = steps * updatesPerRollout * (ROWS / (minibatchSize ?? ROWS));
    return (learningRate * (planned - place)) / (planned - warmupSteps);
  }

  private adamStep(learningRate: number): void {
    const { weightDecay, valueLearningRate, learningRate: base } = this.config;
    const scale = (valueLearningRate ?? base) / base;
    for (const [name, parameter] of trainedOf(this.models)) {
      const { grad } = parameter;
      if (grad === null) continue;
      const rate = name.startsWith('value.') ? learningRate * scale : learningRate;
      const before = this.adam.get(name);
      const updates = (before?.updates ?? 0) + 1;
      const m = keep((before?.m ?? zerosLike(grad)).mul(0.9).add(grad.mul(0.1)));
      const v = keep((before?.v ?? zerosLike(grad)).mul(0.999).add(grad.square().mul(1e-3)));
      this.adam.set(name, { m, v, updates });
      const mean1 = m.div(1 - 0.9 ** updates);
      const root = v
        .div(1 - 0.999 ** updates)
        .sqrt()
        .add(1e-8);
      const decay = parameter.ndim >= 2 ? weightDecay : 0;
      parameter.mul_(1 - rate * decay).add_(mean1.div(root).mul(-rate));
      parameter.grad = null;
    }
  }
  private lossOf(minibatch: readonly Row[]): { loss: Tensor; means: Record<string, number> } {
    const { vfCoef, entropyCoef, klCoef, klPlacement, klEstimator } = this.config;
    const total = sum(minibatch.map((row) => this.weightOf(minibatch, row) * sum(row.drawn)));
    let policyLoss = f64([0]).sum();
    let valueLoss = f64([0]).sum();
    let others = f64([0]).sum();
    const sums: Record<string, number> = {};
    for (const row of scoredOf(minibatch)) {
      const weights = f64(row.drawn.map((flag) => flag * this.weightOf(minibatch, row)));
      const add = (name: string, values: Tensor): void => {
        sums[name] = (sums[name] ?? 0) + values.detach().mul(weights).sum().item() / total;
      };
      const { logprobs, all } = this.scored(this.models.policy, row.record, row.allowed);
      const logRatio = logprobs.sub(f64(row.old));
      policyLoss = policyLoss.sub(this.surrogateOf(row, logRatio.exp()).mul(weights).sum());
      const entropy = all.where(all.isfinite(), 0).mul(all.exp()).sum(-1).neg();
      others = others.sub(entropy.mul(weights).sum().mul(entropyCoef));
      const toRef = f64(row.ref).sub(logprobs);
      if (klCoef > 0 && klPlacement === 'loss') {
        const k3 = toRef.exp().sub(1).sub(toRef);
        const kl = {
          k1: toRef.neg(),
          k2: toRef.square().div(2),
          k3,
          k3Unbiased: logRatio.exp().mul(k3),
        };
        others = others.add(kl[klEstimator].mul(weights).sum().mul(this.klCoef));
      }
      const { errors, isClipped } = this.valueErrorsOf(row);
      valueLoss = valueLoss.add(errors.mul(weights).sum().div(2));
      add('entropy', entropy);
      add('approxKl', logRatio.exp().sub(1).sub(logRatio));
      add('valueClipFraction', isClipped);
      if (klCoef > 0) add('klPolicyReference', toRef.neg());
    }
    const loss = policyLoss.add(valueLoss.mul(vfCoef)).add(others);
    return {
      loss,
      means: { ...sums, policyLoss: policyLoss.item(), valueLoss: valueLoss.item() },
    };
  }

  /** [T] min(ρÂ, clip(ρ)Â), and at least c·Â for a negative advantage. */
  private surrogateOf(row: Row, ratio: Tensor): Tensor {
    const { clip, dualClip } = this.config;
    const advantages = f64(row.advantages);
    const bounded = ratio.clamp(1 - clip.low, 1 + clip.high).mul(advantages);
    const surrogate = ratio.mul(advantages).minimum(bounded);
    if (dualClip === null) return surrogate;
    return surrogate.maximum(advantages.mul(dualClip)).where(advantages.lt(0), surrogate);
  }

  /** [T] max((V − R)², (clip(V) − R)²), and where the second is the larger one. */
  private valueErrorsOf(row: Row): { errors: Tensor; isClipped: Tensor } {
    const { valueClip } = this.config;
    const length = row.drawn.length;
    const values = valuesOf(this.models.valueModel, row.record).narrow(0, 0, length);
    const returns = f64(row.returns);
    const plain = values.sub(returns).square();
    if (valueClip === null) return { errors: plain, isClipped: zerosLike(plain) };
    const before = f64(row.values.slice(0, length));
    const limited = values.minimum(before.add(valueClip)).maximum(before.sub(valueClip));
    const clipped = limited.sub(returns).square();
    return { errors: plain.maximum(clipped), isClipped: clipped.gt(plain).to('float64') };
  }

  private weightOf(minibatch: readonly Row[], row: Row): number {
    const { reduction } = this.config;
    const tokens = (rows: readonly Row[]): number =>
      sum(scoredOf(rows).map(({ drawn }) => sum(drawn)));
    if (Number.isNaN(row.reward)) return 0;
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
        const { promptIndex } = row.record;
        const group = minibatch.filter(({ record }) => record.promptIndex === promptIndex);
        return 1 / ((minibatch.length / GROUP) * tokens(group));
      }
    }
  }

  private rowMetrics(rows: readonly Row[]): Record<string, number> {
    const returns = overTokens(rows, (row) => row.returns);
    const values = overTokens(rows, (row) => row.values);
    const advantages = overTokens(rows, (row) => row.advantages);
    const errors = returns.map((value, index) => value - at(values, index));
    const kls = scoredOf(rows).map((row) =>
      sum(placesOf(row).map((t) => at(row.old, t) - at(row.ref, t))),
    );
    return {
      score: mean(scoredOf(rows).map(({ score }) => score)),
      rewardShaped: mean(scoredOf(rows).map(({ tokenRewards }) => sum(tokenRewards))),
      ...(this.config.klCoef > 0 && { klSequence: mean(kls) }),
      advantageMean: mean(advantages),
      advantageStd: Math.sqrt(variance(advantages)),
      returnMean: mean(returns),
      valueMean: mean(values),
      explainedVariance: 1 - variance(errors) / variance(returns),
    };
  }

  /** Ziegler et al. 2019, §2.2. */
  private steer(klSequence: number): void {
    const { adaptiveKl } = this.config;
    if (adaptiveKl === null) return;
    const error = clamp(klSequence / adaptiveKl.target - 1, -0.2, 0.2);
    this.klCoef *= 1 + (error * ROWS) / adaptiveKl.horizon;
  }
}

const scoredOf = (rows: readonly Row[]): Row[] =>
  rows.filter(({ reward }) => !Number.isNaN(reward));

/** Where the model drew a token. */
const placesOf = ({ drawn }: Row): number[] => drawn.flatMap((flag, t) => (flag === 1 ? [t] : []));

/** Numbers of the tokens that count. */
const overTokens = (rows: readonly Row[], of: (row: Row) => readonly number[]): number[] =>
  scoredOf(rows).flatMap((row) => placesOf(row).map((t) => at(of(row), t)));

const constant = (compute: () => Tensor): number[] =>
  tidy(() => noGrad(() => ({ found: Array.from(compute().toTypedArray(), Number) }))).found;

/** [1, L] */
const idsOf = ({ prompt, tokenIds }: SampleRecord): Tensor =>
  tensor([[...tokenizer.encode(prompt), ...tokenIds]], { dtype: 'int64' });

/** [T + 1] V of the state before each token of a completion, and after the last. */
function valuesOf({ trunk, head }: ScalarParts, record: SampleRecord): Tensor {
  const states = trunk.hiddenStates({ inputIds: idsOf(record) }).select(0, 0);
  const values = states.mul(head.weight).sum(-1);
  const before = tokenizer.encode(record.prompt).length - 1;
  return values.narrow(0, before, record.tokenIds.length + 1);
}
