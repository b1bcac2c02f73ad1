import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { makeDecoderConfig, MODEL_TYPES, parseDecoderConfig, type DecoderConfig } from './index.js';

const SIZES = {
  vocab_size: 100,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
};
const parse = (model_type: string, fields: object = {}): DecoderConfig =>
  parseDecoderConfig({ ...SIZES, model_type, ...fields });
const refused = (model_type: string, fields: object, message: RegExp): void =>
  assert.throws(() => parse(model_type, fields), { code: 'E_CHECKPOINT', message });

describe('which layers slide', () => {
  const windowOf = (model_type: string, fields: object = {}): unknown[] => {
    const { slidingWindow, layerKinds } = parse(model_type, fields);
    return [slidingWindow, layerKinds.map((kind) => kind[0]).join('')];
  };
  test('Mistral: all, unless the window is null', () => {
    assert.deepEqual(windowOf('mistral'), [4096, 'ssss']);
    assert.deepEqual(windowOf('mistral', { sliding_window: 7 }), [7, 'ssss']);
    assert.deepEqual(windowOf('mistral', { sliding_window: null }), [null, 'ffff']);
  });
  test('Phi-3: all where there is a window', () => {
    assert.deepEqual(windowOf('phi3'), [null, 'ffff']);
    assert.deepEqual(windowOf('phi3', { sliding_window: 7 }), [7, 'ssss']);
  });
  test('Qwen: from max_window_layers on, or as layer_types says, where use_sliding_window', () => {
    const on = { use_sliding_window: true, sliding_window: 7 };
    assert.deepEqual(windowOf('qwen2', { sliding_window: 7, max_window_layers: 0 }), [
      null,
      'ffff',
    ]);
    assert.deepEqual(windowOf('qwen2', { ...on, max_window_layers: 3 }), [7, 'fffs']);
    assert.deepEqual(windowOf('qwen2', { ...on, max_window_layers: 0 }), [7, 'ssss']);
    assert.deepEqual(windowOf('qwen2', on), [7, 'ffff']);
    const [full, sliding] = ['full_attention', 'sliding_attention'];
    const layer_types = [sliding, full, full, sliding];
    assert.deepEqual(windowOf('qwen3', { ...on, layer_types }), [7, 'sffs']);
    assert.deepEqual(windowOf('qwen3_moe', on), [7, 'ssss']);
    refused('qwen3', { layer_types }, /expected layer_types to be a list of "full_attention"/);
    refused('qwen3', { ...on, layer_types: [full] }, /a list of 4 times "full_attention" or/);
    refused('qwen3', { ...on, layer_types: [full, full, full, 'chunked'] }, /a list of 4 times/);
  });
  test('Gemma 2: every other layer, the first one first; Gemma 3: five of six', () => {
    assert.deepEqual(windowOf('gemma2'), [4096, 'sfsf']);
    assert.deepEqual(windowOf('gemma3_text', { num_hidden_layers: 7 }), [4096, 'sssssfs']);
    assert.deepEqual(windowOf('gemma3_text', { sliding_window_pattern: 2 }), [4096, 'sfsf']);
  });
  test('Llama and GPT-2: none', () => {
    refused('llama', { use_sliding_window: true }, /expected use_sliding_window to be false/);
    const layer_types = Array<string>(4).fill('sliding_attention');
    refused('llama', { layer_types }, /expected layer_types to be a list of "full_attention"/);
  });
});

