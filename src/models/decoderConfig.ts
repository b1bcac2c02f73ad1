/**
 * What a decoder is built from: the fields of Hugging Face's config.json that change its computation. All families are
 * settings of one decoder; ./families.ts knows their defaults and differences. Nothing here knows tensors.
 */
import { CheckpointError } from '../errors/index.js';
import type { Activation, RopeScaling, RopeSettings } from '../nn/index.js';
import {
  FAMILIES,
  familyOptions,
  MODEL_TYPES,
  type ExpertSettings,
  type ModelType,
} from './families.js';
import { Fields, shown, type JsonObject } from './jsonFields.js';
import { parseRope } from './ropeConfig.js';

/** Which tokens a layer's queries look at: all before them, or the last `slidingWindow`, themselves included. */
export type LayerKind = 'full' | 'sliding';

/** Rotary positions of one kind of layer. */
export interface RopeBase {
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
}

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
  /** `rms` scales by the weight, `rmsPlusOne` by 1 + weight (Gemma); `layer` is LayerNorm with a bias (GPT-2). */
  readonly norm: 'rms' | 'rmsPlusOne' | 'layer';
  /** ε of every normalisation. */
  readonly rmsNormEps: number;
  /** θ; of layers that see everything where `localRope` is given. */
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
  /** R: how many numbers of a head turn with the position. */
  readonly rotaryDim: number;
  /** Rotary positions of layers with a sliding window, where they have their own (Gemma 3). */
  readonly localRope: RopeBase | null;
  /** A vector per position is added to the embedding, and nothing turns (GPT-2): no row can be longer than there are. */
  readonly learnedPositions: boolean;
  /** One per layer. */
  readonly layerKinds: readonly LayerKind[];
  /** Tokens that a sliding layer's query looks at, itself included; null where no layer slides. */
  readonly slidingWindow: number | null;
  /**
   * The context that it is made for, in tokens: config.json's, or the original one times the factor of a yarn or dynamic
   * scaling, where that is more. `sample` refuses longer rows; the forward pass computes them all the same, but where
   * positions are learned.
   */
  readonly maxPositionEmbeddings: number;
  /** The output layer uses the embedding's weights. */
  readonly tieWordEmbeddings: boolean;
  /** Biases on the query, key and value projections. */
  readonly attentionBias: boolean;
  /** A bias on the attention's output projection. */
  readonly attentionOutputBias: boolean;
  /** Biases in the feed-forward layers. */
  readonly mlpBias: boolean;
  /** Queries and keys are normalised per head (Qwen3, Gemma 3). */
  readonly qkNorm: boolean;
  /** What attention and feed-forward layers compute is normalised before it is added (Gemma). */
  readonly outputNorms: boolean;
  readonly activation: Activation;
  /** Feed-forward layers have a gate (all but GPT-2). */
  readonly gatedMlp: boolean;
  /** Feed-forward layers of which a token uses a few (Qwen3-MoE); null where every layer has one. */
  readonly experts: ExpertSettings | null;
  /** What embeddings are multiplied by (Gemma: √D). */
  readonly embeddingScale: number;
  /** What scores q·k are multiplied by. */
  readonly attentionScale: number;
  /** Bound of the scores, c·tanh(score/c) (Gemma 2); null without. */
  readonly attentionSoftcap: number | null;
  /** Bound of the logits (Gemma 2); null without. */
  readonly logitSoftcap: number | null;
  /** Names in the checkpoint lack the prefix that transformers' class gives them (GPT-2's first checkpoints). */
  readonly bareNames: boolean;
  /** Standard deviation of new weights. */
  readonly initializerRange: number;
  readonly bosTokenId: number | null;
  /** Tokens that end a text: generation_config.json's where it names some, else config.json's. */
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
  /** config.json as it was read, for saving. */
  readonly raw: JsonObject;
}

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
  const modelType = parseModelType(raw, where);
  refuseWhatIsMissingHere(fields);
  const family = FAMILIES[modelType];
  const { names } = family;
  const hiddenSize = fields.size(names.hiddenSize);
  const numHeads = fields.size(names.numHeads);
  const numLayers = fields.size(names.numLayers);
  const headDim = fields.size('head_dim', family.headDim ?? Math.floor(hiddenSize / numHeads));
  const written = fields.size(names.maxPositionEmbeddings, family.maxPositionEmbeddings);
  const rope = parseRope(modelType, fields, { headDim, maxPositionEmbeddings: written });
  const isGpt2 = modelType === 'gpt2';
  const config: DecoderConfig = {
    modelType,
    vocabSize: fields.size('vocab_size'),
    hiddenSize,
    intermediateSize: fields.size(names.intermediateSize, isGpt2 ? 4 * hiddenSize : undefined),
    numLayers,
    numHeads,
    numKeyValueHeads: isGpt2
      ? numHeads
      : (fields.sizeOrNull('num_key_value_heads', family.numKeyValueHeads) ?? numHeads),
    headDim,
    rmsNormEps: fields.positive(names.normEps, family.normEps),
    ...rope,
    maxPositionEmbeddings: stretchedPositions(written, rope.ropeScaling),
    tieWordEmbeddings: fields.flag('tie_word_embeddings', family.tieWordEmbeddings),
    ...familyOptions(modelType, fields, { hiddenSize, numLayers, headDim }),
    initializerRange: fields.positive('initializer_range', 0.02),
    bareNames: false,
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

/** What frequencies of a layer depend on. */
export function ropeSettings(config: DecoderConfig, kind: LayerKind): RopeSettings {
  const { headDim, rotaryDim, localRope } = config;
  const { ropeTheta, ropeScaling } = kind === 'sliding' && localRope ? localRope : config;
  return { headDim, rotaryDim, ropeTheta, ropeScaling };
}

/** Published configurations leave max_position_embeddings as it was where they add a scaling. */
function stretchedPositions(written: number, scaling: RopeScaling | null): number {
  if (scaling?.type !== 'yarn' && scaling?.type !== 'dynamic') return written;
  return Math.max(written, Math.floor(scaling.originalMaxPositionEmbeddings * scaling.factor));
}

function parseModelType(raw: JsonObject, where: string): ModelType {
  const given = raw['model_type'];
  const modelType = MODEL_TYPES.find((name) => name === given);
  if (modelType !== undefined) return modelType;
  throw new CheckpointError(
    `${where}: expected model_type to be one of ${MODEL_TYPES.join(', ')}, received ${shown(given)}.`,
    { hint: modelTypeHint(given) },
  );
}

function modelTypeHint(given: unknown): string {
  if (given === 'gemma3')
    return 'gemma3 is the model that sees images; its language model alone is a gemma3_text.';
  const near = typeof given === 'string' ? nearestNames(given) : [];
  return near.length > 0
    ? `The nearest that posttrain has: ${near.join(', ')}. Another architecture under a known name would compute something else.`
    : 'posttrain computes these families and no others: convert the model, or choose another one.';
}

/** Families whose name begins as the given one does. */
function nearestNames(given: string): ModelType[] {
  const stem = (name: string): string => name.toLowerCase().replace(/[^a-z].*$/, '');
  return MODEL_TYPES.filter((name) => stem(given) !== '' && stem(name) === stem(given));
}

function refuseWhatIsMissingHere(fields: Fields): void {
  if (fields.value('quantization_config') !== undefined)
    throw fields.wrong('quantization_config', 'absent; quantized weights cannot be read');
  // Each of these changes what transformers computes, in the families that know the field.
  for (const name of [
    'use_bidirectional_attention',
    'add_cross_attention',
    'scale_attn_by_inverse_layer_idx',
  ])
    if (fields.flag(name, false)) throw fields.wrong(name, 'false');
  if (!fields.flag('scale_attn_weights', true)) throw fields.wrong('scale_attn_weights', 'true');
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
  if (config.modelType === 'gpt2' && headDim * numHeads !== hiddenSize)
    throw error(
      `expected the hidden size to be a multiple of the number of heads, received ${hiddenSize} and ${numHeads}.`,
    );
  for (const kind of ['full', 'sliding'] as const) {
    const { ropeScaling, rotaryDim = headDim } = ropeSettings(config, kind);
    if (ropeScaling?.type === 'longrope')
      for (const factors of [ropeScaling.shortFactor, ropeScaling.longFactor])
        if (factors.length !== rotaryDim / 2)
          throw error(
            `expected short_factor and long_factor to have ${rotaryDim / 2} numbers, one per frequency, received ${factors.length}.`,
          );
    if (ropeScaling?.type === 'dynamic' && rotaryDim === 2)
      throw error('expected more than two rotary dimensions for dynamic scaling, received 2.');
  }
  const { bosTokenId, padTokenId, eosTokenIds } = config;
  for (const id of [bosTokenId, padTokenId, ...eosTokenIds])
    if (id !== null && id >= vocabSize)
      throw error(`expected token ids below the vocabulary's size ${vocabSize}, received ${id}.`);
}
