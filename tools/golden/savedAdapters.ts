/**
 * Writes adapters as posttrain saves them, each with ours.json: token ids and what posttrain computes with the adapter.
 * tools/golden/checkSavedAdapters.py opens them with PEFT and compares.
 *
 *     npx tsx tools/golden/savedAdapters.ts /tmp/adapters && python tools/golden/checkSavedAdapters.py /tmp/adapters
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  addLora,
  createModel,
  createScalarModel,
  createStepModel,
  loadModel,
  makeDecoderConfig,
  type Decoder,
  type LoraOptions,
} from '../../src/models/index.js';
import { Generator, noGrad, randn, tensor, tidy, type Tensor } from '../../src/torch/index.js';

const [out = '/tmp/adapters'] = process.argv.slice(2);
const golden = join(import.meta.dirname, '../../test/golden');

const inputIds = [
  [5, 1, 7, 3, 11, 12, 9, 4],
  [11, 8, 10, 6, 4, 2, 9, 3],
];
const PLAIN: LoraOptions = {
  ...{ rank: 3, alpha: 5, dropout: 0, rsLora: false, dora: false },
  ...{ targetModules: 'all-linear', modulesToSave: [] },
};

/** Takes every trained number away from where it begins: B would be zero. */
function disturb(parameters: ReadonlyMap<string, Tensor>): void {
  const generator = new Generator(11);
  noGrad(() =>
    tidy(() => {
      for (const [name, parameter] of parameters) {
        const scale = name.includes('magnitude') || name.includes('norm') ? 0.02 : 0.1;
        const noise = randn(parameter.shape, { generator }).mul(scale);
        parameter.add_(noise.to({ dtype: parameter.dtype }));
      }
    }),
  );
}

interface Adapted {
  trainedParameters(): ReadonlyMap<string, Tensor>;
  save(folder: string): Promise<void>;
  dispose(): void;
}

async function write<Model extends Adapted>(
  name: string,
  model: Model,
  outputsOf: (model: Model, inputIds: Tensor) => Tensor,
): Promise<void> {
  disturb(model.trainedParameters());
  const folder = join(out, name);
  await model.save(folder);
  const outputs = tidy(() =>
    noGrad(() => outputsOf(model, tensor(inputIds, { dtype: 'int64' })).toArray()),
  );
  writeFileSync(join(folder, 'ours.json'), JSON.stringify({ inputIds, outputs }));
  model.dispose();
}

async function adapted(base: string, options: Partial<LoraOptions> = {}): Promise<Decoder> {
  const model = await loadModel(base);
  addLora(model, { ...PLAIN, ...options, seed: 3, baseModel: base });
  return model;
}

const logits = (model: Decoder, ids: Tensor): Tensor => model.forward({ inputIds: ids }).logits;

const bases = ['models', 'families']
  .map((folder) => join(golden, folder))
  .filter((folder) => existsSync(folder))
  .flatMap((folder) => readdirSync(folder).map((name) => ({ name, base: join(folder, name) })))
  // Some families have their weights in the folder of another.
  .filter(({ base }) => readdirSync(base).some((file) => file.endsWith('.safetensors')));

for (const { name, base } of bases) {
  // PEFT leaves out the layers without experts of a mixture, and has no DoRA on experts.
  const attention = ['q_proj', 'k_proj', 'v_proj', 'o_proj'];
  const targets = name.includes('moe') ? { targetModules: attention } : {};
  await write(`lora-${name}`, await adapted(base, targets), logits);
  await write(
    `dora-${name}`,
    await adapted(base, { ...targets, dora: true, rsLora: true }),
    logits,
  );
}
const mixture = `${out}-mixture`;
await createModel(
  makeDecoderConfig({
    ...{ modelType: 'qwen3_moe', vocabSize: 64, hiddenSize: 16, intermediateSize: 24 },
    ...{ numLayers: 2, numHeads: 4, numKeyValueHeads: 2, initializerRange: 0.2 },
  }),
  { seed: 5 },
).save(mixture);
await write('lora-experts', await adapted(mixture), logits);
const qwen2 = join(golden, 'models/qwen2');
await write('saved-layers', await adapted(qwen2, { modulesToSave: ['lm_head', 'norm'] }), logits);
await write('head', await adapted(qwen2, { targetModules: ['lm_head', 'q_proj'] }), logits);
await write(
  'scalar',
  createScalarModel(await adapted(qwen2, { dora: true }), { seed: 6, std: 0.2 }),
  (model, ids) => model.forward({ inputIds: ids }).values.unsqueeze(-1),
);
await write(
  'steps',
  createStepModel(await adapted(qwen2), { seed: 6, std: 0.2 }),
  (model, ids) => model.forward({ inputIds: ids }).logits,
);
