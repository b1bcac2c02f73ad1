import { join } from 'node:path';
import { baseFolderOf } from './adapterFolder.js';
import { assertModelFolder } from './checkpoint.js';
import { parseDecoderConfig } from './decoderConfig.js';
import { readJsonObject } from './jsonFields.js';

/**
 * How many positions the model in a folder has, by its config.json alone: rows can be read before weights are.
 *
 * @throws CheckpointError and IoError as `loadModel`
 */
export function modelPositions(modelFolder: string): number {
  const folder = baseFolderOf(modelFolder, 'loadModel');
  assertModelFolder(folder, 'loadModel'); // which reads the folder next
  const path = join(folder, 'config.json');
  return parseDecoderConfig(readJsonObject(path) ?? {}, path).maxPositionEmbeddings;
}
