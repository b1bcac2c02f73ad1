import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createModel, makeDecoderConfig, parseDecoderConfig } from '../models/index.js';
import { hostMemory, tensor, tidy } from '../torch/index.js';
import {
  estimateMemory,
  parameterCount,
  type MemoryPlan,
  type PlannedModel,
} from './memoryEstimate.js';

const config = makeDecoderConfig({
  ...{ vocabSize: 2 ** 15, hiddenSize: 128, intermediateSize: 320, numLayers: 3 },
  ...{ numHeads: 4, numKeyValueHeads: 2, tieWordEmbeddings: true },
});
const policy: PlannedModel = { config, trained: 'all', hasLmHead: true };
const frozen: PlannedModel = { ...policy, trained: 'none' };
// Embedding 32768·128; a layer: q 128·128, k and v 64·128 each, o 128·128, two norms of 128, 3·320·128; a last norm.
const LAYER = 2 * 128 * 128 + 2 * 64 * 128 + 3 * 320 * 128;
const COUNT = 32768 * 128 + 3 * (LAYER + 2 * 128) + 128;

const plan: MemoryPlan = {
  ...{ models: [policy], passTokens: 1000, accumulates: true, rollout: null, dtype: 'float32' },
  ...{ precision: 'full', gradientCheckpointing: false },
};

/** Equal but for the rounding of the factor 1.1. */
function close(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) < 1, `${actual} instead of ${expected}`);
}

describe('parameterCount', () => {
  test('is that of the model, and leaves an output layer of its own out where there is none', () => {
    assert.equal(parameterCount(policy), COUNT);
    const model = createModel(config, { seed: 0 });
    assert.equal(
      model.parameters().reduce((sum, { numel }) => sum + numel, 0),
      COUNT,
    );
    model.dispose();
    const untied = { ...policy, config: { ...config, tieWordEmbeddings: false } };
    assert.equal(parameterCount(untied), COUNT + 32768 * 128);
    assert.equal(parameterCount({ ...untied, hasLmHead: false }), COUNT);
  });
});

