/** The configuration of a new decoder, and the config.json that goes with it. */
import { CheckpointError, ConfigError } from '../errors/index.js';
import type { RopeScaling } from '../nn/index.js';
import { parseDecoderConfig, type DecoderConfig } from './decoderConfig.js';
import { causalLmClass, FAMILIES, type ModelType } from './families.js';
import type { JsonObject } from './jsonFields.js';
import { originalOf, rawScaling } from './ropeConfig.js';

/** Settings of a new decoder. What is left out follows from the rest. */
export interface DecoderOptions {
  /** llama unless said. */
  readonly modelType?: ModelType;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  /** numHeads unless said; GPT-2 has no other. */
  readonly numKeyValueHeads?: number;
  /** hiddenSize / numHeads unless said. */
  readonly headDim?: number;
  /** 1e-6 unless said; in GPT-2 it is LayerNorm's, 1e-5 unless said. */
  readonly rmsNormEps?: number;
  /** 10,000 unless said. */
  readonly ropeTheta?: number;
  readonly ropeScaling?: RopeScaling | null;
  /** 2048 unless said. */
  readonly maxPositionEmbeddings?: number;
  /** Tokens that a sliding layer looks at, in families that have such layers; transformers' own unless said. */
  readonly slidingWindow?: number | null;
  /** Qwen3-MoE: experts per layer, 4 unless said, and how many of them a token uses, 2 unless said. */
  readonly experts?: { readonly numExperts: number; readonly expertsPerToken: number };
  /** false unless said. */
  readonly tieWordEmbeddings?: boolean;
  /** 0.02 unless said. */
  readonly initializerRange?: number;
  readonly bosTokenId?: number | null;
  readonly eosTokenId?: number | readonly number[] | null;
  readonly padTokenId?: number | null;
}

/**
 * The configuration of a new decoder, with a config.json that transformers opens (4.x and 5.x: `rope_theta` and
 * `rope_scaling` are understood by both).
 *
 * @throws ConfigError when the settings contradict each other
 */
export function makeDecoderConfig(options: DecoderOptions): DecoderConfig {
  const { modelType = 'llama' } = options;
  const raw = modelType === 'gpt2' ? gpt2Fields(options) : usualFields(modelType, options);
  const written = JSON.parse(JSON.stringify(raw)) as JsonObject;
  try {
    return parseDecoderConfig(written, 'makeDecoderConfig');
  } catch (cause) {
    if (!(cause instanceof CheckpointError)) throw cause;
    throw new ConfigError(cause.message, { cause });
  }
}

function commonFields(modelType: ModelType, options: DecoderOptions): JsonObject {
  return {
    architectures: [causalLmClass(modelType)],
    bos_token_id: options.bosTokenId ?? null,
    eos_token_id: options.eosTokenId ?? null,
    initializer_range: options.initializerRange ?? 0.02,
    model_type: modelType,
    pad_token_id: options.padTokenId ?? null,
    tie_word_embeddings: options.tieWordEmbeddings ?? false,
    torch_dtype: 'float32',
    use_cache: true,
    vocab_size: options.vocabSize,
  };
}

function gpt2Fields(options: DecoderOptions): JsonObject {
  const { numHeads, numKeyValueHeads = numHeads, hiddenSize } = options;
  if (numKeyValueHeads !== numHeads)
    throw new ConfigError(
      `makeDecoderConfig: expected as many key-value heads as heads in gpt2, received ${numKeyValueHeads} and ${numHeads}.`,
    );
  if (options.headDim !== undefined && options.headDim * numHeads !== hiddenSize)
    throw new ConfigError(
      `makeDecoderConfig: expected headDim · numHeads to be hiddenSize in gpt2, received ${options.headDim} · ${numHeads} and ${hiddenSize}.`,
    );
  return {
    ...commonFields('gpt2', options),
    activation_function: 'gelu_new',
    attn_pdrop: 0,
    embd_pdrop: 0,
    layer_norm_epsilon: options.rmsNormEps ?? 1e-5,
    n_embd: hiddenSize,
    n_head: numHeads,
    n_inner: options.intermediateSize,
    n_layer: options.numLayers,
    n_positions: options.maxPositionEmbeddings ?? 2048,
    resid_pdrop: 0,
  };
}

function usualFields(modelType: ModelType, options: DecoderOptions): JsonObject {
  const { numHeads, hiddenSize, slidingWindow, ropeScaling = null } = options;
  const hasBias = modelType !== 'qwen2' && modelType !== 'mistral' && modelType !== 'phi3';
  const headDim = options.headDim ?? Math.floor(hiddenSize / numHeads);
  const { names, activation } = FAMILIES[modelType];
  return {
    ...commonFields(modelType, options),
    attention_bias: hasBias ? false : undefined,
    attention_dropout: 0,
    head_dim: headDim,
    [names.activation]: activation === 'silu' ? 'silu' : 'gelu_pytorch_tanh',
    hidden_size: hiddenSize,
    intermediate_size: options.intermediateSize,
    max_position_embeddings: options.maxPositionEmbeddings ?? 2048,
    mlp_bias: modelType === 'llama' ? false : undefined,
    num_attention_heads: numHeads,
    num_hidden_layers: options.numLayers,
    num_key_value_heads: options.numKeyValueHeads ?? numHeads,
    rms_norm_eps: options.rmsNormEps ?? 1e-6,
    rope_scaling: rawScaling(ropeScaling),
    rope_theta: options.ropeTheta ?? 10_000,
    ...(slidingWindow !== undefined && { sliding_window: slidingWindow }),
    ...ownFields(modelType, options, headDim),
  };
}

/** What only one family or two have. */
function ownFields(modelType: ModelType, options: DecoderOptions, headDim: number): JsonObject {
  const { slidingWindow, ropeScaling = null, experts, intermediateSize } = options;
  switch (modelType) {
    case 'gemma2':
    case 'gemma3_text':
      // Scores are scaled as everywhere else: the 256 of the published models fits their heads.
      return { query_pre_attn_scalar: headDim };
    case 'phi3':
      return { original_max_position_embeddings: originalOf(ropeScaling) };
    case 'qwen2':
    case 'qwen3':
      return slidingWindow ? { use_sliding_window: true, max_window_layers: 1 } : {};
    case 'qwen3_moe':
      return {
        ...(slidingWindow && { use_sliding_window: true }),
        moe_intermediate_size: intermediateSize,
        num_experts: experts?.numExperts ?? 4,
        num_experts_per_tok: experts?.expertsPerToken ?? 2,
        norm_topk_prob: true,
      };
    case 'llama':
    case 'mistral':
    case 'gpt2':
      return {};
  }
}