describe('Gemma', () => {
  test('bounds of Gemma 2 where the file says nothing, null or a number', () => {
    const caps = (fields: object): unknown[] => {
      const { attentionSoftcap, logitSoftcap } = parse('gemma2', fields);
      return [attentionSoftcap, logitSoftcap];
    };
    assert.deepEqual(caps({}), [50, 30]);
    const both = (value: unknown): object => ({
      attn_logit_softcapping: value,
      final_logit_softcapping: value,
    });
    assert.deepEqual(caps(both(null)), [null, null]);
    assert.deepEqual(caps(both(5)), [5, 5]);
    refused('gemma2', both(-5), /expected attn_logit_softcapping to be a positive number/);
    assert.equal(parse('gemma3_text').logitSoftcap, null);
    refused('gemma3_text', both(5), /expected attn_logit_softcapping to be null, received 5/);
  });
  test('scores are scaled by query_pre_attn_scalar and embeddings by √D', () => {
    const config = parse('gemma2', { query_pre_attn_scalar: 100 });
    assert.deepEqual([config.attentionScale, config.embeddingScale], [0.1, 8]);
    assert.equal(parse('gemma2').attentionScale, 1 / 16);
    assert.equal(parse('llama').attentionScale, 1 / 4);
  });
  test('rotary positions of Gemma 3, in both spellings', () => {
    const ropes = (fields: object): unknown => {
      const { ropeTheta, ropeScaling, localRope } = parse('gemma3_text', fields);
      return [ropeTheta, ropeScaling, localRope];
    };
    const none = { ropeTheta: 10_000, ropeScaling: null };
    const linear = { type: 'linear', factor: 8 };
    assert.deepEqual(ropes({}), [1_000_000, null, none]);
    const old = {
      rope_theta: 5000,
      rope_local_base_freq: 7,
      rope_scaling: { rope_type: 'linear', factor: 8 },
    };
    const expected = [5000, linear, { ropeTheta: 7, ropeScaling: null }];
    assert.deepEqual(ropes(old), expected);
    const rope_parameters = {
      full_attention: { rope_theta: 5000, rope_type: 'linear', factor: 8 },
      sliding_attention: { rope_theta: 7, rope_type: 'default' },
    };
    assert.deepEqual(ropes({ rope_parameters }), expected);
  });
  test('attention to the right is refused', () => {
    refused('gemma3_text', { use_bidirectional_attention: true }, /to be false, received true/);
  });
});

describe('rotary scaling', () => {
  const scaling = (rope_scaling: object, fields: object = {}): unknown =>
    parse('llama', { rope_scaling, max_position_embeddings: 64, ...fields }).ropeScaling;
  const base = {
    factor: 4,
    betaFast: 32,
    betaSlow: 1,
    truncate: true,
    originalMaxPositionEmbeddings: 64,
  };
  test('yarn: the factor of attention follows from factor, or mscale, or is given', () => {
    const factor = 0.1 * Math.log(4) + 1;
    assert.deepEqual(scaling({ type: 'yarn', factor: 4 }), {
      type: 'yarn',
      ...base,
      attentionFactor: factor,
    });
    const mscale = { mscale: 0.5, mscale_all_dim: 2 };
    assert.deepEqual(scaling({ rope_type: 'yarn', factor: 4, ...mscale }), {
      type: 'yarn',
      ...base,
      attentionFactor: (0.05 * Math.log(4) + 1) / (0.2 * Math.log(4) + 1),
    });
    const given = {
      attention_factor: 3,
      beta_fast: 8,
      beta_slow: 2,
      truncate: false,
      original_max_position_embeddings: 16,
    };
    assert.deepEqual(scaling({ rope_type: 'yarn', factor: 4, ...mscale, ...given }), {
      type: 'yarn',
      factor: 4,
      attentionFactor: 3,
      betaFast: 8,
      betaSlow: 2,
      truncate: false,
      originalMaxPositionEmbeddings: 16,
    });
  });
  test('longrope: factor and its attention follow from the positions', () => {
    const factors = { short_factor: Array(8).fill(1), long_factor: Array(8).fill(2) };
    assert.deepEqual(
      scaling({ type: 'longrope', ...factors, original_max_position_embeddings: 16 }),
      {
        type: 'longrope',
        shortFactor: factors.short_factor,
        longFactor: factors.long_factor,
        attentionFactor: Math.sqrt(1 + Math.log(4) / Math.log(16)),
        originalMaxPositionEmbeddings: 16,
      },
    );
    const short = { ...factors, long_factor: [1] };
    assert.throws(() => scaling({ type: 'longrope', ...short }), {
      message:
        'config.json: expected short_factor and long_factor to have 8 numbers, one per frequency, received 1.',
    });
    const broken = { ...factors, long_factor: [1, 'x'] };
    assert.throws(() => scaling({ type: 'longrope', ...broken }), /a list of positive numbers/);
  });
  test('Phi-3: "su" is longrope, the original positions stand outside, and a part of a head turns', () => {
    const rope_scaling = {
      type: 'su',
      short_factor: [1, 1, 1, 1],
      long_factor: [2, 2, 2, 2],
      // transformers takes the field outside before this one.
      original_max_position_embeddings: 7,
    };
    const config = parse('phi3', {
      rope_scaling,
      partial_rotary_factor: 0.5,
      original_max_position_embeddings: 32,
      max_position_embeddings: 64,
    });
    assert.equal(config.rotaryDim, 8);
    assert.equal(config.ropeScaling?.type, 'longrope');
    assert.equal(config.ropeScaling.originalMaxPositionEmbeddings, 32);
    refused(
      'phi3',
      { partial_rotary_factor: 0.2 },
      /to be a part of the head size 16 that is an even number, received 0.2/,
    );
    refused('llama', { partial_rotary_factor: 0.5 }, /expected partial_rotary_factor to be 1/);
  });
  test('yarn and dynamic stretch the positions that the model is made for', () => {
    const positions = (rope_scaling: object): number =>
      parse('llama', { rope_scaling, max_position_embeddings: 64 }).maxPositionEmbeddings;
    assert.equal(positions({ type: 'yarn', factor: 4 }), 256);
    assert.equal(positions({ type: 'yarn', factor: 4, original_max_position_embeddings: 8 }), 64);
    assert.equal(positions({ type: 'dynamic', factor: 2.5 }), 160);
    assert.equal(positions({ type: 'linear', factor: 4 }), 64);
  });
});

