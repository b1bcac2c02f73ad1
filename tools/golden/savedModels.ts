/**
 * Writes model folders as posttrain saves them, each with ours.json: token ids and the logits that posttrain computes.
 * tools/golden/checkSaved.py opens them with transformers and compares.
 *
 *     npx tsx tools/golden/savedModels.ts /tmp/saved && python tools/golden/checkSaved.py /tmp/saved
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  createModel,
  loadModel,
  makeDecoderConfig,
  MODEL_TYPES,
  type Decoder,
  type RopeScaling,
} from '../../src/models/index.js';
import { noGrad, tensor, type Dtype } from '../../src/torch/index.js';
import { FAMILY_FOLDERS, familyFolders } from '../../test/golden/familyFolders.js';

const [out = '/tmp/saved'] = process.argv.slice(2);
const golden = join(import.meta.dirname, '../../test/golden/models');
const families = familyFolders();

const inputIds = [
  [5, 1, 7, 3, 30, 12, 9, 40],
  [2, 2, 2, 11, 8, 33, 6, 4],
];

async function write(name: string, model: Decoder, maxShardBytes?: number): Promise<void> {
  const folder = join(out, name);
  await model.save(folder, { maxShardBytes });
  const ids = tensor(inputIds, { dtype: 'int64' });
  const logits = noGrad(() => model.forward({ inputIds: ids }).logits.toArray());
  writeFileSync(
    join(folder, 'ours.json'),
    JSON.stringify({ inputIds, logits, eosTokenIds: model.config.eosTokenIds }),
  );
  model.dispose();
}

/** Phi-3 has no other scaling than longrope. */
function scalingOf(modelType: (typeof MODEL_TYPES)[number]): RopeScaling {
  const original = { originalMaxPositionEmbeddings: 64 };
  if (modelType === 'phi3')
    return {
      type: 'longrope',
      shortFactor: [1, 1.1, 1.2, 1.4],
      longFactor: [1, 2, 3, 4],
      attentionFactor: 1.2,
      ...original,
    };
  return { type: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, ...original };
}

function newModel(modelType: (typeof MODEL_TYPES)[number], dtype: Dtype, tied: boolean): Decoder {
  const config = makeDecoderConfig({
    modelType,
    vocabSize: 64,
    hiddenSize: 32,
    intermediateSize: 48,
    numLayers: 2,
    numHeads: 4,
    numKeyValueHeads: modelType === 'gpt2' ? 4 : 2,
    ...(modelType.startsWith('gpt') ? {} : { slidingWindow: 5 }),
    initializerRange: 0.2,
    tieWordEmbeddings: tied,
    eosTokenId: tied ? [1, 2] : 1,
    ropeTheta: 500_000,
    ropeScaling: tied ? null : scalingOf(modelType),
  });
  return createModel(config, { seed: 5, dtype });
}

for (const name of readdirSync(golden))
  await write(`loaded-${name}`, await loadModel(join(golden, name)));
for (const name of FAMILY_FOLDERS)
  await write(`loaded-${name}`, await loadModel(families.copyOf(name)));
families.remove();
for (const modelType of MODEL_TYPES)
  for (const tied of [true, false]) {
    const name = `created-${modelType}${tied ? '-tied' : ''}`;
    await write(name, newModel(modelType, 'float32', tied));
    await write(`${name}-sharded`, newModel(modelType, 'float32', tied), 20_000);
    await write(`${name}-bfloat16`, newModel(modelType, 'bfloat16', tied));
  }
