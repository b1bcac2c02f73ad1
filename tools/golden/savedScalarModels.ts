/**
 * Writes scalar models as posttrain saves them, each with ours.json: token ids, lengths and the scores that posttrain
 * computes. tools/golden/checkSavedScalars.py opens them with transformers and compares.
 *
 *     npx tsx tools/golden/savedScalarModels.ts /tmp/scalars && python tools/golden/checkSavedScalars.py /tmp/scalars
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  createModel,
  createScalarModel,
  loadModel,
  loadScalarModel,
  makeDecoderConfig,
  MODEL_TYPES,
  sequenceScores,
  type ScalarModel,
} from '../../src/models/index.js';
import { noGrad, tensor, type Dtype } from '../../src/torch/index.js';

const [out = '/tmp/scalars'] = process.argv.slice(2);
const golden = join(import.meta.dirname, '../../test/golden');

const PAD = 2;
const lengths = [8, 5, 1];
const inputIds = [
  [5, 1, 7, 3, 30, 12, 9, 40],
  [11, 8, 33, 6, 4, PAD, PAD, PAD],
  [17, PAD, PAD, PAD, PAD, PAD, PAD, PAD],
];

async function write(name: string, model: ScalarModel, maxShardBytes?: number): Promise<void> {
  const folder = join(out, name);
  await model.save(folder, { maxShardBytes });
  const ids = tensor(inputIds, { dtype: 'int64' });
  const scores = noGrad(() => sequenceScores(model, { inputIds: ids, lengths }).toArray());
  const { scoreShift } = model;
  writeFileSync(
    join(folder, 'ours.json'),
    JSON.stringify({ inputIds, lengths, scores, scoreShift }),
  );
  model.dispose();
}

const random = { seed: 6, std: 0.2 };

for (const name of readdirSync(join(golden, 'scalarModels')))
  await write(`loaded-${name}`, await loadScalarModel(join(golden, 'scalarModels', name)));
for (const name of readdirSync(join(golden, 'models')))
  await write(
    `headed-${name}`,
    createScalarModel(await loadModel(join(golden, 'models', name)), random),
  );
for (const modelType of MODEL_TYPES)
  for (const tieWordEmbeddings of [true, false]) {
    const make = (dtype: Dtype): ScalarModel => {
      const config = makeDecoderConfig({
        modelType,
        vocabSize: 64,
        hiddenSize: 32,
        intermediateSize: 48,
        numLayers: 2,
        numHeads: 4,
        numKeyValueHeads: modelType === 'gpt2' ? 4 : 2,
        initializerRange: 0.2,
        tieWordEmbeddings,
        padTokenId: PAD,
      });
      return createScalarModel(createModel(config, { seed: 5, dtype }), random);
    };
    const name = `created-${modelType}${tieWordEmbeddings ? '-tied' : ''}`;
    await write(name, make('float32'));
    await write(`${name}-sharded`, make('float32'), 20_000);
    await write(`${name}-bfloat16`, make('bfloat16'));
    const shifted = make('float32');
    shifted.shiftScores(-1.25);
    await write(`${name}-shifted`, shifted);
  }
