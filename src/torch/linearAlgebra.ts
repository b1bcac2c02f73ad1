/** Matrix products and the functions layers are made of. Gradients flow through all of them. */
import { ValueRangeError } from '../errors/index.js';
import { dtypeCode, type Dtype } from './dtype.js';
import * as aten from './operators.generated.js';
import { optionalSlot, wrap, type Tensor } from './tensor.js';

/** Methods of `Tensor`; see there. */
export const linearAlgebra = {
  /** [n, k] × [k, m] → [n, m]. */
  mm(this: Tensor, other: Tensor): Tensor {
    return wrap(aten.mm(this.slot, other.slot));
  },
  /** [b, n, k] × [b, k, m] → [b, n, m]. */
  bmm(this: Tensor, other: Tensor): Tensor {
    return wrap(aten.bmm(this.slot, other.slot));
  },
  /** Matrix product with broadcasting of leading dimensions, as in PyTorch. */
  matmul(this: Tensor, other: Tensor): Tensor {
    return wrap(aten.matmul(this.slot, other.slot));
  },
  /** x · weightᵀ + bias, weight [out, in]. */
  linear(this: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
    return wrap(aten.posttrainLinear(this.slot, weight.slot, optionalSlot('linear', 'bias', bias)));
  },
  /** this + a·b for matrices; `this` broadcasts. */
  addmm(this: Tensor, a: Tensor, b: Tensor): Tensor {
    return wrap(aten.addmm(this.slot, a.slot, b.slot));
  },
  /** Softmax along `dim`, computed in `dtype` when it is given. */
  softmax(this: Tensor, dim: number, options: { dtype?: Dtype } = {}): Tensor {
    return wrap(aten.softmaxInt(this.slot, dim, codeOrNull(options.dtype)));
  },
  /** log softmax along `dim`, computed in `dtype` when it is given. */
  logSoftmax(this: Tensor, dim: number, options: { dtype?: Dtype } = {}): Tensor {
    return wrap(aten.logSoftmaxInt(this.slot, dim, codeOrNull(options.dtype)));
  },
  /**
   * Root-mean-square normalisation over the last dimension, scaled by `weight` [D]: x / √(mean(x²) + eps) · weight, in the
   * dtype of x. bfloat16 and float16 are computed in float32, and rounded before they are scaled by a weight of their own
   * dtype, after it by a wider one.
   */
  rmsNorm(this: Tensor, weight: Tensor, eps: number): Tensor {
    return wrap(aten.posttrainRmsNorm(this.slot, weight.slot, eps));
  },
  /** Layer normalisation over the last dimension. */
  layerNorm(this: Tensor, weight: Tensor | null, bias: Tensor | null, eps = 1e-5): Tensor {
    const size = weight?.shape ?? [this.size(-1)];
    return wrap(
      aten.layerNorm(
        this.slot,
        size,
        optionalSlot('layerNorm', 'weight', weight),
        optionalSlot('layerNorm', 'bias', bias),
        eps,
      ),
    );
  },
  /** Elements zeroed with probability p and the rest scaled by 1/(1 − p); p = 0 changes nothing. */
  dropout(this: Tensor, p: number): Tensor {
    return wrap(aten.dropout(this.slot, p, true));
  },
  /** Integers in [0, numClasses) as rows of zeros with a single one. int64. */
  oneHot(this: Tensor, numClasses: number): Tensor {
    return wrap(aten.oneHot(this.slot, numClasses));
  },
  /** Where each value of `values` would be put into this sorted tensor; `right` puts it after equal ones. int64. */
  searchsorted(this: Tensor, values: Tensor, options: { right?: boolean } = {}): Tensor {
    return wrap(aten.searchsortedTensor(this.slot, values.slot, false, options.right ?? false));
  },
};

function codeOrNull(dtype: Dtype | undefined): number | null {
  return dtype === undefined ? null : dtypeCode(dtype);
}

/** Options of `scaledDotProductAttention`. */
export interface AttentionOptions {
  /** Broadcasts to [B, H, Lq, Lk]: bool, true where a query may look; or float, added to the scores. */
  mask?: Tensor | undefined;
  /** Query i looks at keys 0 … i. Not together with `mask`. */
  causal?: boolean;
  /** Multiplies q·k; 1/√D without it. */
  scale?: number | undefined;
  /** Let H/Hkv consecutive query heads share a key head. */
  groupedQuery?: boolean;
}

