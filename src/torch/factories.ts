/** Making tensors: from numbers, by rule, at random, from files. */
import { DtypeError, ShapeError, ValueRangeError } from '../errors/index.js';
import { dtypeCode, type Dtype } from './dtype.js';
import { native, type SourceArray } from './native.js';
import * as aten from './operators.generated.js';
import type { Generator } from './random.js';
import { wrap, type NestedNumbers, type Tensor } from './tensor.js';

/** Where and how a new tensor is made. */
export interface TensorOptions {
  /** float32 unless said. */
  dtype?: Dtype | undefined;
  /** cpu unless said. */
  device?: string | undefined;
  /** Record operators on it for `backward`. */
  requiresGrad?: boolean | undefined;
}

/** Numbers, or booleans as 0 and 1, nested as deep as there are dimensions; or a typed array. */
export type TensorData = number | boolean | readonly TensorData[] | SourceArray | NestedNumbers;

/**
 * A tensor with the given elements, copied.
 *
 * Numbers become float32 unless `dtype` is given; a typed array keeps its own type (BigInt64Array is int64).
 *
 * @param options.shape the shape of a flat array; nested arrays carry their own
 * @throws ShapeError for ragged nesting or a shape that does not fit; DtypeError for elements that are not numbers
 */
export function tensor(
  data: TensorData,
  options: TensorOptions & { shape?: readonly number[] } = {},
): Tensor {
  const { source, shape: ownShape } = flatten(data);
  const shape = options.shape ?? ownShape;
  const expected = shape.reduce((product, size) => product * size, 1);
  if (expected !== source.length || shape.some((size) => !Number.isInteger(size) || size < 0)) {
    throw new ShapeError(
      `tensor: expected data for shape [${shape.join(', ')}], which has ${expected} elements, received ${source.length}.`,
    );
  }
  const dtype = options.dtype ?? naturalDtype(data, source);
  const slot = native().fromTypedArray(source, dtypeCode(dtype), shape, options.device ?? 'cpu');
  return finish(wrap(slot), options);
}

function finish(made: Tensor, options: TensorOptions): Tensor {
  if (options.requiresGrad === true) made.requiresGrad = true;
  return made;
}

function isTypedArray(data: unknown): data is SourceArray {
  return ArrayBuffer.isView(data) && !(data instanceof DataView);
}

function naturalDtype(data: TensorData, source: SourceArray): Dtype {
  if (!isTypedArray(data)) return 'float32';
  if (source instanceof Float64Array) return 'float64';
  if (source instanceof Float32Array) return 'float32';
  if (source instanceof BigInt64Array) return 'int64';
  return source instanceof Int32Array ? 'int32' : 'uint8';
}

function flatten(data: TensorData): { source: SourceArray; shape: readonly number[] } {
  if (isTypedArray(data)) {
    const known = [Float32Array, Float64Array, Int32Array, BigInt64Array, Uint8Array];
    if (!known.some((kind) => data instanceof kind)) {
      throw new DtypeError(
        `tensor: expected a Float32Array, Float64Array, Int32Array, BigInt64Array or Uint8Array, received ${(data as object).constructor.name}.`,
      );
    }
    return { source: data, shape: [data.length] };
  }
  const shape: number[] = [];
  for (let level: TensorData = data; Array.isArray(level); level = level[0] as TensorData) {
    shape.push(level.length);
    if (level.length === 0) break;
  }
  const numbers: number[] = [];
  const visit = (value: TensorData, depth: number, path: string): void => {
    if (depth === shape.length) {
      if (typeof value !== 'number' && typeof value !== 'boolean') {
        throw Array.isArray(value)
          ? new ShapeError(
              `tensor: expected a number at ${path || 'the top'}, received an array: the nesting is ragged.`,
            )
          : new DtypeError(
              `tensor: expected a number at ${path || 'the top'}, received ${String(value)}.`,
            );
      }
      numbers.push(Number(value));
      return;
    }
    if (!Array.isArray(value) || value.length !== shape[depth]) {
      const received = Array.isArray(value) ? `${value.length} elements` : String(value);
      throw new ShapeError(
        `tensor: expected ${shape[depth]} elements at ${path || 'the top'}, received ${received}: the nesting is ragged.`,
      );
    }
    value.forEach((element: TensorData, index) => visit(element, depth + 1, `${path}[${index}]`));
  };
  visit(data, 0, '');
  return { source: Float64Array.from(numbers), shape };
}

