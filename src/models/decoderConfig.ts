/**
 * What a decoder is built from: the fields of Hugging Face's config.json that change its computation. Llama, Qwen2 and
 * Qwen3 are settings of one decoder; this file knows their defaults and differences, and nothing of tensors.
 */
import { CheckpointError, ConfigError } from '../errors/index.js';
import type { RopeScaling } from '../nn/index.js';
import { Fields, type JsonObject } from './jsonFields.js';

/** The families that posttrain has, as config.json names them in `model_type`. */
export const MODEL_TYPES = ['llama', 'qwen2', 'qwen3'] as const;
/** A family's name. */
export type ModelType = (typeof MODEL_TYPES)[number];

/** Everything that a decoder's computation depends on. */
export interface DecoderConfig {
  readonly modelType: ModelType;
  /** V */
  readonly vocabSize: number;
  /** D */
  readonly hiddenSize: number;
  /** Width inside the feed-forward layers. */
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  /** Heads of keys and values; numHeads is a multiple of it. */
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
  /** The context it was trained for, in tokens. Longer ones are computed all the same. */
  readonly maxPositionEmbeddings: number;
  /** The output layer uses the embedding's weights. */
  readonly tieWordEmbeddings: boolean;
  /** Biases on the query, key and value projections. */
  readonly attentionBias: boolean;
  /** A bias on the attention's output projection. */
  readonly attentionOutputBias: boolean;
  /** Biases in the feed-forward layers. */
  readonly mlpBias: boolean;
  /** Queries and keys are normalised per head (Qwen3). */
  readonly qkNorm: boolean;
  /** Standard deviation of new weights. */
  readonly initializerRange: number;
  readonly bosTokenId: number | null;
  /** Tokens that end a text: generation_config.json's where it names some, else config.json's. */
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
  /** config.json as it was read, for saving. */
  readonly raw: JsonObject;
}

const MODEL_TYPE_HINT = `posttrain has ${MODEL_TYPES.join(', ')}.`;

/**
 * The configuration in a parsed config.json. Fields that do not change a decoder's computation are kept in `raw` and not
 * looked at; dropout is among them, because posttrain never drops anything out (log-probabilities would be noise).
 *
 * @param raw config.json
 * @param where the file's name, for messages
 * @param generation generation_config.json, whose end tokens come first; null when there is none
 * @throws CheckpointError for a family that posttrain does not have, a field of the wrong type, and every feature that
 *   would silently change the result if it were ignored
 */
export function parseDecoderConfig(
  raw: JsonObject,
  where = 'config.json',
  generation: JsonObject | null = null,
): DecoderConfig {
  const fields = new Fields(raw, where);
  const modelType = MODEL_TYPES.find((name) => name === fields.value('model_type'));
  if (modelType === undefined)
    throw new CheckpointError(
      `${where}: expected model_type to be one of ${MODEL_TYPES.join(', ')}, received ${JSON.stringify(raw['model_type'])}.`,
      { hint: MODEL_TYPE_HINT },
    );
  refuseWhatIsMissingHere(fields);
  const hiddenSize = fields.size('hidden_size');
  const numHeads = fields.size('num_attention_heads');
  const maxPositionEmbeddings = fields.size('max_position_embeddings', 2048);
  const config: DecoderConfig = {
    modelType,
    vocabSize: fields.size('vocab_size'),
    hiddenSize,
    intermediateSize: fields.size('intermediate_size'),
    numLayers: fields.size('num_hidden_layers'),
    numHeads,
    numKeyValueHeads: fields.size('num_key_value_heads', numHeads),
    // transformers' own default of Qwen3 is 128 whatever the width.
    headDim: fields.size(
      'head_dim',
      modelType === 'qwen3' ? 128 : Math.floor(hiddenSize / numHeads),
    ),
    rmsNormEps: fields.positive('rms_norm_eps', 1e-6),
    ...parseRope(fields, maxPositionEmbeddings),
    maxPositionEmbeddings,
    tieWordEmbeddings: fields.flag('tie_word_embeddings', false),
    ...familyOptions(modelType, fields),
    initializerRange: fields.positive('initializer_range', 0.02),
    bosTokenId: fields.tokenId('bos_token_id'),
    eosTokenIds:
      (generation && new Fields(generation, 'generation_config.json').tokenIds('eos_token_id')) ??
      fields.tokenIds('eos_token_id') ??
      [],
    padTokenId: fields.tokenId('pad_token_id'),
    raw,
  };
  assertConsistent(config, (message) => new CheckpointError(`${where}: ${message}`));
  return config;
}

