import { join } from 'node:path';
import { modelOnBase } from '../hub/index.js';
import type { Dtype, Tensor } from '../torch/index.js';
import { applyAdapter, isAdapterFolder, readAdapterFolder, refuseBase } from './adapterFolder.js';
import { assertModelFolder, openWeights } from './checkpoint.js';
import { asStored } from './checkpointNames.js';
import { takeTensors } from './checkpointTensors.js';
import { FULL_PRECISION, type ComputeSettings } from './computeSettings.js';
import { Decoder } from './decoder.js';
import { parseDecoderConfig, type DecoderConfig } from './decoderConfig.js';
import { readJsonObject, type JsonObject } from './jsonFields.js';
import { parameterShapes } from './parameterShapes.js';
import { requireSameBase } from './weightsSha256.js';

/** Options of `loadModel`. */
export interface LoadModelOptions {
  /** The dtype of all weights, whatever the files hold: float32 unless said. */
  readonly dtype?: Dtype | undefined;
  /** cpu unless said. */
  readonly device?: string | undefined;
  /** In which numbers it computes: those of `dtype` unless said. */
  readonly compute?: ComputeSettings | undefined;
  /** Of an adapter: its base model, a folder or a name of the Hub, where it is not what adapter_config.json names. */
  readonly base?: string | undefined;
  /** A folder of a disk on which the weights wait while they are not used, see `Decoder.rest`. Of no effect off the CPU. */
  readonly restIn?: string | undefined;
}

/**
 * Loads a model in Hugging Face's layout: config.json and safetensors, single or sharded.
 *
 * The folder of an adapter in PEFT's layout is opened with its base model, whose parameters then require no gradient.
 *
 * @throws CheckpointError when the folder is no model folder, its model is of a family that posttrain does not have, a
 *   tensor is missing, left over, of another shape than the configuration says or not of floating point, a file is
 *   damaged, or an adapter was trained on other weights; IoError when a file cannot be read; HubError as `modelFolder`
 */
export async function loadModel(
  folderOrHubId: string,
  options: LoadModelOptions = {},
): Promise<Decoder> {
  const where = 'loadModel';
  const { folder, base } = await modelOnBase(folderOrHubId, options.base);
  if (isAdapterFolder(folder)) {
    const adapter = readAdapterFolder(where, folder, base);
    await requireSameBase(where, adapter);
    const model = await loadModel(adapter.base, { ...options, base: undefined });
    return disposedOnFailure(model, () => applyAdapter(where, model, adapter));
  }
  refuseBase(where, folder, options);
  assertModelFolder(folder, where);
  const configPath = join(folder, 'config.json');
  const raw = readJsonObject(configPath) ?? {};
  const generation = readJsonObject(join(folder, 'generation_config.json'));
  const parsed = parseDecoderConfig(raw, configPath, generation);
  const file = openWeights(folder, where);
  try {
    const config = asStored(parsed, file);
    const shapes = parameterShapes(config);
    const weights = takeTensors({ where, folder, file, config, shapes, ...options });
    return decoderOf(config, weights, { ...options, generation });
  } finally {
    file.dispose();
  }
}

/** What a folder's weights make. Internal to this folder. */
export function decoderOf(
  config: DecoderConfig,
  weights: ReadonlyMap<string, Tensor>,
  { generation, compute, restIn }: LoadModelOptions & { readonly generation: JsonObject | null },
): Decoder {
  const model = new Decoder(config, weights, generation);
  model.compute = compute ?? FULL_PRECISION;
  model.rests = restIn !== undefined && model.device === 'cpu';
  return model;
}

/** The model after `change`; without it where that fails, so that nothing is left behind. */
export function disposedOnFailure<Model extends { dispose(): void }>(
  model: Model,
  change: () => void,
): Model {
  try {
    change();
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}
