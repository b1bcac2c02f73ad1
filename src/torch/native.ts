/**
 * The addon: where it lies, when it is loaded, and how its errors become ours. Nothing outside src/torch imports it.
 *
 * It is loaded at the first use of a tensor and not at import, so that `posttrain --help` never waits for libtorch.
 */
import { createRequire } from 'node:module';
import { DisposedError, NativeError, ValueRangeError } from '../errors/index.js';
import { addonFile } from './installation.js';

/** The integer that stands for a tensor in the addon's table. 0 is never a tensor. */
export type Slot = number;
/** The integer that stands for a random generator in the addon's table. */
export type GeneratorSlot = number;
/** A typed array that a tensor can be made from. */
export type SourceArray = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array;
/** A typed array that a tensor can be read into. */
export type TargetArray = Float32Array | Float64Array | Int32Array | Uint8Array;

/** What the addon exports beside operators. See native/src. */
export interface Native {
  operator(name: string): unknown;
  schemaOf(name: string): string | undefined;
  fromTypedArray(data: SourceArray, dtype: number, shape: readonly number[], device: string): Slot;
  fromBytes(data: Uint8Array, dtype: number, shape: readonly number[]): Slot;
  toTypedArray(tensor: Slot): TargetArray;
  toBytes(tensor: Slot): Uint8Array;
  item(tensor: Slot): number | boolean;
  shape(tensor: Slot): number[];
  dtype(tensor: Slot): number;
  device(tensor: Slot): string;
  isContiguous(tensor: Slot): boolean;
  release(slots: Int32Array, count: number): void;
  releaseOne(slot: Slot): void;
  memory(): [liveTensors: number, liveBytes: number];
  hostMemory(): [inUse: number, kept: number, most: number];
  releaseHostMemory(): void;
  giveBackHostMemory(bytes: number): void;
  useOneDnnLinear(enabled: boolean): boolean;
  useWidenedProducts(enabled: boolean): boolean;
  usePackedKernel(name: string): string;
  storageBytes(tensor: Slot): number;
  giveBackPages(tensor: Slot): void;
  adjustExternalMemory(bytes: number): void;
  backward(
    outputs: readonly Slot[],
    gradients: readonly Slot[] | undefined,
    retainGraph: boolean,
    createGraph: boolean,
  ): void;
  grad(
    outputs: readonly Slot[],
    inputs: readonly Slot[],
    gradients: readonly Slot[] | undefined,
    retainGraph: boolean,
    createGraph: boolean,
    allowUnused: boolean,
  ): Slot[];
  gradientOf(tensor: Slot): Slot;
  setGradient(tensor: Slot, gradient: Slot | null): void;
  requiresGrad(tensor: Slot): boolean;
  setRequiresGrad(tensor: Slot, value: boolean): void;
  isLeaf(tensor: Slot): boolean;
  setGradEnabled(enabled: boolean): boolean;
  isGradEnabled(): boolean;
  enterInference(): void;
  exitInference(): void;
  setAutocast(device: string, enabled: boolean, dtype: number): [boolean, number];
  getNumThreads(): number;
  setNumThreads(count: number): void;
  runtimeInfo(): RuntimeInfo;
  synchronize(device: string): void;
  manualSeed(seed: number): void;
  createGenerator(device: string, seed: number): GeneratorSlot;
  releaseGenerator(generator: GeneratorSlot): void;
  generatorState(generator: GeneratorSlot | string): Slot;
  setGeneratorState(generator: GeneratorSlot | string, state: Slot): void;
  setErrorFactory(
    factory: (kind: string, operation: string, message: string, details: string) => Error,
  ): void;
}

/** What libtorch says of itself and of the machine. */
export interface RuntimeInfo {
  /** libtorch's version, for example 2.13.0. */
  readonly version: string;
  /** The vector instructions that libtorch chose, for example AVX512. */
  readonly cpuCapability: string;
  /** How many CUDA devices can be used. */
  readonly cudaDevices: number;
  readonly hasMps: boolean;
  readonly hasMkldnn: boolean;
  /** Whether the processor has instructions for products of bfloat16 (AVX512-BF16). */
  readonly multipliesBfloat16: boolean;
  /** Whether it multiplies bfloat16 slower than float32, so that factors are widened; see `useWidenedProducts`. */
  readonly widensBfloat16: boolean;
  /** libtorch's own report on its thread pools. */
  readonly parallel: string;
}

let loaded: Native | undefined;
const afterLoad: ((native: Native) => void)[] = [];

/** The addon, loaded at the first call. @throws NativeError when it has not been built or cannot be loaded. */
export function native(): Native {
  return loaded ?? load();
}

/** Runs `callback` once, right after the addon is loaded. */
export function onLoad(callback: (native: Native) => void): void {
  if (loaded) callback(loaded);
  else afterLoad.push(callback);
}

function load(): Native {
  const path = addonFile();
  if (path === undefined) {
    throw new NativeError(
      'native: expected the addon of posttrain, but it has not been built on this machine.',
      { hint: 'Run once: npx posttrain setup (it fetches libtorch and compiles the addon)' },
    );
  }
  let addon: Native;
  try {
    addon = createRequire(import.meta.url)(path) as Native;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new NativeError(`native: the addon at ${path} cannot be loaded: ${reason}`, {
      hint: 'Run `npx posttrain setup`; `npx posttrain doctor` says more.',
      cause,
    });
  }
  addon.setErrorFactory(errorFrom);
  loaded = addon;
  for (const callback of afterLoad.splice(0)) callback(addon);
  return addon;
}

function errorFrom(kind: string, operation: string, message: string, details: string): Error {
  const name = operation.replace(/^aten::/, '');
  const called = details === '' ? '' : ` Called with ${details}.`;
  if (kind === 'disposed') {
    return new DisposedError(
      `${name}: expected a live tensor, received one that was freed.${called}`,
      {
        hint: 'It was freed by dispose() or by the tidy() it was made in. Return it from tidy() or use keep().',
      },
    );
  }
  if (kind === 'argument') return new ValueRangeError(`${name}: ${message}.${called}`);
  return new NativeError(`${name}: ${firstPart(message).trim().replace(/\.?$/, '.')}${called}`);
}

// libtorch's message without what only its developers can use: the line of its source that made a check, and, where a
// backend has no kernel, the list of every backend that has one.
function firstPart(message: string): string {
  const text = message.replace(/^\[enforce fail at [^\]]+\] [^.]*\. /, '');
  return /^Could not run '[^']*' with arguments from the '[^']*' backend\./.exec(text)?.[0] ?? text;
}