/**
 * softmax(scale·q·kᵀ + mask)·v, fused where libtorch can.
 *
 * @param query [B, H, Lq, D]
 * @param key [B, Hkv, Lk, D]
 * @param value [B, Hkv, Lk, D]
 * @returns [B, H, Lq, D]
 * @throws ValueRangeError for `causal` together with `mask`
 */
export function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions = {},
): Tensor {
  if (options.causal === true && options.mask) {
    throw new ValueRangeError(
      'scaledDotProductAttention: expected causal or mask, received both.',
      { hint: 'Let the mask say what lies in the future, too: libtorch does not combine them.' },
    );
  }
  return wrap(
    aten.scaledDotProductAttention(
      query.slot,
      key.slot,
      value.slot,
      optionalSlot('scaledDotProductAttention', 'mask', options.mask),
      0,
      options.causal ?? false,
      options.scale ?? null,
      options.groupedQuery ?? false,
    ),
  );
}

/** Rows of `weight` [V, D] named by `ids` [...] of integers: [..., D]. */
export function embedding(weight: Tensor, ids: Tensor): Tensor {
  return wrap(aten.embedding(weight.slot, ids.slot));
}

/** Tensors joined along an existing dimension. */
export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  return wrap(
    aten.cat(
      tensors.map(({ slot }) => slot),
      dim,
    ),
  );
}

/** Tensors of one shape joined along a new dimension. */
export function stack(tensors: readonly Tensor[], dim = 0): Tensor {
  return wrap(
    aten.stack(
      tensors.map(({ slot }) => slot),
      dim,
    ),
  );
}

/** `a` where `condition` is true, `b` elsewhere. */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  return wrap(aten.whereSelf(condition.slot, a.slot, b.slot));
}

/** real + i·imaginary, complex64 for float32. */
export function complex(real: Tensor, imaginary: Tensor): Tensor {
  return wrap(aten.complex(real.slot, imaginary.slot));
}

/**
 * `x.linear(weight, bias)` for a few rows, on the CPU: reads each weight once, at the speed of the memory, where libtorch's
 * products of one row reach half of it. For other devices and dtypes than float32 and bfloat16 it is `linear`.
 *
 * @param x [rows, in]
 * @throws NativeError where a gradient would be recorded: there is none
 */
export function fewRowsLinear(x: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
  return wrap(
    aten.posttrainFewRowsLinear(x.slot, weight.slot, optionalSlot('fewRowsLinear', 'bias', bias)),
  );
}

/**
 * Attention of one query per row and head against cached keys and values, on the CPU, in one pass over them. Heads that
 * share a key read it once.
 *
 *     softmax(cap(scale · q·kᵀ) + mask) · v,  cap(s) = c·tanh(s/c)
 *
 * @param query [B, H, D]
 * @param keys [B, Hkv, L, D] float32 or bfloat16, D contiguous
 * @param values like keys
 * @param options.mask [B, L] float32, added to the scores
 * @param options.softcap c; null leaves scores as they are
 * @returns [B, H·D], the dtype of keys
 * @throws NativeError for other shapes, dtypes and devices, and where a gradient would be recorded: there is none
 */
export function attendRows(
  query: Tensor,
  keys: Tensor,
  values: Tensor,
  options: { mask: Tensor | null; scale: number; softcap: number | null },
): Tensor {
  const { mask, scale, softcap } = options;
  return wrap(
    aten.posttrainAttendRows(
      query.slot,
      keys.slot,
      values.slot,
      optionalSlot('attendRows', 'mask', mask),
      scale,
      softcap ?? 0,
    ),
  );
}

/**
 * A linear layer's weight in a packed form, for inference on the CPU while the weight does not change: in panels for
 * `native/src/packed.cpp`, or oneDNN's form where the processor lacks AVX2, or multiplies bfloat16 by instructions that are
 * faster than those of float32.
 *
 * @param weight [out, in], float32 or bfloat16
 * @param rows the number of rows it will be multiplied with; oneDNN's layout is tuned to it
 */
export function packLinearWeight(weight: Tensor, rows: number): Tensor {
  return wrap(aten.posttrainPackLinear(weight.slot, rows));
}

/**
 * x · weightᵀ + bias with a weight from `packLinearWeight`. x is [rows, in], of the weight's dtype. No gradient. Sums are
 * in float32. From panels a row gets the same bits whatever other rows there are.
 */
export function packedLinear(x: Tensor, packed: Tensor, bias?: Tensor | null): Tensor {
  return wrap(
    aten.posttrainPackedLinear(x.slot, packed.slot, optionalSlot('packedLinear', 'bias', bias)),
  );
}