function codes(options: TensorOptions): [number, null, string] {
  return [dtypeCode(options.dtype ?? 'float32'), null, options.device ?? 'cpu'];
}

/** A tensor of zeros. */
export function zeros(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return finish(wrap(aten.zeros(shape, ...codes(options))), options);
}

/** A tensor of ones. */
export function ones(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return finish(wrap(aten.ones(shape, ...codes(options))), options);
}

/** A tensor of one value. */
export function full(shape: readonly number[], value: number, options: TensorOptions = {}): Tensor {
  return finish(wrap(aten.full(shape, value, ...codes(options))), options);
}

/** A tensor whose elements are whatever lies in memory. */
export function empty(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return finish(wrap(aten.emptyMemoryFormat(shape, ...codes(options))), options);
}

/** Zeros with shape, dtype and device of another tensor. */
export function zerosLike(like: Tensor): Tensor {
  return wrap(aten.zerosLike(like.slot));
}

/** Ones with shape, dtype and device of another tensor. */
export function onesLike(like: Tensor): Tensor {
  return wrap(aten.onesLike(like.slot));
}

/** One value with shape, dtype and device of another tensor. */
export function fullLike(like: Tensor, value: number): Tensor {
  return wrap(aten.fullLike(like.slot, value));
}

/** start, start + step, … below end. int64 unless said. `arange(n)` counts from 0. */
export function arange(
  start: number,
  end?: number,
  options: TensorOptions & { step?: number } = {},
): Tensor {
  const [from, to] = end === undefined ? [0, start] : [start, end];
  const all = codes({ ...options, dtype: options.dtype ?? 'int64' });
  return finish(wrap(aten.arangeStartStep(from, to, options.step ?? 1, ...all)), options);
}

/** `steps` values from start to end, both included, evenly spaced. */
export function linspace(
  start: number,
  end: number,
  steps: number,
  options: TensorOptions = {},
): Tensor {
  return finish(wrap(aten.linspace(start, end, steps, ...codes(options))), options);
}

/** The identity matrix [n, n]. */
export function eye(n: number, options: TensorOptions = {}): Tensor {
  return finish(wrap(aten.eye(n, ...codes(options))), options);
}

/** Where random numbers come from: a generator, or libtorch's own when it is left out. */
export interface RandomOptions extends TensorOptions {
  generator?: Generator | undefined;
}

/** Standard normal numbers. */
export function randn(shape: readonly number[], options: RandomOptions = {}): Tensor {
  const generator = options.generator?.slot ?? null;
  return finish(wrap(aten.randnGenerator(shape, generator, ...codes(options))), options);
}

/** Uniform numbers in [0, 1). */
export function rand(shape: readonly number[], options: RandomOptions = {}): Tensor {
  const generator = options.generator?.slot ?? null;
  return finish(wrap(aten.randGenerator(shape, generator, ...codes(options))), options);
}

/** Uniform integers in [low, high). int64 unless said. */
export function randint(
  low: number,
  high: number,
  shape: readonly number[],
  options: RandomOptions = {},
): Tensor {
  const all = codes({ ...options, dtype: options.dtype ?? 'int64' });
  return wrap(aten.randintLowGenerator(low, high, shape, options.generator?.slot ?? null, ...all));
}

/** The integers 0 … n − 1 in random order. int64. */
export function randperm(n: number, options: RandomOptions = {}): Tensor {
  const all = codes({ ...options, dtype: options.dtype ?? 'int64' });
  return wrap(aten.randpermGenerator(n, options.generator?.slot ?? null, ...all));
}

/**
 * A file's first `bytes` bytes as a uint8 tensor, mapped into memory: pages are read when they are touched, and writing
 * to the tensor does not reach the file.
 *
 * @throws ValueRangeError when `bytes` is not a positive integer; NativeError when the file cannot be mapped
 */
export function mapFile(path: string, bytes: number): Tensor {
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw new ValueRangeError(`mapFile: expected a positive number of bytes, received ${bytes}.`);
  }
  return wrap(aten.fromFile(path, false, bytes, dtypeCode('uint8')));
}

/** A tensor whose elements are the given bytes, copied. For files. */
export function fromBytes(bytes: Uint8Array, dtype: Dtype, shape: readonly number[]): Tensor {
  return wrap(native().fromBytes(bytes, dtypeCode(dtype), shape));
}
