import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError } from '../errors/index.js';
import { asIoError } from './files.js';

/**
 * SHA-256 of a model's weights: of its safetensors files in the order of their names, one after the other. With a single
 * file this is what `sha256sum` prints.
 *
 * @throws CheckpointError if the folder has no such file; IoError if one cannot be read
 */
export async function weightsFingerprint(folder: string): Promise<string> {
  try {
    const names = (await readdir(folder)).filter((name) => name.endsWith('.safetensors')).sort();
    if (names.length === 0) {
      throw new CheckpointError(`${folder}: expected weights in a .safetensors file, found none.`);
    }
    const hash = createHash('sha256');
    for (const name of names) {
      for await (const chunk of createReadStream(join(folder, name))) hash.update(chunk as Buffer);
    }
    return hash.digest('hex');
  } catch (error) {
    throw asIoError(error, `Reading ${folder}`);
  }
}
