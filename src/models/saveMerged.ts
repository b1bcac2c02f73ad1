import type { Dtype } from '../torch/index.js';
import { mergedParameters } from './adapter.js';
import type { SaveOptions } from './causalLm.js';
import type { Decoder } from './decoder.js';
import type { HeadedModel } from './headedModel.js';
import { saveModel } from './saveModel.js';

/**
 * Writes the whole model that a model with an adapter amounts to, as `save` writes one without: see `mergedParameters`.
 *
 * @param dtype of the written weights
 * @throws IoError with the path when writing fails
 */
export async function saveMerged(
  model: Decoder | HeadedModel,
  folder: string,
  dtype: Dtype,
  options: SaveOptions = {},
): Promise<void> {
  const isHeaded = 'trunk' in model;
  const merged = mergedParameters(model, dtype);
  try {
    const saved = isHeaded ? model.savedModel() : model;
    const { generationConfig } = isHeaded ? model.trunk : model;
    const whole = { config: saved.config, dtype, namedParameters: () => merged };
    await saveModel(whole, generationConfig, folder, options);
  } finally {
    for (const tensor of merged.values()) tensor.dispose();
  }
}
