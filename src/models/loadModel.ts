import { join } from 'node:path';
import { CheckpointError } from '../errors/index.js';
import { noGrad, tidy, type Dtype, type SafetensorsFile, type Tensor } from '../torch/index.js';
import { assertModelFolder, openWeights } from './checkpoint.js';
import { Decoder } from './decoder.js';
import { parseDecoderConfig, type DecoderConfig } from './decoderConfig.js';
import { readJsonObject } from './jsonFields.js';
import { parameterShapes } from './parameterShapes.js';

/** Options of `loadModel`. */
export interface LoadModelOptions {
  /** The dtype of all weights, whatever the files hold: float32 unless said. */
  readonly dtype?: Dtype | undefined;
  /** cpu unless said. */
  readonly device?: string | undefined;
}

/**
 * Loads a model folder in Hugging Face's layout: config.json and safetensors, single or sharded. Weights that need no
 * conversion stay in the mapped file until they are touched.
 *
 * @throws CheckpointError when the folder is no model folder, its model is of a family that posttrain does not have, a
 *   tensor is missing, left over or of another shape than the configuration says, or a file is damaged; IoError when a
 *   file cannot be read
 */
export async function loadModel(folder: string, options: LoadModelOptions = {}): Promise<Decoder> {
  assertModelFolder(folder);
  const configPath = join(folder, 'config.json');
  const raw = readJsonObject(configPath) ?? {};
  const generation = readJsonObject(join(folder, 'generation_config.json'));
  const config = parseDecoderConfig(raw, configPath, generation);
  const file = openWeights(folder);
  try {
    checkTensors(config, file, folder);
    return new Decoder(config, takeWeights(config, file, options), generation);
  } finally {
    file.dispose();
  }
}

function takeWeights(
  config: DecoderConfig,
  file: SafetensorsFile,
  { dtype = 'float32', device = 'cpu' }: LoadModelOptions,
): Map<string, Tensor> {
  return noGrad(() => {
    const weights = new Map<string, Tensor>();
    for (const name of parameterShapes(config).keys())
      weights.set(
        name,
        tidy(() => file.tensor(name).to({ dtype, device })),
      );
    return weights;
  });
}

/** @throws CheckpointError that lists every missing, surplus and misshapen tensor at once */
function checkTensors(config: DecoderConfig, file: SafetensorsFile, folder: string): void {
  const expected = parameterShapes(config);
  const missing = [...expected.keys()].filter((name) => !file.has(name));
  const surplus = file.names.filter(
    (name) => !expected.has(name) && !isHarmless(name, config, file),
  );
  const misshapen = [...expected].flatMap(([name, { shape }]) => {
    if (!file.has(name) || String(file.shapeOf(name)) === String(shape)) return [];
    return [`${name} [${file.shapeOf(name).join(', ')}] instead of [${shape.join(', ')}]`];
  });
  const faults = [
    ['missing', missing],
    ['not part of this model', surplus],
    ['of another shape than config.json says', misshapen],
  ] as const;
  const found = faults.filter(([, names]) => names.length > 0);
  if (found.length === 0) return;
  const text = found.map(([fault, names]) => `${names.length} ${fault}: ${shorten(names)}`);
  throw new CheckpointError(`loadModel: the tensors in ${folder} do not fit: ${text.join('; ')}.`);
}

/** Old checkpoints carry the rotary frequencies, and some carry the output layer although it is tied. */
function isHarmless(name: string, config: DecoderConfig, file: SafetensorsFile): boolean {
  if (name.endsWith('rotary_emb.inv_freq')) return true;
  const embedding = 'model.embed_tokens.weight';
  if (name !== 'lm_head.weight' || !config.tieWordEmbeddings || !file.has(embedding)) return false;
  if (file.dtypeOf(name) !== file.dtypeOf(embedding)) return false;
  return tidy(() => file.tensor(name).equal(file.tensor(embedding)));
}

function shorten(names: readonly string[]): string {
  const shown = names.slice(0, 10).join(', ');
  return names.length > 10 ? `${shown} and ${names.length - 10} more` : shown;
}
