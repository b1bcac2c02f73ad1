import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { Mlp } from '../nn/index.js';
import { noGrad, readSafetensors, tensor, type Tensor } from '../torch/index.js';
import {
  createModel,
  loadModel,
  makeDecoderConfig,
  parseDecoderConfig,
  readGenerationConfig,
  type Decoder,
} from './index.js';

const GOLDEN = join(ROOT, 'test/golden/models');
const root = mkdtempSync(join(tmpdir(), 'posttrain-models-'));
after(() => rmSync(root, { recursive: true }));

const json = (path: string): Record<string, unknown> =>
  JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;

function logitsOf(model: Decoder): Tensor {
  const inputIds = tensor([[5, 1, 7, 3]], { dtype: 'int64' });
  return noGrad(() => model.forward({ inputIds }).logits);
}

const isWeights = (name: string): boolean => name.includes('safetensors');

const small = makeDecoderConfig({
  modelType: 'qwen3',
  vocabSize: 20,
  hiddenSize: 8,
  intermediateSize: 12,
  numLayers: 2,
  numHeads: 2,
  headDim: 6,
  tieWordEmbeddings: true,
  ropeScaling: { type: 'linear', factor: 2 },
  bosTokenId: 3,
  eosTokenId: [1, 2],
});

describe('save', () => {
  for (const name of readdirSync(GOLDEN).sort()) {
    test(`${name}: what transformers saved is saved again, tensor by tensor`, async () => {
      const folder = join(root, name);
      const dtype = name.includes('bfloat16') ? 'bfloat16' : 'float32';
      const model = await loadModel(join(GOLDEN, name), { dtype });
      await model.save(folder);
      const files = readdirSync(join(GOLDEN, name)).filter((file) => file.endsWith('.safetensors'));
      const theirs = readSafetensors(files.map((file) => join(GOLDEN, name, file)));
      const ours = readSafetensors(join(folder, 'model.safetensors'));
      assert.deepEqual([...ours.names].sort(), [...theirs.names].sort());
      for (const tensorName of ours.names) {
        assert.equal(ours.dtypeOf(tensorName), dtype);
        assert.ok(ours.tensor(tensorName).equal(theirs.tensor(tensorName)), tensorName);
      }
      if (files.length === 1)
        assert.deepEqual(
          readFileSync(join(folder, 'model.safetensors')),
          readFileSync(join(GOLDEN, name, 'model.safetensors')),
        );
      for (const file of ['config.json', 'generation_config.json'])
        assert.deepEqual(json(join(folder, file)), json(join(GOLDEN, name, file)));
    });
    test(`${name}: reloading gives the same logits bit for bit`, async () => {
      const folder = join(root, `${name}-again`);
      const model = await loadModel(join(GOLDEN, name));
      await model.save(folder);
      const again = await loadModel(folder);
      assert.ok(logitsOf(again).equal(logitsOf(model)));
    });
  }
  test('shards and their index hold every tensor once, and load to the same model', async () => {
    const folder = join(root, 'shards');
    const model = createModel(small, { seed: 1 });
    await model.save(folder, { maxShardBytes: 2500 });
    const names = readdirSync(folder).filter(isWeights).sort();
    assert.ok(names.length > 3, names.join());
    assert.equal(names.at(0), `model-00001-of-0000${names.length - 1}.safetensors`);
    const index = json(join(folder, 'model.safetensors.index.json'));
    const map = index['weight_map'] as Record<string, string>;
    assert.deepEqual(Object.keys(map).sort(), [...model.namedParameters().keys()].sort());
    for (const [tensorName, file] of Object.entries(map))
      assert.ok(readSafetensors(join(folder, file)).has(tensorName));
    const bytes = model.parameters().reduce((sum, { numel }) => sum + 4 * numel, 0);
    assert.deepEqual(index['metadata'], { total_parameters: bytes / 4, total_size: bytes });
    assert.ok(logitsOf(await loadModel(folder)).equal(logitsOf(model)));
  });
  test('an earlier save in the same folder leaves nothing behind', async () => {
    const folder = join(root, 'overwritten');
    const model = createModel(small, { seed: 1 });
    await model.save(folder, { maxShardBytes: 2500 });
    const loaded = await loadModel(folder);
    await loaded.save(folder);
    assert.deepEqual(readdirSync(folder).sort(), [
      'config.json',
      'generation_config.json',
      'model.safetensors',
    ]);
    // The shards that it was loaded from are gone.
    assert.ok(logitsOf(loaded).equal(logitsOf(model)));
    await loaded.save(folder, { maxShardBytes: 2500 });
    assert.ok(!readdirSync(folder).includes('model.safetensors'));
    assert.ok(logitsOf(await loadModel(folder)).equal(logitsOf(model)));
  });
  test('other files of the folder stay', async () => {
    const folder = join(root, 'company');
    const model = createModel(small, { seed: 1 });
    await model.save(folder);
    for (const name of ['tokenizer.json', 'optimizer.safetensors', 'notes.txt'])
      writeFileSync(join(folder, name), 'x');
    await model.save(folder);
    assert.equal(readdirSync(folder).length, 6);
  });
  test('the configuration names the dtype that was saved', async () => {
    const folder = join(root, 'dtype');
    const model = await loadModel(join(GOLDEN, 'qwen3-bfloat16'));
    await model.save(folder);
    assert.equal(json(join(folder, 'config.json'))['dtype'], 'float32');
    await createModel(small, { seed: 1, dtype: 'bfloat16' }).save(folder);
    assert.equal(json(join(folder, 'config.json'))['torch_dtype'], 'bfloat16');
  });
  test('a created model reads its own configuration again', async () => {
    const folder = join(root, 'created');
    await createModel(small, { seed: 1 }).save(folder);
    const { raw, ...read } = parseDecoderConfig(json(join(folder, 'config.json')));
    const { raw: _, ...made } = small;
    assert.deepEqual(read, made);
    assert.deepEqual(raw, small.raw);
    const generation = readGenerationConfig(folder);
    assert.deepEqual(generation?.eosTokenIds, [1, 2]);
    assert.equal(generation.bosTokenId, 3);
    assert.equal(generation.padTokenId, null);
    assert.equal(generation.temperature, null);
  });
  test('a folder that cannot be made is an IoError with its path', async () => {
    const blocked = join(root, 'file');
    writeFileSync(blocked, '');
    chmodSync(blocked, 0o444);
    await assert.rejects(createModel(small, { seed: 1 }).save(join(blocked, 'model')), (error) => {
      assert.ok(error instanceof Error && 'code' in error);
      assert.equal(error.code, 'E_IO');
      assert.match(error.message, /file\/model cannot be created/);
      return true;
    });
    await assert.rejects(createModel(small, { seed: 1 }).save(blocked), { code: 'E_IO' });
  });
  test(
    'a folder below /proc, where none can be made, is refused at once',
    { timeout: 20_000 },
    async () => {
      await assert.rejects(createModel(small, { seed: 1 }).save('/proc/posttrain/model'), {
        code: 'E_IO',
        message: /^save: \/proc\/posttrain\/model cannot be created: /,
      });
    },
  );
});

