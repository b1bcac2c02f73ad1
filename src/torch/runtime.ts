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
