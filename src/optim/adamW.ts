/** AdamW over groups of named parameters, with its state as tensors. Knows nothing of schedules and clipping. */
import { CheckpointError, ValueRangeError } from '../errors/index.js';
import { full, keep, noGrad, showShape, tidy, zerosLike, type Tensor } from '../torch/index.js';
import {
  foreachAdd_,
  foreachAddcdiv_,
  foreachAddcmul_,
  foreachDiv_,
  foreachLerp_,
  foreachMul_,
  foreachSqrt,
  fusedAdamW_,
} from '../torch/foreach.js';

/** Parameters that share settings. */
export interface ParameterGroup {
  /** By name. Names are what the state is saved under, and are unique across groups. */
  readonly params: ReadonlyMap<string, Tensor>;
  /** λ: 0 unless said. */
  readonly weightDecay?: number | undefined;
  /** Multiplies the learning rate of each step: 1 unless said. */
  readonly lrScale?: number | undefined;
}

/** Settings of `AdamW`. Defaults are those of torch.optim.AdamW (and of Kingma & Ba 2015, §2). */
export interface AdamWOptions {
  /** 0.9 unless said. */
  readonly beta1?: number | undefined;
  /** 0.999 unless said. */
  readonly beta2?: number | undefined;
  /** 1e-8 unless said. */
  readonly eps?: number | undefined;
  /** false leaves the fused kernel unused where there is one. The results agree to rounding. */
  readonly fused?: boolean | undefined;
}

interface Entry {
  readonly name: string;
  readonly parameter: Tensor;
  readonly expAvg: Tensor;
  readonly expAvgSq: Tensor;
  /** Updates of this parameter so far. Steps in which it has no gradient do not count. */
  steps: number;
}

interface Group {
  readonly entries: readonly Entry[];
  readonly weightDecay: number;
  readonly lrScale: number;
}

/**
 * Adam with decoupled weight decay.
 *
 *     m ← β₁m + (1 − β₁)g;  v ← β₂v + (1 − β₂)g²
 *     θ ← θ − η·λ·θ − η·(m/(1 − β₁ᵗ)) / (√(v/(1 − β₂ᵗ)) + ε)
 *
 * Source: Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2, with the decay scaled by η as PyTorch does. A parameter
 * without a gradient is left alone, decay included. The state has the dtype of its parameter.
 */
export class AdamW {
  private readonly groups: readonly Group[];
  private readonly beta1: number;
  private readonly beta2: number;
  private readonly eps: number;
  private readonly fused: boolean;

  /** @throws ValueRangeError for a name that occurs twice or a setting out of range */
  constructor(groups: readonly ParameterGroup[], options: AdamWOptions = {}) {
    const { beta1 = 0.9, beta2 = 0.999, eps = 1e-8 } = options;
    assertRange('beta1', beta1, beta1 >= 0 && beta1 < 1, 'from 0 to below 1');
    assertRange('beta2', beta2, beta2 >= 0 && beta2 < 1, 'from 0 to below 1');
    assertRange('eps', eps, eps > 0, 'above 0');
    const names = new Set<string>();
    this.groups = groups.map(({ params, weightDecay = 0, lrScale = 1 }) => {
      assertRange('weightDecay', weightDecay, weightDecay >= 0, 'at least 0');
      assertRange('lrScale', lrScale, lrScale >= 0, 'at least 0');
      return { entries: entriesOf(params, names), weightDecay, lrScale };
    });
    this.beta1 = beta1;
    this.beta2 = beta2;
    this.eps = eps;
    this.fused =
      (options.fused ?? true) &&
      this.entries().every(({ parameter }) => /^(cpu|cuda)/.test(parameter.device));
  }

  /**
   * Updates every parameter that has a gradient.
   *
   * @param learningRate η of this step
   * @throws ValueRangeError unless it is a finite number of at least 0
   */
  step(learningRate: number): void {
    assertRange('learningRate', learningRate, learningRate >= 0, 'at least 0');
    noGrad(() =>
      tidy(() => {
        for (const group of this.groups) {
          const active: [Entry, Tensor][] = [];
          for (const entry of group.entries) {
            const gradient = entry.parameter.grad;
            if (gradient === null) continue;
            entry.steps += 1;
            active.push([entry, gradient]);
          }
          const rate = learningRate * group.lrScale;
          if (active.length === 0) continue;
          if (this.fused) this.stepFused(active, rate, group.weightDecay);
          else this.stepForeach(active, rate, group.weightDecay);
        }
      }),
    );
  }

  private stepFused(
    active: readonly [Entry, Tensor][],
    learningRate: number,
    weightDecay: number,
  ): void {
    const counters = new Map<string, Tensor>();
    const { beta1, beta2, eps } = this;
    fusedAdamW_({
      parameters: active.map(([{ parameter }]) => parameter),
      gradients: active.map(([, gradient]) => gradient),
      expAvgs: active.map(([{ expAvg }]) => expAvg),
      expAvgSqs: active.map(([{ expAvgSq }]) => expAvgSq),
      // Most parameters have seen the same number of updates; they share one counter.
      steps: active.map(([{ steps, parameter }]) => {
        const { device } = parameter;
        const counter = counters.get(`${steps} ${device}`) ?? full([], steps, { device });
        counters.set(`${steps} ${device}`, counter);
        return counter;
      }),
      learningRate,
      beta1,
      beta2,
      weightDecay,
      eps,
    });
  }