describe('createModel', () => {
  test('weights are those of the seed, in every dtype', () => {
    const first = createModel(small, { seed: 1 });
    const again = createModel(small, { seed: 1 });
    const other = createModel(small, { seed: 2 });
    const wide = createModel(small, { seed: 1, dtype: 'float64' });
    for (const [name, weight] of first.namedParameters()) {
      assert.ok(again.namedParameters().get(name)?.equal(weight));
      assert.ok(wide.namedParameters().get(name)?.to('float32').equal(weight));
      if (!name.includes('norm')) assert.ok(!other.namedParameters().get(name)?.equal(weight));
    }
  });
  test('no two tensors are drawn from the same stream', () => {
    const { attention, mlp } = createModel(small, { seed: 1 }).layers[0] ?? {};
    assert.ok(attention && mlp instanceof Mlp, 'a llama has one feed-forward layer');
    const [, k, v] = attention.projections;
    const [gate, up] = mlp.inputs;
    assert.ok(k && v && !k.weight.equal(v.weight), 'keys and values');
    assert.ok(gate && up && !gate.weight.equal(up.weight), 'gate and up');
  });
  test('norms are ones, biases zeros, the rest normal with the range of the configuration', () => {
    const config = makeDecoderConfig({
      modelType: 'qwen2',
      vocabSize: 200,
      hiddenSize: 64,
      intermediateSize: 64,
      numLayers: 1,
      numHeads: 2,
      initializerRange: 0.05,
    });
    for (const [name, weight] of createModel(config, { seed: 4 }).namedParameters()) {
      const values = [...weight.toTypedArray()];
      if (name.includes('norm')) assert.ok(values.every((value) => value === 1));
      else if (name.endsWith('bias')) assert.ok(values.every((value) => value === 0));
      else {
        // 4,096 values and more: the estimates are off by more than five standard errors once in a million.
        const count = values.length;
        const mean = values.reduce((sum, value) => sum + value, 0) / count;
        const std = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count);
        assert.ok(Math.abs(mean) < (5 * 0.05) / Math.sqrt(count), name);
        assert.ok(Math.abs(std - 0.05) < (5 * 0.05) / Math.sqrt(2 * count), name);
      }
    }
  });
  test('a tied output layer is the embedding itself', () => {
    const model = createModel(small, { seed: 1 });
    assert.equal(model.outputWeight(), model.embedTokens.weight);
    assert.ok(!model.namedParameters().has('lm_head.weight'));
  });
});
