/** Where a model folder keeps its weights: one safetensors file, or shards with an index. */
import { existsSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { CheckpointError } from '../errors/index.js';
import { readSafetensors, type Dtype, type SafetensorsFile } from '../torch/index.js';
import { isJsonObject, readJsonObject, shown } from './jsonFields.js';

/** The file that holds all weights of an unsharded model. */
export const WEIGHTS_FILE = 'model.safetensors';
/** The file that says which shard holds which tensor. */
export const INDEX_FILE = 'model.safetensors.index.json';
/** The names of shards. */
export const SHARD_NAME = /^model-\d{5}-of-\d{5}\.safetensors$/;

/**
 * @param where the function that was given the folder, for messages
 * @throws CheckpointError with advice unless `folder` is a folder with a config.json
 */
export function assertModelFolder(folder: string, where: string): void {
  const isFolder = existsSync(folder) && statSync(folder).isDirectory();
  if (isFolder && existsSync(join(folder, 'config.json'))) return;
  if (isFolder)
    throw new CheckpointError(`${where}: expected a config.json in ${folder}, there is none.`, {
      hint: 'A model folder has config.json, tokenizer.json and *.safetensors.',
    });
  throw new CheckpointError(
    `${where}: expected a model folder, but ${folder} ${existsSync(folder) ? 'is a file' : 'does not exist'}.`,
    {
      hint: 'Check the path. A model of the Hugging Face Hub is named org/name or org/name@revision.',
    },
  );
}

/**
 * Opens the weights of a model folder. `model.safetensors` comes before an index, as in transformers.
 *
 * @throws CheckpointError when there are none, an index is malformed or names what is not there; IoError when a file
 *   cannot be read
 */
export function openWeights(folder: string, where: string): SafetensorsFile {
  const single = join(folder, WEIGHTS_FILE);
  if (existsSync(single)) return readSafetensors(single);
  const indexPath = join(folder, INDEX_FILE);
  const index = readJsonObject(indexPath);
  if (index !== null) return openShards(folder, indexPath, index['weight_map']);
  throw withoutWeights(folder, where);
}

/** What is there in the place of weights. */
function withoutWeights(folder: string, where: string): CheckpointError {
  const expected = `${where}: expected ${WEIGHTS_FILE}`;
  const found = readdirSync(folder, { withFileTypes: true });
  const named = (endings: RegExp): string =>
    found.flatMap(({ name }) => (endings.test(name) ? [name] : [])).join(', ');
  const broken = found.find((entry) => entry.name === WEIGHTS_FILE && entry.isSymbolicLink());
  if (broken !== undefined)
    return new CheckpointError(
      `${expected} in ${folder}, found a link to ${readlinkSync(join(folder, WEIGHTS_FILE))}, which is not there.`,
      { hint: 'Fetch the model again, or copy its files instead of linking to them.' },
    );
  const pickles = named(/\.(bin|pt|pth)$/);
  if (pickles !== '')
    return new CheckpointError(
      `${expected} in ${folder}, found ${pickles}, which can run code when it is read.`,
      {
        hint: 'Convert it with transformers: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)',
      },
    );
  const others = named(/\.(gguf|ggml|safetensors|h5|msgpack|onnx)$/);
  return new CheckpointError(
    `${expected} or ${INDEX_FILE} in ${folder}, ${others === '' ? 'there is neither' : `found ${others}`}.`,
    {
      hint:
        others === ''
          ? 'Fetch the weights, or name the folder that holds them.'
          : 'Fetch the model as transformers saves it: its weights in safetensors, shards with their index.',
    },
  );
}

/**
 * The dtype that a model folder holds its matrices in.
 *
 * @throws as `openWeights`
 */
export function storedDtype(folder: string, where: string): Dtype {
  assertModelFolder(folder, where);
  const file = openWeights(folder, where);
  try {
    const name = file.names.find((one) => file.shapeOf(one).length === 2);
    return name === undefined ? 'float32' : file.dtypeOf(name);
  } finally {
    file.dispose();
  }
}

function openShards(folder: string, indexPath: string, weightMap: unknown): SafetensorsFile {
  if (!isJsonObject(weightMap))
    throw new CheckpointError(`${indexPath}: expected weight_map to be an object.`, {
      hint: 'It says which file each tensor is in. Fetch or save the model again.',
    });
  const shards = new Set<string>();
  for (const [name, shard] of Object.entries(weightMap)) {
    // A shard lies beside the index: a path would let a downloaded index read files anywhere.
    if (typeof shard !== 'string' || basename(shard) !== shard || !shard.endsWith('.safetensors'))
      throw new CheckpointError(
        `${indexPath}: expected the name of a .safetensors file for ${name}, received ${shown(shard)}.`,
        { hint: 'Shards lie beside their index. Fetch or save the model again.' },
      );
    shards.add(shard);
  }
  const missing = [...shards].filter((shard) => !existsSync(join(folder, shard)));
  if (missing.length > 0)
    throw new CheckpointError(
      `${indexPath}: expected the shards ${missing.join(', ')} beside it, they are not there.`,
      { hint: 'Fetch what is missing: a sharded model needs all of its shards.' },
    );
  return readSafetensors([...shards].sort().map((shard) => join(folder, shard)));
}
