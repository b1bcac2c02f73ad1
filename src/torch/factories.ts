/** Making tensors: from numbers, by rule, at random, from files. */
import { DtypeError, ShapeError, ValueRangeError } from '../errors/index.js';
import { dtypeCode, type Dtype } from './dtype.js';
import { native, type SourceArray } from './native.js';
import * as aten from './operators.generated.js';
import type { Generator } from './random.js';
import { optionalSlot, wrap, type NestedNumbers, type Tensor } from './tensor.js';

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
 * @throws ShapeError for ragged nesting or a shape that does not fit; DtypeError for elements that are not numbers;
 *   ValueRangeError for numbers that an integer dtype cannot hold exactly
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
  assertIntegers(source, shape, dtype);
  const slot = native().fromTypedArray(source, dtypeCode(dtype), shape, options.device ?? 'cpu');
  return finish(wrap(slot), options);
}

function finish(made: Tensor, options: TensorOptions): Tensor {
  if (options.requiresGrad !== true) return made;
  try {
    return made.requiresGrad_();
  } catch (error) {
    made.dispose();
    throw error;
  }
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
  const shape = shapeOf(data);
  const source = new Float64Array(shape.reduce((product, size) => product * size, 1));
  const position: number[] = [];
  let count = 0;
  const visit = (value: unknown, depth: number): void => {
    if (depth === shape.length) {
      source[count++] = asNumber(value, position);
      return;
    }
    const isRow = Array.isArray(value) || isTypedArray(value);
    if (!isRow || value.length !== shape[depth]) {
      const received = isRow ? `${value.length} elements` : String(value);
      throw new ShapeError(
        `tensor: expected ${shape[depth]} elements at ${showPosition(position)}, received ${received}: the nesting is ragged.`,
      );
    }
    for (let index = 0; index < value.length; index++) {
      position.push(index);
      visit(value[index], depth + 1);
      position.pop();
    }
  };
  visit(data, 0);
  return { source, shape };
}

// Of the first element at every level; the others are held against it.
function shapeOf(data: TensorData): number[] {
  const shape: number[] = [];
  let level: unknown = data;
  while (Array.isArray(level) || isTypedArray(level)) {
    shape.push(level.length);
    if (level.length === 0) break;
    level = level[0];
  }
  return shape;
}

function asNumber(value: unknown, position: readonly number[]): number {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return Number(value);
  const place = showPosition(position);
  if (Array.isArray(value) || isTypedArray(value)) {
    throw new ShapeError(
      `tensor: expected a number at ${place}, received an array: the nesting is ragged.`,
    );
  }
  if (typeof value === 'bigint') {
    throw new DtypeError(`tensor: expected a number at ${place}, received the BigInt ${value}.`, {
      hint: 'Put BigInts into a BigInt64Array.',
    });
  }
  throw new DtypeError(`tensor: expected a number at ${place}, received ${String(value)}.`);
}

function showPosition(position: readonly number[]): string {
  return position.length === 0 ? 'the top' : position.map((index) => `[${index}]`).join('');
}

const INTEGER_RANGES: Partial<Record<Dtype, readonly [number, number]>> = {
  int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint8: [0, 255],
};

// C++ would cut 1.5 to 1, wrap 300 to 44, and make anything of NaN.
function assertIntegers(source: SourceArray, shape: readonly number[], dtype: Dtype): void {
  const range = INTEGER_RANGES[dtype];
  if (range === undefined || source instanceof Uint8Array) return;
  if (dtype === 'int64' && !(source instanceof Float32Array || source instanceof Float64Array)) {
    return;
  }
  const [smallest, largest] = range;
  for (let index = 0; index < source.length; index++) {
    const value = Number(source[index]);
    if (Number.isInteger(value) && value >= smallest && value <= largest) continue;
    throw new ValueRangeError(
      `tensor: expected integers from ${smallest} to ${largest} for ${dtype}, received ${value} at ${showPosition(coordinates(index, shape))}.`,
      dtype === 'int64' ? { hint: 'A BigInt64Array holds every int64.' } : {},
    );
  }
}

function coordinates(index: number, shape: readonly number[]): number[] {
  const result: number[] = [];
  let rest = index;
  for (const size of shape.toReversed()) {
    result.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return result;
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
  const generator = optionalSlot('randn', 'generator', options.generator);
  return finish(wrap(aten.randnGenerator(shape, generator, ...codes(options))), options);
}

/** Uniform numbers in [0, 1). */
export function rand(shape: readonly number[], options: RandomOptions = {}): Tensor {
  const generator = optionalSlot('rand', 'generator', options.generator);
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
  const generator = optionalSlot('randint', 'generator', options.generator);
  return finish(wrap(aten.randintLowGenerator(low, high, shape, generator, ...all)), options);
}

/** The integers 0 … n − 1 in random order. int64. */
export function randperm(n: number, options: RandomOptions = {}): Tensor {
  const all = codes({ ...options, dtype: options.dtype ?? 'int64' });
  const generator = optionalSlot('randperm', 'generator', options.generator);
  return finish(wrap(aten.randpermGenerator(n, generator, ...all)), options);
}

/**
 * A file's first `bytes` bytes as a uint8 tensor, mapped into memory: pages are read when they are touched, and writing
 * to the tensor does not reach the file unless the mapping is shared.
 *
 * @throws ValueRangeError when `bytes` is not a positive integer; NativeError when the file cannot be mapped
 */
export function mapFile(
  path: string,
  bytes: number,
  { shared = false }: { shared?: boolean } = {},
): Tensor {
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw new ValueRangeError(`mapFile: expected a positive number of bytes, received ${bytes}.`);
  }
  return wrap(aten.fromFile(path, shared, bytes, dtypeCode('uint8')));
}

/** A tensor whose elements are the given bytes, copied. For files. */
export function fromBytes(bytes: Uint8Array, dtype: Dtype, shape: readonly number[]): Tensor {
  return wrap(native().fromBytes(bytes, dtypeCode(dtype), shape));
}