type FamilyOptions = Pick<
  DecoderConfig,
  'attentionBias' | 'attentionOutputBias' | 'mlpBias' | 'qkNorm'
>;

function familyOptions(modelType: ModelType, fields: Fields): FamilyOptions {
  if (modelType === 'qwen2')
    return { attentionBias: true, attentionOutputBias: false, mlpBias: false, qkNorm: false };
  const attentionBias = fields.flag('attention_bias', false);
  return {
    attentionBias,
    attentionOutputBias: attentionBias,
    mlpBias: modelType === 'llama' && fields.flag('mlp_bias', false),
    qkNorm: modelType === 'qwen3',
  };
}

function refuseWhatIsMissingHere(fields: Fields): void {
  const activation = fields.value('hidden_act') ?? 'silu';
  if (activation !== 'silu') throw fields.wrong('hidden_act', '"silu"');
  if (fields.flag('use_sliding_window', false)) throw fields.wrong('use_sliding_window', 'false');
  const layerTypes = fields.value('layer_types') ?? [];
  if (!Array.isArray(layerTypes) || layerTypes.some((type) => type !== 'full_attention'))
    throw fields.wrong('layer_types', 'a list of "full_attention"');
  if (fields.value('quantization_config') !== undefined)
    throw fields.wrong('quantization_config', 'absent; quantized weights cannot be read');
}

type Rope = Pick<DecoderConfig, 'ropeTheta' | 'ropeScaling'>;

/** `rope_parameters` is the layout of transformers 5, `rope_theta` beside `rope_scaling` the one before. */
function parseRope(fields: Fields, maxPositionEmbeddings: number): Rope {
  const parameters = fields.nested('rope_parameters');
  const values = Object.values(fields.value('rope_parameters') ?? {});
  if (values.some((value) => typeof value === 'object' && value !== null))
    throw fields.wrong('rope_parameters', 'one set of values for all layers');
  const scaling = parameters ?? fields.nested('rope_scaling');
  const ropeTheta = (parameters?.value('rope_theta') === undefined ? fields : parameters).positive(
    'rope_theta',
    10_000,
  );
  if (scaling === null) return { ropeTheta, ropeScaling: null };
  if (scaling.positive('partial_rotary_factor', 1) !== 1)
    throw scaling.wrong('partial_rotary_factor', '1');
  return { ropeTheta, ropeScaling: parseScaling(scaling, maxPositionEmbeddings) };
}

function parseScaling(fields: Fields, maxPositionEmbeddings: number): RopeScaling | null {
  const key = fields.value('rope_type') === undefined ? 'type' : 'rope_type';
  switch (fields.value(key) ?? 'default') {
    case 'default':
      return null;
    case 'linear':
      return { type: 'linear', factor: fields.positive('factor') };
    case 'llama3':
      return {
        type: 'llama3',
        factor: fields.positive('factor'),
        lowFreqFactor: fields.positive('low_freq_factor'),
        highFreqFactor: fields.positive('high_freq_factor'),
        originalMaxPositionEmbeddings: fields.size(
          'original_max_position_embeddings',
          maxPositionEmbeddings,
        ),
      };
    default:
      throw fields.wrong(key, 'one of "default", "linear", "llama3"');
  }
}

