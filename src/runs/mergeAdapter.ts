/** Folding an adapter into its base model: a folder with a whole model, as if all of it had been trained. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { CheckpointError, IoError } from '../errors/index.js';
import { makeFolder, modelOnBase } from '../hub/index.js';
import {
  baseFolderOf,
  isAdapterFolder,
  isScalarModelFolder,
  isStepModelFolder,
  loadModel,
  loadScalarModel,
  loadStepModel,
  loraLayers,
  saveMerged,
  storedDtype,
  tokenizerFolderOf,
  type LoadModelOptions,
} from '../models/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import type { Dtype } from '../torch/index.js';
import { asIoError, syncTree } from './files.js';

/** What `mergeAdapter` needs. */
export interface MergeAdapterOptions {
  /** The adapter: a folder, or `org/name` of the Hub. */
  readonly model: string;
  /** Folder to write; must not exist yet. */
  readonly out: string;
  /** The base model, where it is not what adapter_config.json names: a folder, or `org/name` of the Hub. */
  readonly base?: string | undefined;
}

/** What was merged. */
export interface MergeAdapterResult {
  /** Folder of the whole model. */
  readonly model: string;
  readonly base: string;
  /** Layers that had an adapter. */
  readonly layers: number;
  /** Of the written weights: the base model's. */
  readonly dtype: Dtype;
}

/**
 * Writes the model that an adapter and its base amount to: W + ΔW, computed from the base's own weights in float32
 * (float64 for a base of float64) and rounded once, to the base's dtype. The tokenizer is written with it. The folder
 * appears whole or not at all.
 *
 * @throws IoError where `out` exists, or cannot be written; CheckpointError where `model` is no adapter, or as `loadModel`; HubError as
 *   `modelFolder`
 */
export async function mergeAdapter({
  model: folderOrHubId,
  out,
  base: baseOrHubId,
}: MergeAdapterOptions): Promise<MergeAdapterResult> {
  if (existsSync(out))
    throw new IoError(`merge: expected a new folder to write, but ${out} exists already.`, {
      hint: 'Give another --out.',
    });
  const { folder, base: given } = await modelOnBase(folderOrHubId, baseOrHubId);
  if (!isAdapterFolder(folder))
    throw new CheckpointError(
      `merge: expected the folder of an adapter, but ${folder} holds no adapter_config.json.`,
      { hint: 'A whole model needs no merging; of a run name its folder model.' },
    );
  const base = baseFolderOf(folder, 'merge', given);
  const dtype = storedDtype(base, 'merge');
  const tokenizer = await loadTokenizer(tokenizerFolderOf(folder, given));
  const temporary = join(
    dirname(resolve(out)),
    `.${basename(out)}.tmp-${randomBytes(4).toString('hex')}`,
  );
  try {
    makeFolder(temporary); // before the model is loaded, which takes time
  } catch (error) {
    throw asIoError(error, `Writing ${out}`);
  }
  try {
    const precise = dtype === 'float64' ? 'float64' : 'float32';
    const model = await openAdapted(folder, { dtype: precise, base: given });
    try {
      await saveMerged(model, temporary, dtype);
      await tokenizer.save(temporary);
      await syncTree(temporary);
      await rename(temporary, out);
      return { model: out, base, layers: loraLayers(model).size, dtype };
    } finally {
      model.dispose();
    }
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw asIoError(error, `Writing ${out}`);
  }
}

function openAdapted(folder: string, options: LoadModelOptions) {
  if (isScalarModelFolder(folder)) return loadScalarModel(folder, options);
  if (isStepModelFolder(folder)) return loadStepModel(folder, options);
  return loadModel(folder, options);
}
