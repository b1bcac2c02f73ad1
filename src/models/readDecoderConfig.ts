import { join } from 'node:path';
import { baseFolderOf } from './adapterFolder.js';
import { assertModelFolder } from './checkpoint.js';
import { parseDecoderConfig, type DecoderConfig } from './decoderConfig.js';
import { readJsonObject } from './jsonFields.js';

/**
 * What the model in a folder is, by its config.json alone (an adapter's by that of its base): no weights are read.
 *
 * @throws CheckpointError and IoError as `loadModel`
 */
export function readDecoderConfig(modelFolder: string): DecoderConfig {
  const folder = baseFolderOf(modelFolder, 'loadModel');
  assertModelFolder(folder, 'loadModel'); // which reads the folder next
  const path = join(folder, 'config.json');
  return parseDecoderConfig(readJsonObject(path) ?? {}, path);
}
