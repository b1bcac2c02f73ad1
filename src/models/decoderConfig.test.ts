import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { makeDecoderConfig, parseDecoderConfig, readGenerationConfig } from './index.js';

const llama = {
  model_type: 'llama',
  vocab_size: 100,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
};
const parse = (fields: object): ReturnType<typeof parseDecoderConfig> =>
  parseDecoderConfig({ ...llama, ...fields });

describe('parseDecoderConfig', () => {
  test('what config.json leaves out has the default of transformers', () => {
    const { raw: _, ...config } = parse({});
    assert.deepEqual(config, {
      modelType: 'llama',
      vocabSize: 100,
      hiddenSize: 64,
      intermediateSize: 128,
      numLayers: 2,
      numHeads: 4,
      numKeyValueHeads: 4,
      headDim: 16,
      norm: 'rms',
      rmsNormEps: 1e-6,
      ropeTheta: 10_000,
      ropeScaling: null,
      rotaryDim: 16,
      localRope: null,
      learnedPositions: false,
      layerKinds: ['full', 'full'],
      slidingWindow: null,
      maxPositionEmbeddings: 2048,
      tieWordEmbeddings: false,
      attentionBias: false,
      attentionOutputBias: false,
      mlpBias: false,
      qkNorm: false,
      outputNorms: false,
      activation: 'silu',
      gatedMlp: true,
      experts: null,
      embeddingScale: 1,
      attentionScale: 0.25,
      attentionSoftcap: null,
      logitSoftcap: null,
      initializerRange: 0.02,
      bareNames: false,
      bosTokenId: null,
      eosTokenIds: [],
      padTokenId: null,
    });
  });
  test('families differ in biases, norms and the size of a head', () => {
    const options = (fields: object): unknown[] => {
      const config = parse(fields);
      const { attentionBias, attentionOutputBias, mlpBias, qkNorm, headDim } = config;
      return [attentionBias, attentionOutputBias, mlpBias, qkNorm, headDim];
    };
    assert.deepEqual(options({ attention_bias: true, mlp_bias: true }), [
      true,
      true,
      true,
      false,
      16,
    ]);
    assert.deepEqual(options({ model_type: 'qwen2' }), [true, false, false, false, 16]);
    assert.deepEqual(options({ model_type: 'qwen3' }), [false, false, false, true, 128]);
    assert.deepEqual(options({ model_type: 'qwen3', attention_bias: true, head_dim: 32 }), [
      true,
      true,
      false,
      true,
      32,
    ]);
  });
  test('null counts as absent', () => {
    assert.equal(parse({ num_key_value_heads: null }).numKeyValueHeads, 4);
    assert.equal(parse({ head_dim: null, rope_scaling: null }).headDim, 16);
  });

  describe('rotary positions', () => {
    const llama3 = {
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    };
    const parsed = {
      type: 'llama3',
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositionEmbeddings: 8192,
    };
    test('the layout of transformers 4', () => {
      const config = parse({ rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', ...llama3 } });
      assert.equal(config.ropeTheta, 5e5);
      assert.deepEqual(config.ropeScaling, parsed);
    });
    test('its older name of the kind', () => {
      const config = parse({ rope_scaling: { type: 'linear', factor: 2 } });
      assert.deepEqual(config.ropeScaling, { type: 'linear', factor: 2 });
    });
    test('the layout of transformers 5', () => {
      const config = parse({
        rope_parameters: { rope_theta: 5e5, rope_type: 'llama3', ...llama3 },
      });
      assert.equal(config.ropeTheta, 5e5);
      assert.deepEqual(config.ropeScaling, parsed);
      const plain = parse({ rope_parameters: { rope_theta: 7, rope_type: 'default' } });
      assert.deepEqual([plain.ropeTheta, plain.ropeScaling], [7, null]);
    });
    test('kinds that posttrain has not are refused and not ignored', () => {
      for (const kind of ['ntk', 'proportional', 7])
        assert.throws(() => parse({ rope_scaling: { rope_type: kind, factor: 2 } }), {
          code: 'E_CHECKPOINT',
          message: `config.json, rope_scaling: expected rope_type to be one of "default", "linear", "dynamic", "yarn", "llama3", "longrope", received ${JSON.stringify(kind)}.`,
        });
      assert.throws(
        () => parse({ rope_parameters: { rope_type: 'default', partial_rotary_factor: 0.5 } }),
        /expected partial_rotary_factor to be 1, received 0.5/,
      );
      assert.throws(
        () => parse({ rope_parameters: { full_attention: { rope_type: 'default' } } }),
        /expected rope_parameters to be one set of values for all layers/,
      );
    });
    test('missing factors are named', () => {
      assert.throws(() => parse({ rope_scaling: { type: 'llama3', factor: 8 } }), {
        message:
          'config.json, rope_scaling: expected low_freq_factor to be a positive number, received nothing.',
      });
    });
  });

  describe('end tokens', () => {
    test('one or several', () => {
      assert.deepEqual(parse({ eos_token_id: 2 }).eosTokenIds, [2]);
      assert.deepEqual(parse({ eos_token_id: [2, 7] }).eosTokenIds, [2, 7]);
    });
    test("generation_config.json's come first, where it names some", () => {
      const raw = { ...llama, eos_token_id: 2 };
      const eos = (generation: object): readonly number[] =>
        parseDecoderConfig(raw, 'config.json', { ...generation }).eosTokenIds;
      assert.deepEqual(eos({ eos_token_id: [5, 6] }), [5, 6]);
      assert.deepEqual(eos({ temperature: 0.6 }), [2]);
    });
  });

  describe('rejects', () => {
    const cases: [string, object, string][] = [
      [
        'another family',
        { model_type: 'mamba' },
        'config.json: expected model_type to be one of llama, mistral, qwen2, qwen3, qwen3_moe, gemma2, gemma3_text, phi3, gpt2, received "mamba".',
      ],
      [
        'no family',
        { model_type: undefined },
        'config.json: expected model_type to be one of llama, mistral, qwen2, qwen3, qwen3_moe, gemma2, gemma3_text, phi3, gpt2, received undefined.',
      ],
      [
        'a size that is text',
        { hidden_size: '64' },
        'config.json: expected hidden_size to be a positive integer, received "64".',
      ],
      [
        'a size that is missing',
        { vocab_size: undefined },
        'config.json: expected vocab_size to be a positive integer, received nothing.',
      ],
      [
        'a flag that is a number',
        { tie_word_embeddings: 1 },
        'config.json: expected tie_word_embeddings to be true or false, received 1.',
      ],
      [
        'an eps of 0',
        { rms_norm_eps: 0 },
        'config.json: expected rms_norm_eps to be a positive number, received 0.',
      ],
      [
        'another activation',
        { hidden_act: 'gelu' },
        'config.json: expected hidden_act to be "silu", received "gelu".',
      ],
      [
        'a sliding window that is used',
        { use_sliding_window: true },
        'config.json: expected use_sliding_window to be false, received true.',
      ],
      [
        'layers with a sliding window',
        { layer_types: ['full_attention', 'sliding_attention'] },
        'config.json: expected layer_types to be a list of "full_attention", received ["full_attention","sliding_attention"].',
      ],
      [
        'quantized weights',
        { quantization_config: { bits: 4 } },
        'config.json: expected quantization_config to be absent; quantized weights cannot be read, received {"bits":4}.',
      ],
      [
        'heads that cannot be grouped',
        { num_key_value_heads: 3 },
        'config.json: expected the number of attention heads to be a multiple of that of key-value heads, received 4 and 3.',
      ],
      [
        'an odd head size',
        { head_dim: 15 },
        'config.json: expected an even head size, received 15 (hidden size 64, 4 heads).',
      ],
      [
        'a token beyond the vocabulary',
        { eos_token_id: [1, 100] },
        "config.json: expected token ids below the vocabulary's size 100, received 100.",
      ],
      [
        'a token that is text',
        { bos_token_id: '<s>' },
        'config.json: expected bos_token_id to be a token id, received "<s>".',
      ],
      [
        'an object that is a list',
        { rope_scaling: [] },
        'config.json: expected rope_scaling to be an object, received [].',
      ],
    ];
    for (const [what, fields, message] of cases)
      test(what, () => {
        assert.throws(() => parse(fields), { code: 'E_CHECKPOINT', message });
      });
  });
});

describe('makeDecoderConfig', () => {
  const options = {
    vocabSize: 10,
    hiddenSize: 8,
    intermediateSize: 16,
    numLayers: 1,
    numHeads: 2,
  };
  test('gives a config.json with every field that transformers needs', () => {
    assert.deepEqual(makeDecoderConfig({ ...options, bosTokenId: 1, eosTokenId: 2 }).raw, {
      architectures: ['LlamaForCausalLM'],
      attention_bias: false,
      attention_dropout: 0,
      bos_token_id: 1,
      eos_token_id: 2,
      head_dim: 4,
      hidden_act: 'silu',
      hidden_size: 8,
      initializer_range: 0.02,
      intermediate_size: 16,
      max_position_embeddings: 2048,
      mlp_bias: false,
      model_type: 'llama',
      num_attention_heads: 2,
      num_hidden_layers: 1,
      num_key_value_heads: 2,
      pad_token_id: null,
      rms_norm_eps: 1e-6,
      rope_scaling: null,
      rope_theta: 10_000,
      tie_word_embeddings: false,
      torch_dtype: 'float32',
      use_cache: true,
      vocab_size: 10,
    });
  });
  test('rejects settings that contradict each other', () => {
    assert.throws(() => makeDecoderConfig({ ...options, numKeyValueHeads: 3 }), {
      code: 'E_CONFIG',
      message: /multiple of that of key-value heads, received 2 and 3/,
    });
  });
});

describe('readGenerationConfig', () => {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-generation-'));
  const path = join(folder, 'generation_config.json');
  after(() => rmSync(folder, { recursive: true }));

  test('is null without the file', () => {
    assert.equal(readGenerationConfig(folder), null);
  });
  test('reads what the authors recommend', () => {
    const raw = { do_sample: true, temperature: 0.6, top_k: 20, top_p: 0.95, eos_token_id: [1, 2] };
    writeFileSync(path, JSON.stringify(raw));
    assert.deepEqual(readGenerationConfig(folder), {
      bosTokenId: null,
      eosTokenIds: [1, 2],
      padTokenId: null,
      doSample: true,
      temperature: 0.6,
      topK: 20,
      topP: 0.95,
      minP: null,
      repetitionPenalty: null,
      maxNewTokens: null,
      raw,
    });
  });
  test('rejects a field of the wrong type and what is not JSON', () => {
    writeFileSync(path, '{"temperature":"warm"}');
    assert.throws(() => readGenerationConfig(folder), {
      code: 'E_CHECKPOINT',
      message: `${path}: expected temperature to be a number, received "warm".`,
    });
    writeFileSync(path, '{');
    assert.throws(() => readGenerationConfig(folder), { code: 'E_CHECKPOINT' });
    writeFileSync(path, '[]');
    assert.throws(() => readGenerationConfig(folder), {
      message: `${path}: expected a JSON object.`,
    });
  });
});
