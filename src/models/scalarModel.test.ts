import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import {
  memory,
  noGrad,
  readSafetensors,
  tensor,
  zeros,
  writeSafetensors,
  type Tensor,
} from '../torch/index.js';
import {
  createModel,
  createScalarHead,
  createScalarModel,
  loadModel,
  loadScalarModel,
  makeDecoderConfig,
  sequenceScores,
  tokenValues,
  type DecoderConfig,
  type ModelType,
} from './index.js';

const GOLDEN = join(ROOT, 'test/golden/scalarModels');
const CAUSAL = join(ROOT, 'test/golden/models');
const root = mkdtempSync(join(tmpdir(), 'posttrain-scalar-'));
after(() => rmSync(root, { recursive: true }));

interface Case {
  readonly inputIds: number[][];
  readonly attentionMask: number[][];
  readonly scores: number[];
}

interface Expected {
  readonly lengths: number[];
  readonly cases: Record<'left' | 'right', Case>;
  /** Per row, the head at every position. */
  readonly values: number[][];
}

const json = (path: string): Record<string, unknown> =>
  JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
const expectedOf = (name: string): Expected =>
  json(join(GOLDEN, name, 'expected.json')) as unknown as Expected;
const ids = (rows: readonly (readonly number[])[]): Tensor =>
  tensor(
    rows.map((row) => [...row]),
    { dtype: 'int64' },
  );

const names = readdirSync(GOLDEN).sort();
const TOLERANCE = { atol: 1e-5, rtol: 1e-6 };

function small(modelType: ModelType, tieWordEmbeddings: boolean): DecoderConfig {
  return makeDecoderConfig({
    modelType,
    vocabSize: 20,
    hiddenSize: 16,
    intermediateSize: 12,
    numLayers: 2,
    numHeads: 2,
    initializerRange: 0.3,
    tieWordEmbeddings,
    eosTokenId: 1,
    padTokenId: 2,
  });
}

describe('loadScalarModel agrees with transformers', () => {
  test('checkpoints of three families are there', () => {
    assert.deepEqual(names, ['llama-tied', 'qwen2', 'qwen3-bfloat16']);
  });
  for (const name of names) {
    const { lengths, cases, values } = expectedOf(name);
    test(`${name}: scores at the last token, found by length`, async () => {
      const model = await loadScalarModel(join(GOLDEN, name));
      const scores = sequenceScores(model, { inputIds: ids(cases.right.inputIds), lengths });
      expectClose(scores, cases.right.scores, TOLERANCE);
      model.dispose();
    });
    test(`${name}: padding at the left gives the scores of padding at the right`, async () => {
      const model = await loadScalarModel(join(GOLDEN, name));
      const { inputIds, attentionMask, scores } = cases.left;
      const { values: all } = model.forward({
        inputIds: ids(inputIds),
        attentionMask: ids(attentionMask),
      });
      expectClose(all.select(1, -1), scores, TOLERANCE);
      expectClose(scores, cases.right.scores, TOLERANCE);
      model.dispose();
    });
    test(`${name}: the value before token t is the head one position earlier`, async () => {
      const model = await loadScalarModel(join(GOLDEN, name));
      const promptLengths = [4, 1, 4];
      const { values: actual, mask } = tokenValues(model, {
        inputIds: ids(cases.right.inputIds),
        promptLengths,
        lengths,
      });
      const hand = values.map((row, index) => {
        const states = row.slice((promptLengths[index] ?? 0) - 1, -1);
        return [...states, ...Array<number>(7 - states.length).fill(0)];
      });
      expectClose(actual, hand, TOLERANCE);
      assert.deepEqual(mask.sum(1).toArray(), [7, 6, 0]);
      model.dispose();
    });
    test(`${name}: what transformers saved is saved again, byte by byte`, async () => {
      const folder = join(root, name);
      const dtype = name.includes('bfloat16') ? 'bfloat16' : 'float32';
      const model = await loadScalarModel(join(GOLDEN, name), { dtype });
      await model.save(folder);
      assert.deepEqual(json(join(folder, 'config.json')), json(join(GOLDEN, name, 'config.json')));
      assert.deepEqual(
        readFileSync(join(folder, 'model.safetensors')),
        readFileSync(join(GOLDEN, name, 'model.safetensors')),
      );
    });
  }
});

