/**
 * Writes process reward models as posttrain saves them, each with ours.json: token ids, lengths, places of steps and the
 * logits that posttrain computes. tools/golden/checkSavedSteps.py opens them with transformers and compares.
 *
 *     npx tsx tools/golden/savedStepModels.ts /tmp/steps && python tools/golden/checkSavedSteps.py /tmp/steps
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  createModel,
  createStepModel,
  loadModel,
  loadStepModel,
  makeDecoderConfig,
  MODEL_TYPES,
  stepLogits,
  type StepModel,
} from '../../src/models/index.js';
import { noGrad, tensor } from '../../src/torch/index.js';

const [out = '/tmp/steps'] = process.argv.slice(2);
const golden = join(import.meta.dirname, '../../test/golden');

const PAD = 2;
const lengths = [8, 5, 1];
const stepEnds = [[2, 4, 7], [1, 4], [0]];
const inputIds = [
  [5, 1, 7, 3, 30, 12, 9, 40],
  [11, 8, 33, 6, 4, PAD, PAD, PAD],
  [17, PAD, PAD, PAD, PAD, PAD, PAD, PAD],
];

async function write(name: string, model: StepModel, maxShardBytes?: number): Promise<void> {
  const folder = join(out, name);
  await model.save(folder, { maxShardBytes });
  const ids = tensor(inputIds, { dtype: 'int64' });
  const logits = noGrad(() => stepLogits(model, { inputIds: ids, lengths, stepEnds }).toArray());
  writeFileSync(
    join(folder, 'ours.json'),
    JSON.stringify({ inputIds, lengths, stepEnds, logits, separator: model.stepSeparator }),
  );
  model.dispose();
}

const random = { seed: 6, std: 0.2, stepSeparator: '\n\n' };

for (const name of readdirSync(join(golden, 'stepModels')))
  await write(`loaded-${name}`, await loadStepModel(join(golden, 'stepModels', name)));
for (const name of readdirSync(join(golden, 'models')))
  await write(
    `headed-${name}`,
    createStepModel(await loadModel(join(golden, 'models', name)), random),
  );
// transformers has no model of steps for the other two.
const families = MODEL_TYPES.filter((name) => name !== 'gpt2' && name !== 'gemma3_text');
for (const modelType of families)
  for (const dtype of ['float32', 'bfloat16'] as const) {
    const config = makeDecoderConfig({
      modelType,
      vocabSize: 64,
      hiddenSize: 32,
      intermediateSize: 48,
      numLayers: 2,
      numHeads: 4,
      numKeyValueHeads: 2,
      initializerRange: 0.2,
      padTokenId: PAD,
    });
    const make = (): StepModel => createStepModel(createModel(config, { seed: 5, dtype }), random);
    await write(`created-${modelType}-${dtype}`, make());
    await write(`created-${modelType}-${dtype}-sharded`, make(), 20_000);
  }