describe('estimateMemory by hand', () => {
  test('weights, gradients and two moments have four bytes per parameter each', () => {
    const { parts } = estimateMemory(plan);
    assert.equal(parts.weights, 4 * COUNT);
    assert.equal(parts.gradients, 4 * COUNT);
    assert.equal(parts.optimizer, 8 * COUNT);
  });
  test('a layer keeps both inputs of its norms, and what attention and activation need', () => {
    // 2·128 of the residual stream; (2·4 + 2·2)·32 of attention; 2·320 of the feed-forward layer.
    const numbers = 256 + 384 + 640;
    close(estimateMemory(plan).parts.activations, 1.1 * 1000 * 3 * numbers * 4);
  });
  test('what was normalised is kept too by layer norms, and in float64', () => {
    const [kept, numbers] = [256 + 128 + 384 + 128 + 640, 256 + 384 + 640];
    for (const [dtype, count] of [
      ['float64', 8 * kept],
      ['bfloat16', 2 * numbers],
    ] as const) {
      const { activations } = estimateMemory({ ...plan, dtype }).parts;
      close(activations, 1.1 * 1000 * 3 * count);
    }
    const layerNorm = { ...config, norm: 'layer' } as const;
    for (const [changed, count] of [
      [layerNorm, kept],
      [config, numbers],
    ] as const)
      close(
        estimateMemory({ ...plan, models: [{ ...policy, config: changed }] }).parts.activations,
        1.1 * 1000 * 3 * count * 4,
      );
  });
  test('a layer whose weights are frozen or have biases keeps what its last product reads, too', () => {
    const layer = 256 + 384;
    const numbers = (changed: Partial<PlannedModel>): number =>
      estimateMemory({ ...plan, models: [{ ...policy, ...changed }] }).parts.activations;
    close(numbers({ trained: 5000 }), 1.1 * 1000 * 3 * (layer + 256 + 3 * 320) * 4);
    const withBias = { ...config, mlpBias: true };
    close(numbers({ config: withBias }), 1.1 * 1000 * 3 * (layer + 3 * 320) * 4);
    const plain = { ...config, gatedMlp: false };
    close(numbers({ config: plain }), 1.1 * 1000 * 3 * (layer + 2 * 320) * 4);
  });
  test('norms of heads and of outputs keep what they read', () => {
    const numbers = (changed: Partial<PlannedModel['config']>): number => {
      const models = [{ ...policy, config: { ...config, ...changed } }];
      return estimateMemory({ ...plan, models }).parts.activations;
    };
    // (4 + 2)·32 of queries and keys; 2·128 of what attention and the feed-forward layer give.
    close(numbers({ qkNorm: true }) - numbers({}), 1.1 * 1000 * 3 * 192 * 4);
    close(numbers({ outputNorms: true }) - numbers({}), 1.1 * 1000 * 3 * 256 * 4);
  });
  test('scores are the logits of 1024 tokens at most, and the gradient of the output layer', () => {
    const scores = (passTokens: number): number =>
      estimateMemory({ ...plan, passTokens }).parts.scores;
    for (const tokens of [10, 1000, 1024])
      assert.equal(scores(tokens), tokens * 32768 * 4 + 32768 * 128 * 4);
    assert.equal(scores(5000), scores(1024));
    const narrow = estimateMemory({ ...plan, dtype: 'bfloat16', passTokens: 10 }).parts.scores;
    assert.equal(narrow, 10 * 32768 * 2 + 32768 * 128 * 2);
    const capped = { ...policy, config: { ...config, logitSoftcap: 30 } };
    const { scores: fourTimes } = estimateMemory({
      ...{ ...plan, passTokens: 10 },
      models: [capped],
    }).parts;
    assert.equal(fourTimes, 4 * 10 * 32768 * 4 + 32768 * 128 * 4);
  });
  test('the total is the sum of its parts', () => {
    const { total, parts } = estimateMemory(plan);
    close(
      total,
      Object.values(parts).reduce((sum, bytes) => sum + bytes, 0),
    );
  });
  test('with gradient checkpointing a layer’s input is kept per layer, and one layer whole', () => {
    const { parts } = estimateMemory({ ...plan, gradientCheckpointing: true });
    close(parts.activations, 1.1 * 1000 * 4 * (3 * 128 + 1280));
  });
  test('mixed precision halves what products keep and adds a copy of the matrices', () => {
    const { parts } = estimateMemory({ ...plan, precision: 'bf16-mixed' });
    close(parts.activations, 1.1 * (1000 * 3 * (256 * 4 + 1024 * 2) + 3 * LAYER * 2));
    assert.equal(parts.weights, 4 * COUNT);
  });
  test('in the only pass of a step gradients take the place of activations', () => {
    const once = estimateMemory({ ...plan, accumulates: false });
    assert.equal(once.parts.gradients, 0);
    close(once.total, estimateMemory(plan).total - 4 * COUNT);
    // One token: gradients are larger than all that a pass keeps, which then is part of them.
    const short = { ...plan, passTokens: 1 };
    const { parts } = estimateMemory({ ...short, accumulates: false });
    close(
      parts.gradients + parts.activations + parts.scores,
      Math.max(4 * COUNT, parts.activations + parts.scores),
    );
  });
  test('a rollout holds packed weights, caches of keys and values and the logits that are drawn from', () => {
    const rollout = { rows: 40, tokens: 2000 };
    const { parts } = estimateMemory({ ...plan, passTokens: 0, rollout });
    assert.equal(parts.rolloutWeights, 4 * (3 * LAYER + 32768 * 128));
    assert.equal(parts.cache, 40 * 2000 * 2 * 3 * 2 * 32 * 4 + 4 * 40 * 32768 * 4);
  });
  test('an update and a rollout do not happen at the same time: the larger one counts', () => {
    const rollout = { rows: 1, tokens: 20 };
    const small = estimateMemory({ ...plan, rollout });
    assert.equal(small.total, estimateMemory(plan).total);
    assert.equal(small.parts.cache, 0);
    const large = estimateMemory({ ...plan, rollout: { rows: 256, tokens: 4000 } });
    assert.equal(large.parts.gradients, 0);
    assert.ok(large.total > small.total, 'the rollout is larger');
  });
  test('experts count as many times as a token uses them', () => {
    const experts = {
      ...{ numExperts: 8, expertsPerToken: 2, intermediateSize: 64, normalize: true },
      layers: [true, true, true],
    };
    const moe = { ...policy, config: { ...config, experts } };
    const { parts } = estimateMemory({ ...plan, models: [moe] });
    close(parts.activations, 1.1 * 1000 * 3 * (256 + 384 + 128 + 2 * 128 * 2 + 2 * 64 * 2) * 4);
  });
});

