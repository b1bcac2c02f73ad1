import { join } from 'node:path';
import { CheckpointError } from '../errors/index.js';
import { Linear } from '../nn/index.js';
import { assertModelFolder, openWeights } from './checkpoint.js';
import { SCORE, takeTensors } from './checkpointTensors.js';
import { Decoder } from './decoder.js';
import { parseDecoderConfig } from './decoderConfig.js';
import { Fields, readJsonObject } from './jsonFields.js';
import type { LoadModelOptions } from './loadModel.js';
import { parameterShapes } from './parameterShapes.js';
import { SCORE_SHIFT, ScalarModel } from './scalarModel.js';

/**
 * Loads a reward or value model: a folder that `ScalarModel.save` wrote, or transformers' AutoModelForSequenceClassification
 * with one label.
 *
 * @throws CheckpointError and IoError as `loadModel`; CheckpointError also for a folder without a scalar head
 */
export async function loadScalarModel(
  folder: string,
  options: LoadModelOptions = {},
): Promise<ScalarModel> {
  const where = 'loadScalarModel';
  assertModelFolder(folder, where);
  const configPath = join(folder, 'config.json');
  const raw = readJsonObject(configPath) ?? {};
  const generation = readJsonObject(join(folder, 'generation_config.json'));
  const parsed = parseDecoderConfig(raw, configPath, generation);
  const scoreShift = new Fields(raw, configPath).numberOrNull(SCORE_SHIFT) ?? 0;
  // Whatever config.json says of an output layer, this model has none.
  const config = { ...parsed, tieWordEmbeddings: true };
  const file = openWeights(folder, where);
  try {
    if (!file.has(SCORE))
      throw new CheckpointError(
        `${where}: expected a scalar head in ${folder}, there is no tensor ${SCORE}.`,
        {
          hint: 'To put a new head on a language model: createScalarModel(await loadModel(folder)).',
        },
      );
    const shapes = parameterShapes(config);
    shapes.set(SCORE, { shape: [1, config.hiddenSize], kind: 'linear' });
    const weights = takeTensors({ where, folder, file, shapes, ...options });
    const head = weights.get(SCORE);
    if (head === undefined) throw new CheckpointError(`internal: ${SCORE} was not taken.`);
    return new ScalarModel(new Decoder(config, weights, generation), new Linear(head), scoreShift);
  } finally {
    file.dispose();
  }
}

/**
 * Whether a model folder holds a reward or value model.
 *
 * @throws CheckpointError and IoError as `loadModel`, where it is no model folder
 */
export function isScalarModelFolder(folder: string): boolean {
  const where = 'isScalarModelFolder';
  assertModelFolder(folder, where);
  const file = openWeights(folder, where);
  try {
    // A classifier with several labels, a model of steps among them, has a head of the same name and more rows.
    return file.has(SCORE) && file.shapeOf(SCORE)[0] === 1;
  } finally {
    file.dispose();
  }
}
