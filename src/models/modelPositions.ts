import { readDecoderConfig } from './readDecoderConfig.js';

/**
 * How many positions the model in a folder has, by its config.json alone: rows can be read before weights are.
 *
 * @throws CheckpointError and IoError as `loadModel`
 */
export function modelPositions(modelFolder: string): number {
  return readDecoderConfig(modelFolder).maxPositionEmbeddings;
}

/**
 * How many tokens the model in a folder has embeddings of, by its config.json alone.
 *
 * @throws as `modelPositions`
 */
export function modelVocabulary(modelFolder: string): number {
  return readDecoderConfig(modelFolder).vocabSize;
}
