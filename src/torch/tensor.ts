/** The tensor: a slot in the addon's table with PyTorch's operators as methods. */
import { DtypeError, ShapeError } from '../errors/index.js';
import { dtypeCode, dtypeName, type Dtype } from './dtype.js';
import { linearAlgebra } from './linearAlgebra.js';
import { native, type Slot, type TargetArray } from './native.js';
import * as aten from './operators.generated.js';
import { pointwise } from './pointwise.js';
import { reductions } from './reductions.js';
import { adopt, recognise, release } from './scope.js';
import { shapes } from './shapes.js';

type Pointwise = typeof pointwise;
type Reductions = typeof reductions;
type Shapes = typeof shapes;
type LinearAlgebra = typeof linearAlgebra;

/** Numbers nested as deep as a tensor has dimensions; booleans are 0 and 1. */
export type NestedNumbers = number | NestedNumbers[];

let afterBackward:
  ((options: { readonly retainGraph: boolean; readonly createGraph: boolean }) => void) | undefined;

/** What is done after every backward pass: ./checkpoint.ts imports this module. @internal */
export function onBackward(callback: typeof afterBackward): void {
  afterBackward = callback;
}

/**
 * A multi-dimensional array of libtorch. Made by `tensor`, `zeros`, … and by operators; freed by `tidy`, `dispose`,
 * `using` or the garbage collector. Methods never change it unless their name ends in an underscore.
 */
export class Tensor {
  /** @internal The slot in the addon's table, 0 after the tensor was freed. */
  slot: Slot;
  private knownShape: readonly number[] | undefined;

  /** @internal Use `tensor`, `zeros`, … instead. */
  constructor(slot: Slot) {
    this.slot = slot;
  }

  /** Sizes of the dimensions; empty for a scalar. @throws DisposedError after the tensor was freed. */
  get shape(): readonly number[] {
    if (this.slot === 0 || this.knownShape === undefined)
      this.knownShape = native().shape(this.slot);
    return this.knownShape;
  }

  /** Element type. */
  get dtype(): Dtype {
    return dtypeName(native().dtype(this.slot));
  }

  /** Where the elements lie, for example `cpu` or `cuda:0`. */
  get device(): string {
    return native().device(this.slot);
  }

