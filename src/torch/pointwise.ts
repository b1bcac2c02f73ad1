/**
 * Elementwise operators. Arguments broadcast as in PyTorch, and results are promoted as in PyTorch: a JavaScript number
 * never widens a tensor's dtype within its kind. Gradients flow through all of them except comparisons and roundings.
 */
import { dtypeCode, isFloatingPoint } from './dtype.js';
import * as aten from './operators.generated.js';
import { optionalSlot, wrap, type Tensor } from './tensor.js';

/** A tensor or a number where PyTorch takes either. */
export type Operand = Tensor | number;

/** Methods of `Tensor`; see there. */
export const pointwise = {
  /** −x. */
  neg(this: Tensor): Tensor {
    return wrap(aten.neg(this.slot));
  },
  /** |x|. */
  abs(this: Tensor): Tensor {
    return wrap(aten.abs(this.slot));
  },
  /** eˣ. */
  exp(this: Tensor): Tensor {
    return wrap(aten.exp(this.slot));
  },
  /** Natural logarithm. */
  log(this: Tensor): Tensor {
    return wrap(aten.log(this.slot));
  },
  /** log(1 + x), exact for small x. */
  log1p(this: Tensor): Tensor {
    return wrap(aten.log1p(this.slot));
  },
  /** eˣ − 1, exact for small x. */
  expm1(this: Tensor): Tensor {
    return wrap(aten.expm1(this.slot));
  },
  /** √x. */
  sqrt(this: Tensor): Tensor {
    return wrap(aten.sqrt(this.slot));
  },
  /** 1/√x. */
  rsqrt(this: Tensor): Tensor {
    return wrap(aten.rsqrt(this.slot));
  },
  /** x². */
  square(this: Tensor): Tensor {
    return wrap(aten.square(this.slot));
  },
  /** 1/(1 + e⁻ˣ). */
  sigmoid(this: Tensor): Tensor {
    return wrap(aten.sigmoid(this.slot));
  },
  /** Hyperbolic tangent. */
  tanh(this: Tensor): Tensor {
    return wrap(aten.tanh(this.slot));
  },
  /** max(x, 0). */
  relu(this: Tensor): Tensor {
    return wrap(aten.relu(this.slot));
  },
  /** x·sigmoid(x). */
  silu(this: Tensor): Tensor {
    return wrap(aten.silu(this.slot));
  },
  /** log(sigmoid(x)), finite for every finite x. */
  logSigmoid(this: Tensor): Tensor {
    return wrap(aten.logSigmoid(this.slot));
  },
  /** Sine. */
  sin(this: Tensor): Tensor {
    return wrap(aten.sin(this.slot));
  },
  /** Cosine. */
  cos(this: Tensor): Tensor {
    return wrap(aten.cos(this.slot));
  },
  /** Largest integer not above x. */
  floor(this: Tensor): Tensor {
    return wrap(aten.floor(this.slot));
  },
  /** Smallest integer not below x. */
  ceil(this: Tensor): Tensor {
    return wrap(aten.ceil(this.slot));
  },
  /** Nearest integer, halves to even. */
  round(this: Tensor): Tensor {
    return wrap(aten.round(this.slot));
  },
  /** −1, 0 or 1. */
  sign(this: Tensor): Tensor {
    return wrap(aten.sign(this.slot));
  },
  /** 1/x. */
  reciprocal(this: Tensor): Tensor {
    return wrap(aten.reciprocal(this.slot));
  },
  /** True where x is NaN. */
  isnan(this: Tensor): Tensor {
    return wrap(aten.isnan(this.slot));
  },
  /** True where x is neither NaN nor infinite. */
  isfinite(this: Tensor): Tensor {
    return wrap(aten.isfinite(this.slot));
  },
  /** True where x is ±∞. */
  isinf(this: Tensor): Tensor {
    return wrap(aten.isinf(this.slot));
  },
  /** True where x is 0. */
  logicalNot(this: Tensor): Tensor {
    return wrap(aten.logicalNot(this.slot));
  },
  /** Error function. */
  erf(this: Tensor): Tensor {
    return wrap(aten.erf(this.slot));
  },
  /** x + y. */
  add(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.addScalar(this.slot, other)
        : aten.addTensor(this.slot, other.slot),
    );
  },
  /** x − y. */
  sub(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.subScalar(this.slot, other)
        : aten.subTensor(this.slot, other.slot),
    );
  },
  /** x · y. */
  mul(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.mulScalar(this.slot, other)
        : aten.mulTensor(this.slot, other.slot),
    );
  },
  /** x / y, true division. */
  div(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.divScalar(this.slot, other)
        : aten.divTensor(this.slot, other.slot),
    );
  },
  /** x modulo y, with the sign of y. */
  remainder(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.remainderScalar(this.slot, other)
        : aten.remainderTensor(this.slot, other.slot),
    );
  },
  /** True where x = y. */
  eq(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.eqScalar(this.slot, other)
        : aten.eqTensor(this.slot, other.slot),
    );
  },
  /** True where x ≠ y. */
  ne(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.neScalar(this.slot, other)
        : aten.neTensor(this.slot, other.slot),
    );
  },
  /** True where x < y. */
  lt(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.ltScalar(this.slot, other)
        : aten.ltTensor(this.slot, other.slot),
    );
  },
  /** True where x ≤ y. */
  le(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.leScalar(this.slot, other)
        : aten.leTensor(this.slot, other.slot),
    );
  },
  /** True where x > y. */
  gt(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.gtScalar(this.slot, other)
        : aten.gtTensor(this.slot, other.slot),
    );
  },
  /** True where x ≥ y. */
  ge(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.geScalar(this.slot, other)
        : aten.geTensor(this.slot, other.slot),
    );
  },
  /** xʸ. */
  pow(this: Tensor, exponent: Operand): Tensor {
    return wrap(
      typeof exponent === 'number'
        ? aten.powTensorScalar(this.slot, exponent)
        : aten.powTensorTensor(this.slot, exponent.slot),
    );
  },
  /** ⌊x / y⌋. */
  floorDivide(this: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.divScalarMode(this.slot, other, 'floor')
        : aten.divTensorMode(this.slot, other.slot, 'floor'),
    );
  },
  /** Elementwise larger one. The gradient is split evenly where both are equal. */
  maximum(this: Tensor, other: Tensor): Tensor {
    return wrap(aten.maximum(this.slot, other.slot));
  },
  /** Elementwise smaller one. The gradient is split evenly where both are equal. */
  minimum(this: Tensor, other: Tensor): Tensor {
    return wrap(aten.minimum(this.slot, other.slot));
  },
  /** log(1 + eˣ). */
  softplus(this: Tensor): Tensor {
    return wrap(aten.softplus(this.slot));
  },
  /** Gaussian error linear unit; `tanh` selects its approximation. */
  gelu(this: Tensor, options: { approximate?: 'none' | 'tanh' } = {}): Tensor {
    return wrap(aten.gelu(this.slot, options.approximate ?? 'none'));
  },
  /** Limits x to [min, max]; the gradient is 0 where x lies outside, 1 on the bounds. */
  clamp(this: Tensor, min?: Operand | null, max?: Operand | null): Tensor {
    const lower = min ?? null;
    const upper = max ?? null;
    if (isNumberOrNull(lower) && isNumberOrNull(upper))
      return wrap(aten.clamp(this.slot, lower, upper));
    return clampTensor(this, asBound(lower, this), asBound(upper, this));
  },
  /** True where both are not 0. */
  logicalAnd(this: Tensor, other: Tensor): Tensor {
    return wrap(aten.logicalAnd(this.slot, other.slot));
  },
  /** True where at least one is not 0. */
  logicalOr(this: Tensor, other: Tensor): Tensor {
    return wrap(aten.logicalOr(this.slot, other.slot));
  },
  /** True where exactly one is not 0. */
  logicalXor(this: Tensor, other: Tensor): Tensor {
    return wrap(aten.logicalXor(this.slot, other.slot));
  },
  /** This tensor where `condition` is true, `other` elsewhere. No gradient flows where the other side was chosen. */
  where(this: Tensor, condition: Tensor, other: Operand): Tensor {
    return wrap(
      typeof other === 'number'
        ? aten.whereScalarOther(condition.slot, this.slot, other)
        : aten.whereSelf(condition.slot, this.slot, other.slot),
    );
  },
  /** `value` where `mask` is true, this tensor elsewhere. */
  maskedFill(this: Tensor, mask: Tensor, value: number): Tensor {
    return wrap(aten.maskedFillScalar(this.slot, mask.slot, value));
  },
  /** NaN, ∞ and −∞ replaced: by 0 and the largest finite numbers unless given. */
  nanToNum(this: Tensor, options: { nan?: number; posInf?: number; negInf?: number } = {}): Tensor {
    return wrap(
      aten.nanToNum(this.slot, options.nan ?? null, options.posInf ?? null, options.negInf ?? null),
    );
  },
  /** x + weight·(end − x). */
  lerp(this: Tensor, end: Tensor, weight: number): Tensor {
    return wrap(aten.lerpScalar(this.slot, end.slot, weight));
  },
  /** Adds in place: x ← x + alpha·y. */
  add_(this: Tensor, other: Operand, options: { alpha?: number } = {}): Tensor {
    const alpha = options.alpha ?? 1;
    if (typeof other === 'number') aten.addScalar_(this.slot, other, alpha);
    else aten.addTensor_(this.slot, other.slot, alpha);
    return this;
  },
  /** Multiplies in place. */
  mul_(this: Tensor, other: Operand): Tensor {
    if (typeof other === 'number') aten.mulScalar_(this.slot, other);
    else aten.mulTensor_(this.slot, other.slot);
    return this;
  },
  /** Divides in place. */
  div_(this: Tensor, other: Operand): Tensor {
    if (typeof other === 'number') aten.divScalar_(this.slot, other);
    else aten.divTensor_(this.slot, other.slot);
    return this;
  },
  /** Copies the elements of `source` here, converting dtype and device, broadcasting. */
  copy_(this: Tensor, source: Tensor): Tensor {
    aten.copy_(this.slot, source.slot);
    return this;
  },
  /** Sets every element to 0. */
  zero_(this: Tensor): Tensor {
    aten.zero_(this.slot);
    return this;
  },
  /** Sets every element to `value`. */
  fill_(this: Tensor, value: number): Tensor {
    aten.fillScalar_(this.slot, value);
    return this;
  },
  /** Sets the elements where `mask` is true to `value`. */
  maskedFill_(this: Tensor, mask: Tensor, value: number): Tensor {
    aten.maskedFillScalar_(this.slot, mask.slot, value);
    return this;
  },
  /** Limits the elements to [min, max] in place. */
  clamp_(this: Tensor, min: number | null, max: number | null): Tensor {
    aten.clamp_(this.slot, min, max);
    return this;
  },
};

function isNumberOrNull(value: Operand | null): value is number | null {
  return value === null || typeof value === 'number';
}

// A bound next to one that is a tensor. As a scalar of the tensor's dtype it does not change the result's.
function asBound(bound: Operand | null, like: Tensor): Tensor | null {
  if (typeof bound !== 'number') return bound;
  const keepsDtype = Number.isInteger(bound) || isFloatingPoint(like.dtype);
  const dtype = dtypeCode(keepsDtype ? like.dtype : 'float32');
  return wrap(aten.full([], bound, dtype, null, like.device));
}

function clampTensor(x: Tensor, min: Tensor | null, max: Tensor | null): Tensor {
  return wrap(
    aten.clampTensor(x.slot, optionalSlot('clamp', 'min', min), optionalSlot('clamp', 'max', max)),
  );
}
