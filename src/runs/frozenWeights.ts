/** Where the frozen models of a run are while nothing reads them. */
import { existsSync, statfsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { IoError } from '../errors/index.js';
import { ones, restingTensors, tidy } from '../torch/index.js';
import type { ProgressStream } from './progress.js';
import type { MemorySettings } from './requireMemory.js';
import type { Placement } from './runInputs.js';

interface FrozenWeights {
  /** Of methods that have frozen models. */
  readonly frozenWeights?: 'disk' | 'memory' | undefined;
}

/** tmpfs and ramfs, by what statfs(2) calls them: a file of theirs is memory. */
const IN_MEMORY: readonly number[] = [0x01021994, 0x858458f6];

/**
 * A folder for weights that rest, on the file system of a run's directory.
 *
 * @param out the run's directory, or where it will be
 * @returns null where a file would be memory itself, or cannot be mapped
 */
export function restingFolder(out: string): string | null {
  let folder = resolve(out);
  while (!existsSync(folder)) folder = dirname(folder);
  if (process.platform === 'linux' && IN_MEMORY.includes(statfsSync(folder).type)) return null;
  try {
    tidy(() => {
      for (const tensor of restingTensors(folder, new Map([['', ones([1])]])).values())
        tensor.dispose();
    });
    return folder;
  } catch (error) {
    if (error instanceof IoError) return null;
    throw error;
  }
}

/** How frozen models of a run are loaded: with weights that rest on the disk where that is asked for and possible. */
export function frozenPlacement(
  { frozenWeights }: FrozenWeights,
  placed: Placement,
  out: string,
): Placement & { readonly restIn?: string } {
  if (frozenWeights !== 'disk' || placed.device !== 'cpu') return placed;
  const restIn = restingFolder(out);
  return restIn === null ? placed : { ...placed, restIn };
}

/**
 * The settings by which memory is estimated: without weights that rest where they cannot, which is told.
 *
 * @param options.ownWeights whether the run has a frozen model that does not share the policy's weights
 */
export function restingSettings(
  config: MemorySettings,
  out: string,
  { ownWeights, progress }: { ownWeights: boolean; progress: ProgressStream | null },
): MemorySettings {
  const asks = ownWeights && config.frozenWeights === 'disk';
  if (!asks || restingFolder(out) !== null) return config;
  progress?.write(
    `Frozen weights stay in memory: the file system of ${out} is memory itself, or maps no files. Another place for the run would save that memory.\n`,
  );
  return { ...config, frozenWeights: undefined };
}
