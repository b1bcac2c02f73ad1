/** Operators that fold dimensions, and scans and orders along one. */
import { dtypeCode, type Dtype } from './dtype.js';
import type { Ints } from './bind.js';
import * as aten from './operators.generated.js';
import { wrap, type Tensor } from './tensor.js';

/** Options of a reduction. */
export interface ReduceOptions {
  /** Keep the folded dimensions with size 1. */
  keepDim?: boolean | undefined;
  /** Convert to this dtype before folding. */
  dtype?: Dtype | undefined;
}

function code(options: ReduceOptions): number | null {
  return options.dtype === undefined ? null : dtypeCode(options.dtype);
}

/** Values along a dimension and where they were, both tensors. */
export interface ValuesAndIndices {
  values: Tensor;
  /** int64. */
  indices: Tensor;
}

function pair([values, indices]: readonly [number, number]): ValuesAndIndices {
  return { values: wrap(values), indices: wrap(indices) };
}

/** Methods of `Tensor`; see there. */
export const reductions = {
  /** Sum over `dim`, over all elements without it. */
  sum(this: Tensor, dim?: Ints, options: ReduceOptions = {}): Tensor {
    if (dim === undefined) return wrap(aten.sum(this.slot, code(options)));
    return wrap(aten.sumDimIntList(this.slot, dim, options.keepDim ?? false, code(options)));
  },
  /** Mean over `dim`, over all elements without it. */
  mean(this: Tensor, dim?: Ints, options: ReduceOptions = {}): Tensor {
    if (dim === undefined) return wrap(aten.mean(this.slot, code(options)));
    return wrap(aten.meanDim(this.slot, dim, options.keepDim ?? false, code(options)));
  },
  /** Product of all elements. */
  prod(this: Tensor): Tensor {
    return wrap(aten.prod(this.slot));
  },
  /** Largest value over `dim`; ties share the gradient. */
  amax(this: Tensor, dim: Ints = [], options: { keepDim?: boolean } = {}): Tensor {
    return wrap(aten.amax(this.slot, dim, options.keepDim ?? false));
  },
  /** Smallest value over `dim`; ties share the gradient. */
  amin(this: Tensor, dim: Ints = [], options: { keepDim?: boolean } = {}): Tensor {
    return wrap(aten.amin(this.slot, dim, options.keepDim ?? false));
  },
  /** Largest value along `dim` and its index. */
  max(this: Tensor, dim: number, options: { keepDim?: boolean } = {}): ValuesAndIndices {
    return pair(aten.maxDim(this.slot, dim, options.keepDim ?? false));
  },
  /** Smallest value along `dim` and its index. */
  min(this: Tensor, dim: number, options: { keepDim?: boolean } = {}): ValuesAndIndices {
    return pair(aten.minDim(this.slot, dim, options.keepDim ?? false));
  },
  /** Index of the largest value along `dim`, of the flattened tensor without it. int64. */
  argmax(this: Tensor, dim?: number, options: { keepDim?: boolean } = {}): Tensor {
    return wrap(aten.argmax(this.slot, dim ?? null, options.keepDim ?? false));
  },
  /** Index of the smallest value along `dim`, of the flattened tensor without it. int64. */
  argmin(this: Tensor, dim?: number, options: { keepDim?: boolean } = {}): Tensor {
    return wrap(aten.argmin(this.slot, dim ?? null, options.keepDim ?? false));
  },
  /** Standard deviation; `correction` 1 (PyTorch's default) divides by n − 1, 0 by n. */
  std(
    this: Tensor,
    dim?: Ints | null,
    options: { correction?: number; keepDim?: boolean } = {},
  ): Tensor {
    return wrap(
      aten.stdCorrection(this.slot, dim ?? null, options.correction ?? 1, options.keepDim ?? false),
    );
  },
  /** Variance; `correction` 1 (PyTorch's default) divides by n − 1, 0 by n. */
  var(
    this: Tensor,
    dim?: Ints | null,
    options: { correction?: number; keepDim?: boolean } = {},
  ): Tensor {
    return wrap(
      aten.varCorrection(this.slot, dim ?? null, options.correction ?? 1, options.keepDim ?? false),
    );
  },
  /** True where all elements along `dim` (or all) are not 0. */
  all(this: Tensor, dim?: number, options: { keepDim?: boolean } = {}): Tensor {
    if (dim === undefined) return wrap(aten.all(this.slot));
    return wrap(aten.allDim(this.slot, dim, options.keepDim ?? false));
  },
  /** True where any element along `dim` (or any) is not 0. */
  any(this: Tensor, dim?: number, options: { keepDim?: boolean } = {}): Tensor {
    if (dim === undefined) return wrap(aten.any(this.slot));
    return wrap(aten.anyDim(this.slot, dim, options.keepDim ?? false));
  },
  /** log Σ eˣ over `dim`, without overflow. */
  logsumexp(this: Tensor, dim: Ints, options: { keepDim?: boolean } = {}): Tensor {
    return wrap(aten.logsumexp(this.slot, dim, options.keepDim ?? false));
  },
  /** Running sum along `dim`. */
  cumsum(this: Tensor, dim: number, options: { dtype?: Dtype } = {}): Tensor {
    return wrap(aten.cumsum(this.slot, dim, code(options)));
  },
  /** Running product along `dim`. */
  cumprod(this: Tensor, dim: number): Tensor {
    return wrap(aten.cumprod(this.slot, dim));
  },
  /** (Σ|x|^ord)^(1/ord) over `dim`, over all elements without it. */
  norm(this: Tensor, options: { ord?: number; dim?: Ints; keepDim?: boolean } = {}): Tensor {
    const { ord = 2, dim = null, keepDim = false } = options;
    return wrap(aten.linalgVectorNorm(this.slot, ord, dim, keepDim));
  },
  /** The q-quantile of all elements, or along `dim`, linearly interpolated. q is a tensor of the same dtype. */
  quantile(this: Tensor, q: Tensor, options: { dim?: number; keepDim?: boolean } = {}): Tensor {
    return wrap(aten.quantile(this.slot, q.slot, options.dim ?? null, options.keepDim ?? false));
  },
  /** Sorted along `dim`; equal elements keep their order. */
  sort(this: Tensor, dim = -1, options: { descending?: boolean } = {}): ValuesAndIndices {
    return pair(aten.sortStable(this.slot, true, dim, options.descending ?? false));
  },
  /** The indices that sort along `dim`; equal elements keep their order. int64. */
  argsort(this: Tensor, dim = -1, options: { descending?: boolean } = {}): Tensor {
    return wrap(aten.argsortStable(this.slot, true, dim, options.descending ?? false));
  },
  /** The k largest values along `dim`, in falling order. */
  topk(this: Tensor, k: number, dim = -1, options: { largest?: boolean } = {}): ValuesAndIndices {
    return pair(aten.topk(this.slot, k, dim, options.largest ?? true, true));
  },
  /** Whether shape and every element are equal (NaN is equal to nothing). */
  equal(this: Tensor, other: Tensor): boolean {
    return aten.equal(this.slot, other.slot);
  },
  /** Whether |x − y| ≤ atol + rtol·|y| everywhere. */
  allclose(
    this: Tensor,
    other: Tensor,
    options: { rtol?: number; atol?: number; equalNan?: boolean } = {},
  ): boolean {
    const { rtol = 1e-5, atol = 1e-8, equalNan = false } = options;
    return aten.allclose(this.slot, other.slot, rtol, atol, equalNan);
  },
};