  private stepForeach(
    active: readonly [Entry, Tensor][],
    learningRate: number,
    weightDecay: number,
  ): void {
    const { beta1, beta2, eps } = this;
    const parameters = active.map(([{ parameter }]) => parameter);
    const gradients = active.map(([, gradient]) => gradient);
    const expAvgs = active.map(([{ expAvg }]) => expAvg);
    const expAvgSqs = active.map(([{ expAvgSq }]) => expAvgSq);
    if (weightDecay !== 0) foreachMul_(parameters, 1 - learningRate * weightDecay);
    foreachLerp_(expAvgs, gradients, 1 - beta1);
    foreachMul_(expAvgSqs, beta2);
    foreachAddcmul_(expAvgSqs, gradients, gradients, 1 - beta2);
    const roots = foreachSqrt(expAvgSqs);
    foreachDiv_(
      roots,
      active.map(([{ steps }]) => Math.sqrt(1 - beta2 ** steps)),
    );
    foreachAdd_(roots, eps);
    const rates = active.map(([{ steps }]) => -learningRate / (1 - beta1 ** steps));
    foreachAddcdiv_(parameters, expAvgs, roots, rates);
  }

  /** Drops every gradient, so that the next `backward` starts from nothing. */
  zeroGrad(): void {
    for (const { parameter } of this.entries()) parameter.grad = null;
  }

  /** Updates so far: of the parameter that has seen most. */
  get stepCount(): number {
    return Math.max(0, ...this.entries().map(({ steps }) => steps));
  }

  /**
   * The state for a checkpoint: `<name>.expAvg`, `<name>.expAvgSq` and `<name>.step` (int64 scalar) of every parameter.
   * The moments are the live tensors, not copies; the counters are new.
   */
  stateTensors(): Map<string, Tensor> {
    const state = new Map<string, Tensor>();
    for (const { name, expAvg, expAvgSq, steps } of this.entries()) {
      state.set(`${name}.expAvg`, expAvg);
      state.set(`${name}.expAvgSq`, expAvgSq);
      state.set(`${name}.step`, full([], steps, { dtype: 'int64' }));
    }
    return state;
  }

  /**
   * Continues from a state of `stateTensors`, copied. Other names in the map are left alone.
   *
   * @throws CheckpointError when a tensor is missing or has another shape; nothing was changed then
   */
  loadState(state: ReadonlyMap<string, Tensor>): void {
    const entries = this.entries();
    const find = (name: string, shape: readonly number[]): Tensor => {
      const tensor = state.get(name);
      if (tensor === undefined || showShape(tensor.shape) !== showShape(shape))
        throw new CheckpointError(
          `AdamW: expected ${name} ${showShape(shape)} in the optimizer's state, received ${tensor === undefined ? 'none' : showShape(tensor.shape)}.`,
        );
      return tensor;
    };
    const found = entries.map(({ name, parameter }) => ({
      expAvg: find(`${name}.expAvg`, parameter.shape),
      expAvgSq: find(`${name}.expAvgSq`, parameter.shape),
      steps: find(`${name}.step`, []).item(),
    }));
    noGrad(() => {
      entries.forEach((entry, index) => {
        const saved = found[index];
        if (saved === undefined) return;
        entry.expAvg.copy_(saved.expAvg);
        entry.expAvgSq.copy_(saved.expAvgSq);
        entry.steps = saved.steps;
      });
    });
  }

  /** Frees the state. The parameters stay. */
  dispose(): void {
    for (const { expAvg, expAvgSq } of this.entries()) {
      expAvg.dispose();
      expAvgSq.dispose();
    }
  }

  private entries(): Entry[] {
    return this.groups.flatMap(({ entries }) => [...entries]);
  }
}

function entriesOf(params: ReadonlyMap<string, Tensor>, names: Set<string>): Entry[] {
  return [...params].map(([name, parameter]) => {
    if (names.has(name))
      throw new ValueRangeError(`AdamW: expected every name once, received ${name} twice.`);
    names.add(name);
    return noGrad(() => ({
      name,
      parameter,
      expAvg: keep(zerosLike(parameter)),
      expAvgSq: keep(zerosLike(parameter)),
      steps: 0,
    }));
  });
}

function assertRange(name: string, value: number, holds: boolean, expected: string): void {
  if (!holds || !Number.isFinite(value))
    throw new ValueRangeError(`AdamW: expected ${name} to be ${expected}, received ${value}.`);
}

/**
 * A model's parameters in two groups: tensors with two dimensions and more, which decay, and the rest, which does not
 * (norms and biases). Embeddings decay like every other matrix, as in transformers' Trainer.
 *
 * @param model whatever has parameters by name
 * @param weightDecay λ of the first group
 */
export function decayGroups(
  model: { namedParameters(): ReadonlyMap<string, Tensor> },
  weightDecay: number,
): ParameterGroup[] {
  const all = [...model.namedParameters()].filter(([, { requiresGrad }]) => requiresGrad);
  const decays = ([, { ndim }]: readonly [string, Tensor]): boolean => ndim >= 2;
  return [
    { params: new Map(all.filter(decays)), weightDecay },
    { params: new Map(all.filter((entry) => !decays(entry))), weightDecay: 0 },
  ].filter(({ params }) => params.size > 0);
}
