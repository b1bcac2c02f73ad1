/** A trainer's state as files of a checkpoint: `trainer.json` for numbers, `trainer.safetensors` for tensors. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError } from '../errors/index.js';
import { readSafetensors, tidy, writeSafetensors, type Tensor } from '../torch/index.js';
import type { Trainer } from '../trainers/index.js';
import { asIoError } from './files.js';

const STATE_FILE = 'trainer.json';
const TENSOR_FILE = 'trainer.safetensors';

/**
 * Writes what a trainer needs beside its model to go on.
 *
 * @throws IoError if a file cannot be written
 */
export async function saveTrainer(trainer: Trainer, folder: string): Promise<void> {
  const state = { method: trainer.method, step: trainer.step, state: trainer.state() };
  try {
    writeFileSync(join(folder, STATE_FILE), `${JSON.stringify(state)}\n`);
  } catch (error) {
    throw asIoError(error, `Writing ${join(folder, STATE_FILE)}`);
  }
  const tensors = trainer.tensors();
  if (tensors.size > 0) await writeSafetensors(join(folder, TENSOR_FILE), tensors);
}

/**
 * Takes a trainer back to where `saveTrainer` was called.
 *
 * @throws CheckpointError if the files are missing, malformed, or do not fit the trainer
 */
export function restoreTrainer(trainer: Trainer, folder: string): void {
  const path = join(folder, STATE_FILE);
  let saved: unknown;
  try {
    saved = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new CheckpointError(`${path}: expected the state of a trainer, but it cannot be read.`, {
      cause: error,
    });
  }
  if (!isSaved(saved)) {
    throw new CheckpointError(`${path}: expected the state of a trainer, received something else.`);
  }
  const { method, state, step } = saved;
  if (method !== trainer.method) {
    throw new CheckpointError(
      `${path}: expected the state of ${trainer.method}, received that of ${String(method)}.`,
    );
  }
  const tensorPath = join(folder, TENSOR_FILE);
  if (existsSync(tensorPath)) {
    const file = readSafetensors(tensorPath);
    try {
      tidy(() => {
        const tensors = new Map<string, Tensor>();
        for (const name of file.names) tensors.set(name, file.tensor(name));
        trainer.restore(state, tensors);
      });
    } finally {
      file.dispose();
    }
  } else {
    trainer.restore(state, new Map());
  }
  if (trainer.step !== step) {
    throw new CheckpointError(
      `${path}: expected the trainer to stand at step ${String(step)} after it was restored, but it stands at ${trainer.step}.`,
    );
  }
}

function isSaved(
  value: unknown,
): value is { method: unknown; step: unknown; state: Record<string, unknown> } {
  return (
    typeof value === 'object' &&
    value !== null &&
    'method' in value &&
    'step' in value &&
    'state' in value &&
    typeof value.state === 'object' &&
    value.state !== null
  );
}
