/** Operators over lists of tensors, in place: one call for all parameters of a model. For optimizers. */
import { dtypeCode, type Dtype } from './dtype.js';
import * as aten from './operators.generated.js';
import { wrap, type Tensor } from './tensor.js';

type Tensors = readonly Tensor[];

const slotsOf = (tensors: Tensors): number[] => tensors.map(({ slot }) => slot);

/** The state and settings of one fused AdamW update. All lists have one entry per parameter. */
export interface FusedAdamW {
  readonly parameters: Tensors;
  readonly gradients: Tensors;
  readonly expAvgs: Tensors;
  readonly expAvgSqs: Tensors;
  /** float32 scalars on the parameters' device: the update's number, from 1. */
  readonly steps: Tensors;
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly weightDecay: number;
  readonly eps: number;
}

/** One AdamW update of all parameters by libtorch's fused kernel (CPU and CUDA). */
export function fusedAdamW_(update: FusedAdamW): void {
  aten.fusedAdamw_(
    slotsOf(update.parameters),
    slotsOf(update.gradients),
    slotsOf(update.expAvgs),
    slotsOf(update.expAvgSqs),
    [],
    slotsOf(update.steps),
    update.learningRate,
    update.beta1,
    update.beta2,
    update.weightDecay,
    update.eps,
    false,
    false,
  );
}

/** The Euclidean norm of each tensor, computed in `dtype` when it is given. */
export function foreachNorm(tensors: Tensors, dtype?: Dtype): Tensor[] {
  const code = dtype === undefined ? null : dtypeCode(dtype);
  return aten.foreachNormScalar(slotsOf(tensors), 2, code).map(wrap);
}

/** xᵢ ← factor·xᵢ. */
export function foreachMul_(tensors: Tensors, factor: number): void {
  aten.foreachMulScalar_(slotsOf(tensors), factor);
}

/** xᵢ ← xᵢ + value. */
export function foreachAdd_(tensors: Tensors, value: number): void {
  aten.foreachAddScalar_(slotsOf(tensors), value);
}

/** xᵢ ← xᵢ + weight·(endᵢ − xᵢ). */
export function foreachLerp_(tensors: Tensors, ends: Tensors, weight: number): void {
  aten.foreachLerpScalar_(slotsOf(tensors), slotsOf(ends), weight);
}

/** xᵢ ← xᵢ + value·aᵢ·bᵢ. */
export function foreachAddcmul_(tensors: Tensors, a: Tensors, b: Tensors, value: number): void {
  aten.foreachAddcmulScalar_(slotsOf(tensors), slotsOf(a), slotsOf(b), value);
}

/** xᵢ ← xᵢ + valuesᵢ·aᵢ/bᵢ. */
export function foreachAddcdiv_(
  tensors: Tensors,
  a: Tensors,
  b: Tensors,
  values: readonly number[],
): void {
  aten.foreachAddcdivScalarList_(slotsOf(tensors), slotsOf(a), slotsOf(b), values);
}

/** √xᵢ, new tensors. */
export function foreachSqrt(tensors: Tensors): Tensor[] {
  return aten.foreachSqrt(slotsOf(tensors)).map(wrap);
}

/** xᵢ ← xᵢ/divisorsᵢ. */
export function foreachDiv_(tensors: Tensors, divisors: readonly number[]): void {
  aten.foreachDivScalarList_(slotsOf(tensors), divisors);
}