function assertConsistent(config: DecoderConfig, error: (message: string) => Error): void {
  const { hiddenSize, numHeads, numKeyValueHeads, headDim, vocabSize } = config;
  if (numHeads % numKeyValueHeads !== 0)
    throw error(
      `expected the number of attention heads to be a multiple of that of key-value heads, received ${numHeads} and ${numKeyValueHeads}.`,
    );
  if (headDim % 2 !== 0 || headDim === 0)
    throw error(
      `expected an even head size, received ${headDim} (hidden size ${hiddenSize}, ${numHeads} heads).`,
    );
  const { bosTokenId, padTokenId, eosTokenIds } = config;
  for (const id of [bosTokenId, padTokenId, ...eosTokenIds])
    if (id !== null && id >= vocabSize)
      throw error(`expected token ids below the vocabulary's size ${vocabSize}, received ${id}.`);
}

/** Settings of a new decoder. What is left out follows from the rest. */
export interface DecoderOptions {
  /** llama unless said. */
  readonly modelType?: ModelType;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  /** numHeads unless said. */
  readonly numKeyValueHeads?: number;
  /** hiddenSize / numHeads unless said. */
  readonly headDim?: number;
  /** 1e-6 unless said. */
  readonly rmsNormEps?: number;
  /** 10,000 unless said. */
  readonly ropeTheta?: number;
  readonly ropeScaling?: RopeScaling | null;
  /** 2048 unless said. */
  readonly maxPositionEmbeddings?: number;
  /** false unless said. */
  readonly tieWordEmbeddings?: boolean;
  /** 0.02 unless said. */
  readonly initializerRange?: number;
  readonly bosTokenId?: number | null;
  readonly eosTokenId?: number | readonly number[] | null;
  readonly padTokenId?: number | null;
}

const ARCHITECTURES: Record<ModelType, string> = {
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
};

/**
 * The configuration of a new decoder, with a config.json that transformers opens (4.x and 5.x: `rope_theta` and
 * `rope_scaling` are understood by both).
 *
 * @throws ConfigError when the settings contradict each other
 */
export function makeDecoderConfig(options: DecoderOptions): DecoderConfig {
  const { modelType = 'llama', numHeads, hiddenSize, eosTokenId = null } = options;
  const raw: JsonObject = {
    architectures: [ARCHITECTURES[modelType]],
    attention_bias: modelType === 'qwen2' ? undefined : false,
    attention_dropout: 0,
    bos_token_id: options.bosTokenId ?? null,
    eos_token_id: eosTokenId,
    head_dim: options.headDim ?? Math.floor(hiddenSize / numHeads),
    hidden_act: 'silu',
    hidden_size: hiddenSize,
    initializer_range: options.initializerRange ?? 0.02,
    intermediate_size: options.intermediateSize,
    max_position_embeddings: options.maxPositionEmbeddings ?? 2048,
    mlp_bias: modelType === 'llama' ? false : undefined,
    model_type: modelType,
    num_attention_heads: numHeads,
    num_hidden_layers: options.numLayers,
    num_key_value_heads: options.numKeyValueHeads ?? numHeads,
    pad_token_id: options.padTokenId ?? null,
    rms_norm_eps: options.rmsNormEps ?? 1e-6,
    rope_scaling: rawScaling(options.ropeScaling ?? null),
    rope_theta: options.ropeTheta ?? 10_000,
    tie_word_embeddings: options.tieWordEmbeddings ?? false,
    torch_dtype: 'float32',
    use_cache: true,
    vocab_size: options.vocabSize,
  };
  const written = JSON.parse(JSON.stringify(raw)) as JsonObject;
  try {
    return parseDecoderConfig(written, 'makeDecoderConfig');
  } catch (cause) {
    if (!(cause instanceof CheckpointError)) throw cause;
    throw new ConfigError(cause.message, { cause });
  }
}

function rawScaling(scaling: RopeScaling | null): JsonObject | null {
  if (scaling === null) return null;
  if (scaling.type === 'linear') return { rope_type: 'linear', factor: scaling.factor };
  return {
    rope_type: 'llama3',
    factor: scaling.factor,
    low_freq_factor: scaling.lowFreqFactor,
    high_freq_factor: scaling.highFreqFactor,
    original_max_position_embeddings: scaling.originalMaxPositionEmbeddings,
  };
}
