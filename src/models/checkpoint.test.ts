import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { memory, readSafetensors, tensor, writeSafetensors, type Tensor } from '../torch/index.js';
import { loadModel } from './index.js';

const GOLDEN = join(ROOT, 'test/golden/models');
const root = mkdtempSync(join(tmpdir(), 'posttrain-checkpoint-'));
after(() => rmSync(root, { recursive: true }));

let copies = 0;
function copyOf(name: string): string {
  const folder = join(root, `${name}-${copies++}`);
  cpSync(join(GOLDEN, name), folder, { recursive: true });
  return folder;
}

/** A copy of a golden model with other tensors in its file. */
async function withTensors(
  name: string,
  change: (tensors: Map<string, Tensor>) => void,
): Promise<string> {
  const folder = copyOf(name);
  const path = join(folder, 'model.safetensors');
  const file = readSafetensors(path);
  const tensors = new Map(file.names.map((tensorName) => [tensorName, file.tensor(tensorName)]));
  change(tensors);
  await writeSafetensors(path, tensors);
  return folder;
}

const fails = (folder: string, message: string | RegExp): Promise<void> =>
  assert.rejects(loadModel(folder), { code: 'E_CHECKPOINT', message });

const EMBEDDING = 'model.embed_tokens.weight';

describe('tensors that do not fit are all named at once', () => {
  test('missing, left over and of another shape', async () => {
    const folder = await withTensors('llama-tied', (tensors) => {
      tensors.delete('model.norm.weight');
      tensors.delete('model.layers.1.mlp.up_proj.weight');
      tensors.set('model.layers.0.self_attn.q_proj.bias', tensor([1]));
      tensors.set('model.layers.0.input_layernorm.weight', tensor([1, 2]));
    });
    await fails(
      folder,
      `loadModel: the tensors in ${folder} do not fit: ` +
        '2 missing: model.layers.1.mlp.up_proj.weight, model.norm.weight; ' +
        '1 not part of this model: model.layers.0.self_attn.q_proj.bias; ' +
        '1 of another shape than config.json says: model.layers.0.input_layernorm.weight [2] instead of [48].',
    );
  });
  test('an untied model without its output layer', async () => {
    const folder = await withTensors('qwen2', (tensors) => tensors.delete('lm_head.weight'));
    await fails(folder, /do not fit: 1 missing: lm_head.weight\.$/);
  });
  test('a tied model may carry its output layer if it is the embedding, and old rotary buffers', async () => {
    const folder = await withTensors('llama-tied', (tensors) => {
      const embedding = tensors.get(EMBEDDING);
      assert.ok(embedding);
      tensors.set('lm_head.weight', embedding.clone());
      tensors.set('model.layers.0.self_attn.rotary_emb.inv_freq', tensor([1]));
    });
    const model = await loadModel(folder);
    assert.ok(!model.namedParameters().has('lm_head.weight'));
  });
  test('a tied model with another output layer is refused', async () => {
    const folder = await withTensors('llama-tied', (tensors) => {
      const embedding = tensors.get(EMBEDDING);
      assert.ok(embedding);
      tensors.set('lm_head.weight', embedding.mul(2));
    });
    await fails(folder, /1 not part of this model: lm_head.weight/);
  });
  test('nothing stays in memory after a failure', async () => {
    const folder = await withTensors('qwen2', (tensors) => tensors.delete('lm_head.weight'));
    const before = memory().liveTensors;
    await fails(folder, /missing/);
    assert.equal(memory().liveTensors, before);
  });
});

describe('shards', () => {
  const INDEX = 'model.safetensors.index.json';
  const setIndex = (folder: string, index: unknown): void =>
    writeFileSync(join(folder, INDEX), JSON.stringify(index));

  test('one that is missing is named', async () => {
    const folder = copyOf('qwen2-sharded');
    rmSync(join(folder, 'model-00002-of-00003.safetensors'));
    await fails(
      folder,
      `${join(folder, INDEX)}: expected the shards model-00002-of-00003.safetensors beside it, they are not there.`,
    );
  });
  test('one that is cut short is named', async () => {
    const folder = copyOf('qwen2-sharded');
    const path = join(folder, 'model-00002-of-00003.safetensors');
    writeFileSync(path, readFileSync(path).subarray(0, -100));
    await fails(folder, new RegExp(`${path} is not a valid safetensors file`));
  });
  test('an index cannot point out of the folder', async () => {
    const folder = copyOf('qwen2-sharded');
    for (const shard of ['../secret.safetensors', '/etc/passwd', 'model.bin', 3]) {
      setIndex(folder, { weight_map: { w: shard } });
      await fails(
        folder,
        `${join(folder, INDEX)}: expected the name of a .safetensors file for w, received ${JSON.stringify(shard)}.`,
      );
    }
  });
  test('an index without a map is refused', async () => {
    const folder = copyOf('qwen2-sharded');
    setIndex(folder, { weight_map: [] });
    await fails(folder, `${join(folder, INDEX)}: expected weight_map to be an object.`);
  });
});

describe('what is no model folder', () => {
  test('a path that is not there, a file, and a folder without config.json', async () => {
    await fails('/no/such/folder', /but \/no\/such\/folder does not exist/);
    await fails(join(GOLDEN, 'qwen2/config.json'), /is a file/);
    await fails(root, /expected a config.json/);
  });
  test('weights as pickles are refused with advice', async () => {
    const folder = copyOf('qwen2');
    rmSync(join(folder, 'model.safetensors'));
    await fails(folder, /there is neither/);
    writeFileSync(join(folder, 'pytorch_model.bin'), '');
    await assert.rejects(loadModel(folder), {
      code: 'E_CHECKPOINT',
      message: /found pytorch_model.bin, which can run code/,
      hint: /save_pretrained/,
    });
  });
  test('a config.json that is damaged or of another family names its path', async () => {
    const folder = join(root, 'other');
    mkdirSync(folder);
    const path = join(folder, 'config.json');
    writeFileSync(path, '{"model_type": "mamba"}');
    await fails(
      folder,
      `${path}: expected model_type to be one of llama, mistral, qwen2, qwen3, qwen3_moe, gemma2, gemma3_text, phi3, gpt2, received "mamba".`,
    );
    writeFileSync(path, '{"model_type"');
    await fails(folder, /config.json: expected JSON/);
  });
});
