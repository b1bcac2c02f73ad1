/** Views, copies and indexing. A view shares storage with the tensor it was taken from; gradients flow through all. */
import { dtypeCode, type Dtype } from './dtype.js';
import type { Ints } from './bind.js';
import * as aten from './operators.generated.js';
import { optionalSlot, wrap, type Tensor } from './tensor.js';

/** Methods of `Tensor`; see there. */
export const shapes = {
  /** The same elements in another shape, without a copy; one size may be −1. @throws NativeError where strides forbid it. */
  view(this: Tensor, shape: readonly number[]): Tensor {
    return wrap(aten.view(this.slot, shape));
  },
  /** The same bytes read as another dtype of the same width (or the last dimension scaled). */
  viewDtype(this: Tensor, dtype: Dtype): Tensor {
    return wrap(aten.viewDtype(this.slot, dtypeCode(dtype)));
  },
  /** The same elements in another shape, a view where possible; one size may be −1. */
  reshape(this: Tensor, shape: readonly number[]): Tensor {
    return wrap(aten.reshape(this.slot, shape));
  },
  /** Dimensions in the order given. */
  permute(this: Tensor, dims: readonly number[]): Tensor {
    return wrap(aten.permute(this.slot, dims));
  },
  /** Two dimensions exchanged. */
  transpose(this: Tensor, dim0: number, dim1: number): Tensor {
    return wrap(aten.transposeInt(this.slot, dim0, dim1));
  },
  /** A dimension of size 1 put in at `dim`. */
  unsqueeze(this: Tensor, dim: number): Tensor {
    return wrap(aten.unsqueeze(this.slot, dim));
  },
  /** Dimension `dim` removed where its size is 1. */
  squeeze(this: Tensor, dim: number): Tensor {
    return wrap(aten.squeezeDim(this.slot, dim));
  },
  /** Dimensions of size 1 repeated without a copy; −1 keeps a size. */
  expand(this: Tensor, shape: readonly number[]): Tensor {
    return wrap(aten.expand(this.slot, shape));
  },
  /** `length` elements of `dim` from `start`. */
  narrow(this: Tensor, dim: number, start: number, length: number): Tensor {
    return wrap(aten.narrow(this.slot, dim, start, length));
  },
  /** Elements start, start + step, … below `end` of `dim`; negative positions count from the end. */
  slice(this: Tensor, dim: number, start?: number | null, end?: number | null, step = 1): Tensor {
    return wrap(aten.sliceTensor(this.slot, dim, start ?? null, end ?? null, step));
  },
  /** Element `index` of `dim`, which disappears. */
  select(this: Tensor, dim: number, index: number): Tensor {
    return wrap(aten.selectInt(this.slot, dim, index));
  },
  /** The elements of `dim` named by a vector of integers. */
  indexSelect(this: Tensor, dim: number, index: Tensor): Tensor {
    return wrap(aten.indexSelect(this.slot, dim, index.slot));
  },
  /** out[i][j] = this[i][index[i][j]] along `dim`. */
  gather(this: Tensor, dim: number, index: Tensor): Tensor {
    return wrap(aten.gather(this.slot, dim, index.slot));
  },
  /** A copy in which the elements named by `index` along `dim` come from `source`. */
  scatter(this: Tensor, dim: number, index: Tensor, source: Tensor | number): Tensor {
    return wrap(
      typeof source === 'number'
        ? aten.scatterValue(this.slot, dim, index.slot, source)
        : aten.scatterSrc(this.slot, dim, index.slot, source.slot),
    );
  },
  /** A copy with `source` added at the elements named by `index` along `dim`. */
  scatterAdd(this: Tensor, dim: number, index: Tensor, source: Tensor): Tensor {
    return wrap(aten.scatterAdd(this.slot, dim, index.slot, source.slot));
  },
  /** Copies `source` into the elements of `dim` named by `index`, in place. */
  indexCopy_(this: Tensor, dim: number, index: Tensor, source: Tensor): Tensor {
    aten.indexCopy_(this.slot, dim, index.slot, source.slot);
    return this;
  },
  /** Adds `source` to the elements of `dim` named by `index`, in place. */
  indexAdd_(this: Tensor, dim: number, index: Tensor, source: Tensor): Tensor {
    aten.indexAdd_(this.slot, dim, index.slot, source.slot);
    return this;
  },
  /** Indexed by one integer (or boolean) tensor per leading dimension; null keeps a dimension whole. */
  index(this: Tensor, indices: readonly (Tensor | null)[]): Tensor {
    return wrap(
      aten.indexTensor(
        this.slot,
        indices.map((index) => optionalSlot('index', 'indices', index)),
      ),
    );
  },
  /** The elements where `mask` is true, as a vector. */
  maskedSelect(this: Tensor, mask: Tensor): Tensor {
    return wrap(aten.maskedSelect(this.slot, mask.slot));
  },
  /** Positions of the elements that are not 0. [n, ndim] int64. */
  nonzero(this: Tensor): Tensor {
    return wrap(aten.nonzero(this.slot));
  },
  /** Pieces of `size` along `dim`; the last may be shorter. */
  split(this: Tensor, size: number | readonly number[], dim = 0): Tensor[] {
    const slots =
      typeof size === 'number'
        ? aten.splitTensor(this.slot, size, dim)
        : aten.splitWithSizes(this.slot, size, dim);
    return slots.map(wrap);
  },
  /** `count` pieces of nearly equal size along `dim`. */
  chunk(this: Tensor, count: number, dim = 0): Tensor[] {
    return aten.chunk(this.slot, count, dim).map(wrap);
  },
  /** The slices along `dim`. */
  unbind(this: Tensor, dim = 0): Tensor[] {
    return aten.unbindInt(this.slot, dim).map(wrap);
  },
  /** Reversed along `dims`. */
  flip(this: Tensor, dims: Ints): Tensor {
    return wrap(aten.flip(this.slot, dims));
  },
  /** Copied `repeats` times along each dimension. */
  repeat(this: Tensor, repeats: readonly number[]): Tensor {
    return wrap(aten.repeat(this.slot, repeats));
  },
  /** Each element of `dim` repeated `repeats` times in a row. */
  repeatInterleave(this: Tensor, repeats: number | Tensor, dim?: number): Tensor {
    return wrap(
      typeof repeats === 'number'
        ? aten.repeatInterleaveSelfInt(this.slot, repeats, dim ?? null)
        : aten.repeatInterleaveSelfTensor(this.slot, repeats.slot, dim ?? null),
    );
  },
  /** Dimensions startDim … endDim made into one. */
  flatten(this: Tensor, startDim = 0, endDim = -1): Tensor {
    return wrap(aten.flattenUsingInts(this.slot, startDim, endDim));
  },
  /** Row-major and without gaps: itself where it already is. */
  contiguous(this: Tensor): Tensor {
    return this.isContiguous ? this : wrap(aten.contiguous(this.slot));
  },
  /** A copy with storage of its own. */
  clone(this: Tensor): Tensor {
    return wrap(aten.clone(this.slot));
  },
  /** Zero above the given diagonal of the last two dimensions. */
  tril(this: Tensor, diagonal = 0): Tensor {
    return wrap(aten.tril(this.slot, diagonal));
  },
  /** Zero below the given diagonal of the last two dimensions. */
  triu(this: Tensor, diagonal = 0): Tensor {
    return wrap(aten.triu(this.slot, diagonal));
  },
  /** Padded with `value`: sizes are (before, after) of the last dimension, then of the one before it, … */
  pad(this: Tensor, sizes: readonly number[], value = 0): Tensor {
    return wrap(aten.constantPadNd(this.slot, sizes, value));
  },
  /** Dimension `source` moved to `destination`. */
  movedim(this: Tensor, source: number, destination: number): Tensor {
    return wrap(aten.movedimInt(this.slot, source, destination));
  },
  /** [..., 2] reals as [...] complex numbers. */
  viewAsComplex(this: Tensor): Tensor {
    return wrap(aten.viewAsComplex(this.slot));
  },
  /** [...] complex numbers as [..., 2] reals. */
  viewAsReal(this: Tensor): Tensor {
    return wrap(aten.viewAsReal(this.slot));
  },
};