describe('createScalarModel', () => {
  for (const tied of [true, false])
    test(`${tied ? 'a tied' : 'an untied'} trunk: saved, loaded, the same scores bit for bit`, async () => {
      const folder = join(root, `created-${tied}`);
      const config = small('qwen3', tied);
      const model = createScalarModel(createModel(config, { seed: 4 }), { seed: 5, std: 0.2 });
      await model.save(folder, { maxShardBytes: 4000 });
      const files = readdirSync(folder).filter((file) => file.endsWith('.safetensors'));
      assert.ok(files.length > 1);
      const written = readSafetensors(files.map((file) => join(folder, file)));
      assert.ok(!written.has('lm_head.weight'));
      assert.deepEqual([...written.names].sort(), [...model.namedParameters().keys()].sort());
      assert.deepEqual(written.shapeOf('score.weight'), [1, 16]);
      const raw = json(join(folder, 'config.json'));
      assert.deepEqual(raw['architectures'], ['Qwen3ForSequenceClassification']);
      assert.deepEqual(raw['id2label'], { 0: 'LABEL_0' });
      assert.deepEqual(raw['label2id'], { LABEL_0: 0 });
      assert.equal(raw['tie_word_embeddings'], tied);
      const again = await loadScalarModel(folder);
      const rows = { inputIds: ids([[5, 1, 7, 3]]), lengths: [4] };
      const score = sequenceScores(model, rows);
      assert.notEqual(score.item(), 0);
      assert.ok(sequenceScores(again, rows).equal(score));
    });
  test('the end tokens of generation_config.json stay, created, saved and loaded', async () => {
    const folder = join(root, 'generation');
    await createModel(small('llama', false), { seed: 4 }).save(folder);
    const generation = { eos_token_id: [1, 7], temperature: 0.6 };
    writeFileSync(join(folder, 'generation_config.json'), JSON.stringify(generation));
    const model = createScalarModel(await loadModel(folder));
    assert.deepEqual(model.config.eosTokenIds, [1, 7]);
    const saved = join(root, 'generation-saved');
    await model.save(saved);
    const again = await loadScalarModel(saved);
    assert.deepEqual(again.config.eosTokenIds, [1, 7]);
    await again.save(saved);
    assert.deepEqual(json(join(saved, 'generation_config.json')), generation);
  });
  test('the trunk is the given one without its output layer', () => {
    const config = small('llama', false);
    const causal = createModel(config, { seed: 4 });
    const expected = new Map(createModel(config, { seed: 4 }).namedParameters());
    const model = createScalarModel(causal);
    expected.delete('lm_head.weight');
    assert.deepEqual([...model.namedParameters().keys()], [...expected.keys(), 'score.weight']);
    for (const [name, weight] of expected)
      assert.ok(model.namedParameters().get(name)?.equal(weight), name);
    assert.equal(model.parameters().length, expected.size + 1);
    assert.equal(model.dtype, 'float32');
    assert.equal(model.device, 'cpu');
    assert.equal(model.config.hiddenSize, 16);
  });
  test('values begin at 0 for every state; the head learns first', () => {
    const model = createScalarModel(createModel(small('llama', true), { seed: 4 }));
    const { values } = model.forward({ inputIds: ids([[5, 1, 7]]) });
    assert.deepEqual(values.toArray(), [[0, 0, 0]]);
    values.sub(1).square().sum().backward();
    for (const [name, { grad }] of model.namedParameters())
      assert.equal(grad?.abs().sum().item() !== 0, name === 'score.weight', name);
  });
  test('a random head is that of its seed, in every dtype, with the asked standard deviation', () => {
    const config = makeDecoderConfig({
      vocabSize: 4,
      hiddenSize: 4096,
      intermediateSize: 2,
      numLayers: 1,
      numHeads: 2048,
    });
    const like = { config, dtype: 'float32', device: 'cpu' } as const;
    const { weight, bias } = createScalarHead(like, { seed: 1, std: 0.05 });
    assert.equal(bias, null);
    const wide = createScalarHead({ ...like, dtype: 'float64' }, { seed: 1, std: 0.05 });
    expectClose(wide.weight, weight, { rtol: 1e-6 });
    assert.ok(!createScalarHead(like, { seed: 2, std: 0.05 }).weight.equal(weight));
    // 4,096 draws: off by more than five standard errors once in a million.
    assert.ok(Math.abs(weight.mean().item()) < (5 * 0.05) / Math.sqrt(4096));
    assert.ok(Math.abs(weight.std().item() - 0.05) < (5 * 0.05) / Math.sqrt(2 * 4096));
  });
  test('the head’s product is float32 in a bfloat16 model', () => {
    const trunk = createModel(small('llama', true), { seed: 4, dtype: 'bfloat16' });
    const model = createScalarModel(trunk, { std: 1 });
    assert.equal(model.head.weight.dtype, 'bfloat16');
    const inputIds = ids([[5, 1, 7]]);
    const { values } = model.forward({ inputIds });
    const states = model.trunk.hiddenStates({ inputIds }).to('float64');
    const exact = states.matmul(model.head.weight.to('float64').transpose(0, 1)).squeeze(-1);
    assert.equal(values.dtype, 'float32');
    expectClose(values, exact, { rtol: 1e-5, atol: 1e-6 });
    values.sum().backward();
    assert.equal(model.head.weight.grad?.dtype, 'bfloat16');
  });
  test('freezing and disposing reach trunk and head', () => {
    const before = memory().liveTensors;
    for (const tied of [true, false]) {
      const model = createScalarModel(createModel(small('llama', tied), { seed: 4 }));
      model.freeze();
      assert.ok(model.parameters().every(({ requiresGrad }) => !requiresGrad));
      assert.ok(!model.head.weight.requiresGrad);
      assert.ok(!model.trunk.embedTokens.weight.requiresGrad);
      model.dispose();
      assert.equal(memory().liveTensors, before);
    }
  });
  test('rejects a standard deviation of 0', () => {
    assert.throws(
      () => createScalarHead(createModel(small('llama', true), { seed: 4 }), { std: 0 }),
      {
        message: 'createScalarHead: expected std to be a positive number, received 0.',
      },
    );
  });
});