describe('GPT-2', () => {
  const own = { vocab_size: 50, n_embd: 12, n_head: 3, n_layer: 2, n_positions: 9 };
  const gpt2 = (fields: object = {}): DecoderConfig =>
    parseDecoderConfig({ model_type: 'gpt2', ...own, ...fields });
  test('has fields of its own names, four times the width inside, and a tied output layer', () => {
    const config = gpt2({ n_inner: null });
    assert.deepEqual(
      [config.hiddenSize, config.numHeads, config.numKeyValueHeads, config.headDim],
      [12, 3, 3, 4],
    );
    assert.deepEqual(
      [config.intermediateSize, config.maxPositionEmbeddings, config.rmsNormEps],
      [48, 9, 1e-5],
    );
    assert.ok(config.tieWordEmbeddings && config.learnedPositions, 'tied, positions learned');
    assert.equal(gpt2({ n_inner: 7 }).intermediateSize, 7);
  });
  test('what would change the result is refused', () => {
    const wrong: readonly (readonly [object, RegExp])[] = [
      [{ n_head: 5 }, /an even head size|multiple of the number of heads/],
      [{ n_embd: 14 }, /expected the hidden size to be a multiple of the number of heads/],
      [{ activation_function: 'relu' }, /expected activation_function to be "gelu_pytorch_tanh"/],
      [{ scale_attn_weights: false }, /expected scale_attn_weights to be true/],
      [{ scale_attn_by_inverse_layer_idx: true }, /expected scale_attn_by_inverse_layer_idx/],
      [{ add_cross_attention: true }, /expected add_cross_attention to be false/],
    ];
    for (const [fields, message] of wrong)
      assert.throws(() => gpt2(fields), { code: 'E_CHECKPOINT', message });
  });
});

describe('Qwen3-MoE', () => {
  test('which layers have experts', () => {
    const layers = (fields: object): readonly boolean[] | undefined =>
      parse('qwen3_moe', { num_experts: 8, ...fields }).experts?.layers;
    assert.deepEqual(layers({}), [true, true, true, true]);
    assert.deepEqual(layers({ decoder_sparse_step: 2 }), [false, true, false, true]);
    assert.deepEqual(layers({ mlp_only_layers: [0, 3] }), [false, true, true, false]);
  });
  test('no token can use more experts than there are', () => {
    refused('qwen3_moe', { num_experts: 4 }, /expected num_experts_per_tok to be at most .*, 4/);
    assert.equal(parse('qwen3_moe', { num_local_experts: 9 }).experts?.numExperts, 9);
    refused('qwen3_moe', { mlp_only_layers: 'x' }, /expected mlp_only_layers to be a list/);
  });
});

test('a new configuration of every family is read back from its own config.json', () => {
  for (const modelType of MODEL_TYPES) {
    const options = { modelType, vocabSize: 10, hiddenSize: 8, intermediateSize: 16 };
    const config = makeDecoderConfig({ ...options, numLayers: 2, numHeads: 2, slidingWindow: 3 });
    assert.deepEqual(parseDecoderConfig(config.raw), config, modelType);
    assert.equal(config.modelType, modelType);
  }
  const gpt2 = { modelType: 'gpt2', vocabSize: 10, hiddenSize: 8, intermediateSize: 16 } as const;
  const sizes = { ...gpt2, numLayers: 1, numHeads: 2 };
  assert.throws(() => makeDecoderConfig({ ...sizes, numKeyValueHeads: 1 }), {
    code: 'E_CONFIG',
    message:
      'makeDecoderConfig: expected as many key-value heads as heads in gpt2, received 1 and 2.',
  });
  assert.throws(() => makeDecoderConfig({ ...sizes, headDim: 8 }), /to be hiddenSize in gpt2/);
});
