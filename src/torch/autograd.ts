/** Gradients, and the modes in which none are recorded. */
import { ValueRangeError } from '../errors/index.js';
import { dtypeCode, type Dtype } from './dtype.js';
import { native } from './native.js';
import { assertNotPromise, type NotPromise } from './synchronous.js';
import { wrap, type Tensor } from './tensor.js';

function checked<Result>(where: string, callback: () => NotPromise<Result>): Result {
  const result = callback();
  assertNotPromise(where, result);
  return result;
}

/** Runs `callback` without recording operators for `backward`. The callback is synchronous. */
export function noGrad<Result>(callback: () => NotPromise<Result>): Result {
  const previous = native().setGradEnabled(false);
  try {
    return checked('noGrad', callback);
  } finally {
    native().setGradEnabled(previous);
  }
}

/** Runs `callback` with recording switched on, inside `noGrad` too. */
export function enableGrad<Result>(callback: () => NotPromise<Result>): Result {
  const previous = native().setGradEnabled(true);
  try {
    return checked('enableGrad', callback);
  } finally {
    native().setGradEnabled(previous);
  }
}

/** Whether operators are recorded at this moment. */
export function isGradEnabled(): boolean {
  return native().isGradEnabled();
}

/**
 * Like `noGrad`, and cheaper: tensors made inside can never take part in autograd, not even later.
 * The callback is synchronous.
 */
export function inferenceMode<Result>(callback: () => NotPromise<Result>): Result {
  native().enterInference();
  try {
    return checked('inferenceMode', callback);
  } finally {
    native().exitInference();
  }
}

let castsOnCpu = false;

/** Whether an `autocast` of the CPU is open. */
export function isAutocastOnCpu(): boolean {
  return castsOnCpu;
}

/** Runs `callback` with matrix products and attention computed in `dtype`, the rest as libtorch's autocast decides. */
export function autocast<Result>(
  options: { device: string; dtype: Dtype; enabled?: boolean },
  callback: () => NotPromise<Result>,
): Result {
  const { device, dtype, enabled = true } = options;
  const [wasEnabled, wasDtype] = native().setAutocast(device, enabled, dtypeCode(dtype));
  const didCast = castsOnCpu;
  if (device.startsWith('cpu')) castsOnCpu = enabled;
  try {
    return checked('autocast', callback);
  } finally {
    native().setAutocast(device, wasEnabled, wasDtype);
    castsOnCpu = didCast;
  }
}

/**
 * Gradients of `outputs` with respect to `inputs`, without touching any `grad`.
 *
 * Without `gradients` every output has a single element.
 *
 * @returns one per input, null where `allowUnused` and the outputs do not depend on it
 */
export function grad(
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  options: {
    gradients?: readonly Tensor[];
    retainGraph?: boolean;
    createGraph?: boolean;
    allowUnused?: boolean;
  } = {},
): (Tensor | null)[] {
  const {
    gradients,
    createGraph = false,
    retainGraph = createGraph,
    allowUnused = false,
  } = options;
  if (inputs.length === 0) {
    throw new ValueRangeError('grad: expected at least one input, received none.');
  }
  const slotsOf = (tensors: readonly Tensor[]): number[] => tensors.map(({ slot }) => slot);
  return native()
    .grad(
      slotsOf(outputs),
      slotsOf(inputs),
      gradients && slotsOf(gradients),
      retainGraph,
      createGraph,
      allowUnused,
    )
    .map((slot) => (slot === 0 ? null : wrap(slot)));
}