describe('loadScalarModel rejects', () => {
  async function rejected(folder: string, message: RegExp, hint?: RegExp): Promise<void> {
    await assert.rejects(
      loadScalarModel(folder),
      (error: Error & { code?: string; hint?: string }) => {
        assert.equal(error.code, 'E_CHECKPOINT');
        assert.match(error.message, message);
        if (hint) assert.match(error.hint ?? '', hint);
        return true;
      },
    );
  }
  /** A scalar folder whose tensors were changed. */
  async function changed(
    name: string,
    change: (tensors: Map<string, Tensor>) => void,
  ): Promise<string> {
    const folder = join(root, `changed-${name}`);
    const model = createScalarModel(createModel(small('llama', true), { seed: 4 }));
    await model.save(folder);
    const tensors = new Map(model.namedParameters());
    noGrad(() => change(tensors));
    await writeSafetensors(join(folder, 'model.safetensors'), tensors);
    return folder;
  }
  test('a language model, and says how to put a head on it', async () => {
    await rejected(
      join(CAUSAL, 'llama-tied'),
      /^loadScalarModel: expected a scalar head in .*, there is no tensor score\.weight\.$/,
      /createScalarModel\(await loadModel\(folder\)\)/,
    );
  });
  test('what is no model folder', async () => {
    await rejected(
      join(root, 'nowhere'),
      /^loadScalarModel: expected a model folder, but .* does not exist\.$/,
    );
    writeFileSync(join(root, 'config.json'), '{}');
    await rejected(root, /expected model_type to be one of/);
  });
  test('missing, surplus and misshapen tensors, all at once', async () => {
    const folder = await changed('tensors', (tensors) => {
      tensors.delete('model.norm.weight');
      tensors.set('score.bias', zeros([1]));
      tensors.set('score.weight', zeros([2, 16]));
    });
    await rejected(
      folder,
      /^loadScalarModel: the tensors in .* do not fit: 1 missing: model\.norm\.weight; 1 not part of this model: score\.bias; 1 of another shape than config\.json says: score\.weight \[2, 16\] instead of \[1, 16\]\.$/,
    );
  });
  test('an output layer beside the head', async () => {
    const folder = await changed('output', (tensors) => {
      tensors.set('lm_head.weight', zeros([20, 16]));
    });
    await rejected(folder, /1 not part of this model: lm_head\.weight\.$/);
  });
  test('and loadModel points from a scalar folder to it', async () => {
    await assert.rejects(loadModel(join(GOLDEN, 'qwen2')), {
      hint: 'This is a reward or value model: a language model is expected here. In code, loadScalarModel opens it.',
    });
  });
});
