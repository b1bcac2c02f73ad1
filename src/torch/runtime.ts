/** Memory, threads and devices of the engine. */
import { ValueRangeError } from '../errors/index.js';
import { native, type RuntimeInfo } from './native.js';

/** What the engine holds. */
export interface MemoryUse {
  /** Tensors of JavaScript that were not freed. */
  liveTensors: number;
  /** Bytes of the storages behind them, each counted once. Memory that only autograd's graph holds is not included. */
  liveBytes: number;
}

/** Live tensors and their bytes, on every device together. */
export function memory(): MemoryUse {
  const [liveTensors, liveBytes] = native().memory();
  return { liveTensors, liveBytes };
}

/** Memory of tensors on the CPU, in blocks of 256 KiB and more; the graph of autograd is included. */
export interface HostMemory {
  readonly bytesInUse: number;
  /** Freed, and kept for later tensors: a new page costs a fault. */
  readonly bytesKept: number;
  /** The most that was in use at once. With what is kept, at most 16 MiB more stand in memory. */
  readonly mostBytesInUse: number;
}

/** What the engine's allocator holds. */
export function hostMemory(): HostMemory {
  const [bytesInUse, bytesKept, mostBytesInUse] = native().hostMemory();
  return { bytesInUse, bytesKept, mostBytesInUse };
}

/** Gives everything that is kept back to the system, and forgets how much was in use. */
export function releaseHostMemory(): void {
  native().releaseHostMemory();
}

/** Gives about so many bytes of what is kept back to the system: for memory of another kind that is needed for a while. */
export function giveBackHostMemory(bytes: number): void {
  native().giveBackHostMemory(bytes);
}

/**
 * Whether large float32 products of linear layers run on oneDNN on the CPU. They do on processors of AMD, where MKL is
 * slower; results agree to rounding. Off is for checking.
 *
 * @returns what was set before
 */
export function useOneDnnLinear(enabled: boolean): boolean {
  return native().useOneDnnLinear(enabled);
}

/**
 * Whether large bfloat16 products of linear layers are computed from factors widened to float32 on the CPU. They are on
 * processors of x86 that multiply bfloat16 slower than float32: those without AVX512-BF16, and those of Intel that have it
 * and no AMX. Sums are in float32 and rounded once either way. Off is for checking.
 *
 * @returns what was set before
 */
export function useWidenedProducts(enabled: boolean): boolean {
  return native().useWidenedProducts(enabled);
}

/** What multiplies rows with a packed weight: panels with the instructions named, or oneDNN. */
export type PackedKernel = 'oneDnn' | 'avx2' | 'avx512';

/**
 * Chooses what `packLinearWeight` packs for, and what multiplies panels. It is the last one of the type that the processor
 * has. Others are for checking.
 *
 * @returns what was set before
 */
export function usePackedKernel(name: PackedKernel): PackedKernel {
  return native().usePackedKernel(name) as PackedKernel;
}

/** Threads that one operator may use on the CPU. */
export function getNumThreads(): number {
  return native().getNumThreads();
}

/** Sets the threads that one operator may use on the CPU. @throws ValueRangeError unless it is a positive integer. */
export function setNumThreads(count: number): void {
  if (!Number.isInteger(count) || count < 1) {
    throw new ValueRangeError(`setNumThreads: expected a positive integer, received ${count}.`);
  }
  native().setNumThreads(count);
}

/** libtorch's version, vector instructions and devices. */
export function runtimeInfo(): RuntimeInfo {
  return native().runtimeInfo();
}

/** Whether the linked libtorch can use a CUDA device on this machine. */
export function cudaIsAvailable(): boolean {
  return native().runtimeInfo().cudaDevices > 0;
}

/** Waits until everything queued on a device has run; returns at once for the CPU. For timing. */
export function synchronize(device: string): void {
  native().synchronize(device);
}