describe('estimateMemory', () => {
  test('a frozen model adds its weights and nothing else', () => {
    const alone = estimateMemory(plan);
    const both = estimateMemory({ ...plan, models: [policy, frozen] });
    close(both.total - alone.total, 4 * COUNT);
  });
  test('PPO with a value model of its own holds two optimizers, and the activations of one pass at a time', () => {
    const alone = estimateMemory(plan);
    const value: PlannedModel = { ...policy, hasLmHead: false };
    const both = estimateMemory({ ...plan, models: [policy, value] });
    close(both.total - alone.total, 16 * COUNT);
  });
  test('adapters have gradients and moments of their own size only', () => {
    const { parts } = estimateMemory({ ...plan, models: [{ ...policy, trained: 5000 }] });
    assert.deepEqual(
      [parts.weights, parts.gradients, parts.optimizer],
      [4 * COUNT + 20000, 20000, 40000],
    );
  });
  test('a model that shares the weights of another adds only what is its own', () => {
    const shared: PlannedModel = { ...frozen, sharesWeights: true };
    const { total } = estimateMemory({ ...plan, models: [policy, shared] });
    close(total, estimateMemory(plan).total);
  });
  test('a model that rests counts while it is read, in place of the update', () => {
    const resting: PlannedModel = { ...frozen, rests: true };
    const [large, small] = [
      { ...resting, config: { ...config, numLayers: 400 } },
      { ...resting, config: { ...config, numLayers: 1 } },
    ].map((model) => ({ ...plan, models: [policy, model, resting] }));
    close(estimateMemory(small as MemoryPlan).total, estimateMemory(plan).total);
    const { total, parts } = estimateMemory(large as MemoryPlan);
    const bytes = parameterCount({ ...frozen, config: { ...config, numLayers: 400 } }) * 4;
    assert.deepEqual([parts.frozen, parts.activations], [bytes, 0]);
    close(total, parts.runtime + parts.weights + parts.optimizer + parts.gradients + bytes);
    close(parts.weights, 4 * COUNT);
  });
  test('pairs are read by a model that rests while gradients are collected', () => {
    const resting = { ...frozen, rests: true, config: { ...config, numLayers: 400 } };
    const changed = { ...plan, models: [policy, resting] };
    const gradients = (more: Partial<MemoryPlan>): number =>
      estimateMemory({ ...changed, ...more }).parts.gradients;
    const rollout = { rows: 1, tokens: 10 };
    assert.equal(gradients({ rollout: null, accumulates: true }), 4 * COUNT);
    assert.equal(gradients({ rollout: null, accumulates: false }), 0);
    assert.equal(gradients({ rollout, accumulates: true }), 0);
    // Online DPO samples, and reads its reference beside the policy.
    const online = { rollout, readsBetweenPasses: true };
    assert.equal(gradients({ ...online, accumulates: true }), 4 * COUNT);
    assert.equal(gradients({ ...online, accumulates: false }), 0);
  });
  test('an output layer in float32 has logits, a copy and a gradient in float32, where weights are narrower', () => {
    const scores = (more: Partial<MemoryPlan>): number =>
      estimateMemory({ ...plan, float32Head: true, ...more }).parts.scores;
    assert.equal(scores({ dtype: 'bfloat16' }), (1000 * 32768 + 2 * 32768 * 128) * 4);
    assert.equal(scores({}), estimateMemory(plan).parts.scores);
  });
  test('bfloat16 halves weights, gradients, moments and logits', () => {
    const { parts } = estimateMemory({ ...plan, dtype: 'bfloat16' });
    const wide = estimateMemory(plan).parts;
    for (const name of ['weights', 'gradients', 'optimizer', 'scores'] as const)
      close(parts[name], wide[name] / 2);
  });
  test('a copy to sample with has the dtype that is computed in', () => {
    const rollout = { rows: 4, tokens: 100 };
    const bytes = (changed: Partial<MemoryPlan>): number =>
      estimateMemory({ ...plan, passTokens: 0, rollout, ...changed }).parts.rolloutWeights;
    assert.equal(bytes({ dtype: 'bfloat16' }), bytes({ dtype: 'float32' }) / 2);
    assert.equal(bytes({ precision: 'bf16-mixed' }), bytes({ dtype: 'bfloat16' }));
    assert.ok(bytes({ dtype: 'bfloat16' }) > 0);
  });
});

describe('what layers keep on the CPU', () => {
  const sizes = {
    ...{ vocab_size: 64, hidden_size: 256, intermediate_size: 768, num_hidden_layers: 4 },
    ...{ num_attention_heads: 8, num_key_value_heads: 4, max_position_embeddings: 512 },
  };
  const gemma = { sliding_window: 512, query_pre_attn_scalar: 32 };
  const families: Record<string, Record<string, unknown>> = {
    llama: sizes,
    qwen3: { ...sizes, head_dim: 32 },
    gemma3_text: { ...sizes, ...gemma, head_dim: 32, layer_types: Array(4).fill('full_attention') },
    phi3: { ...sizes, pad_token_id: 0 },
    gpt2: { vocab_size: 64, n_embd: 256, n_layer: 4, n_head: 8, n_positions: 512 },
    qwen3_moe: {
      ...{ ...sizes, head_dim: 32, num_experts: 8, num_experts_per_tok: 4 },
      ...{ moe_intermediate_size: 768, norm_topk_prob: true },
    },
  };
  for (const [family, raw] of Object.entries(families))
    test(`of ${family} is within a tenth of the estimate`, () => {
      const own = parseDecoderConfig({ model_type: family, ...raw });
      const model = createModel(own, { seed: 0 });
      tidy(() => {
        const ids = Array.from({ length: 4 }, (_, row) =>
          Array.from({ length: 512 }, (__, at) => (at * 7 + row) % 64),
        );
        const inputIds = tensor(ids, { dtype: 'int64' });
        const before = hostMemory().bytesInUse;
        model.hiddenStates({ inputIds });
        const kept = hostMemory().bytesInUse - before;
        const models = [{ config: own, trained: 'all', hasLmHead: true } as const];
        const { activations } = estimateMemory({ ...plan, models, passTokens: 2048 }).parts;
        assert.ok(Math.abs(kept / activations - 1) < 0.1, `${kept} of ${activations}`);
      });
      model.dispose();
    });
});