  /** Number of dimensions. */
  get ndim(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get numel(): number {
    let count = 1;
    for (const size of this.shape) count *= size;
    return count;
  }

  /** Size of dimension `dim`; negative counts from the end. @throws ShapeError when there is no such dimension. */
  size(dim: number): number {
    const size = Number.isInteger(dim) ? this.shape.at(dim) : undefined;
    if (size === undefined) {
      throw new ShapeError(
        `size: expected a dimension of [${this.shape.join(', ')}], received ${dim}.`,
      );
    }
    return size;
  }

  /** True once the tensor was freed. */
  get isDisposed(): boolean {
    return this.slot === 0;
  }

  /** Whether the elements lie in row-major order without gaps. */
  get isContiguous(): boolean {
    return native().isContiguous(this.slot);
  }

  /** Whether operators on this tensor are recorded for `backward`. Only leaves can be set. */
  get requiresGrad(): boolean {
    return native().requiresGrad(this.slot);
  }

  set requiresGrad(value: boolean) {
    native().setRequiresGrad(this.slot, value);
  }

  /** True where no recorded operator made this tensor. */
  get isLeaf(): boolean {
    return native().isLeaf(this.slot);
  }

  /** The gradient that `backward` has accumulated here, or null. Each access gives a new view of the same storage. */
  get grad(): Tensor | null {
    const slot = native().gradientOf(this.slot);
    return slot === 0 ? null : wrap(slot);
  }

  set grad(value: Tensor | null) {
    native().setGradient(this.slot, optionalSlot('grad', 'the gradient', value));
  }

  /**
   * Accumulates d(this)/d(leaf) into `grad` of every leaf that requires one.
   *
   * @param gradient same shape as this tensor; 1 when it is omitted, which needs a single element
   * @throws NativeError when this tensor does not require a gradient or its graph was already freed
   */
  backward(
    gradient?: Tensor,
    options: { retainGraph?: boolean; createGraph?: boolean } = {},
  ): void {
    const { createGraph = false, retainGraph = createGraph } = options;
    const gradients = gradient === undefined ? undefined : [gradient.slot];
    native().backward([this.slot], gradients, retainGraph, createGraph);
    afterBackward?.({ retainGraph, createGraph });
  }

  /** The same elements, cut off from the graph: no gradient flows through. Shares storage. */
  detach(): Tensor {
    return wrap(aten.detach(this.slot));
  }

  /** Sets `requiresGrad` and returns this tensor. */
  requiresGrad_(value = true): this {
    this.requiresGrad = value;
    return this;
  }

  /** A tensor of this dtype and on this device; this tensor itself where nothing changes. Gradients flow through. */
  to(target: Dtype | { dtype?: Dtype | undefined; device?: string | undefined }): Tensor {
    const { dtype, device } = typeof target === 'string' ? { dtype: target } : target;
    const sameDtype = dtype === undefined || dtype === this.dtype;
    const sameDevice =
      device === undefined || device === this.device || `${device}:0` === this.device;
    if (sameDtype && sameDevice) return this;
    return wrap(
      aten.toCopy(this.slot, dtype === undefined ? null : dtypeCode(dtype), null, device ?? null),
    );
  }

  /** The one element as a number; 0 or 1 for a boolean. Waits for a GPU. @throws NativeError unless numel is 1. */
  item(): number {
    return Number(native().item(this.slot));
  }

  /**
   * The elements in row-major order, copied: Float64Array for float64 and int64, Float32Array for other floats,
   * Int32Array for int32, Uint8Array for uint8 and bool. An int64 beyond 2⁵³ loses digits.
   */
  toTypedArray(): TargetArray {
    return native().toTypedArray(this.slot);
  }

  /** The elements as nested arrays of numbers; a plain number for a scalar. */
  toArray(): NestedNumbers {
    return nest(this.toTypedArray(), this.shape);
  }

  /** The elements as they lie in memory, row-major, copied. For files. */
  toBytes(): Uint8Array {
    return native().toBytes(this.slot);
  }

  /** Frees the tensor now. Views of the same storage live on. A second call does nothing. */
  dispose(): void {
    release(this);
  }

  /** Lets `using x = …` free the tensor at the end of the block. */
  [Symbol.dispose](): void {
    release(this);
  }

  /** A short description for messages: Tensor(float32[2, 3]). */
  toString(): string {
    if (this.slot === 0) return 'Tensor(freed)';
    return `Tensor(${this.dtype}[${this.shape.join(', ')}])`;
  }
}

/* oxlint-disable-next-line typescript/no-unsafe-declaration-merging -- the methods are assigned right below */
export interface Tensor extends Pointwise, Reductions, Shapes, LinearAlgebra {}

Object.assign(Tensor.prototype, pointwise, reductions, shapes, linearAlgebra);
recognise((value) => value instanceof Tensor);

/**
 * The slot of an argument that may be left out.
 *
 * @throws DtypeError for something else, which would otherwise be taken for left out
 * @internal
 */
export function optionalSlot(
  where: string,
  name: string,
  value: { readonly slot: number } | null | undefined,
): number | null {
  if (value === null || value === undefined) return null;
  const slot: unknown = value.slot;
  if (typeof slot === 'number') return slot;
  throw new DtypeError(
    `${where}: expected ${name} to be made by posttrain, received ${show(value)}.`,
  );
}

function show(value: unknown): string {
  return Array.isArray(value) ? 'an array' : `a ${typeof value}`;
}

/** A tensor for a slot that the addon has just made, given to the current scope. @internal */
export function wrap(slot: Slot): Tensor {
  const tensor = new Tensor(slot);
  adopt(tensor);
  return tensor;
}

function nest(flat: TargetArray, shape: readonly number[]): NestedNumbers {
  if (shape.length === 0) return Number(flat[0]);
  let offset = 0;
  const build = (depth: number): NestedNumbers => {
    const size = shape[depth] ?? 0;
    if (depth === shape.length - 1) {
      const row = Array.from(flat.subarray(offset, offset + size));
      offset += size;
      return row;
    }
    return Array.from({ length: size }, () => build(depth + 1));
  };
  return build(0);
}
