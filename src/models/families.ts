/**
 * What one family of decoders does otherwise than Llama, and the names of its fields and classes: transformers' defaults
 * where a config.json leaves something out.
 */
import type { Activation } from '../nn/index.js';
import type { DecoderConfig, LayerKind } from './decoderConfig.js';
import type { Fields } from './jsonFields.js';

/** The families that posttrain has, as config.json names them in `model_type`. */
export const MODEL_TYPES = [
  'llama',
  'mistral',
  'qwen2',
  'qwen3',
  'qwen3_moe',
  'gemma2',
  'gemma3_text',
  'phi3',
  'gpt2',
] as const;
/** A family's name. */
export type ModelType = (typeof MODEL_TYPES)[number];

/** How transformers' names of a family's classes begin. */
export const CLASS_NAMES: Readonly<Record<ModelType, string>> = {
  llama: 'Llama',
  mistral: 'Mistral',
  qwen2: 'Qwen2',
  qwen3: 'Qwen3',
  qwen3_moe: 'Qwen3Moe',
  gemma2: 'Gemma2',
  gemma3_text: 'Gemma3Text',
  phi3: 'Phi3',
  gpt2: 'GPT2',
};

/** The class that transformers opens a language model of this family with. */
export function causalLmClass(modelType: ModelType): string {
  return modelType === 'gpt2' ? 'GPT2LMHeadModel' : `${nameOfCausalLm(modelType)}ForCausalLM`;
}

// Gemma 3's text model is the only one whose language model drops a part of its name.
const nameOfCausalLm = (modelType: ModelType): string =>
  modelType === 'gemma3_text' ? 'Gemma3' : CLASS_NAMES[modelType];

/** The names of config.json's fields, where GPT-2 has its own. */
export interface FieldNames {
  readonly hiddenSize: string;
  readonly intermediateSize: string;
  readonly numLayers: string;
  readonly numHeads: string;
  readonly maxPositionEmbeddings: string;
  readonly normEps: string;
  readonly activation: string;
}

const USUAL_NAMES: FieldNames = {
  hiddenSize: 'hidden_size',
  intermediateSize: 'intermediate_size',
  numLayers: 'num_hidden_layers',
  numHeads: 'num_attention_heads',
  maxPositionEmbeddings: 'max_position_embeddings',
  normEps: 'rms_norm_eps',
  activation: 'hidden_act',
};
const GEMMA_NAMES: FieldNames = { ...USUAL_NAMES, activation: 'hidden_activation' };
const GPT2_NAMES: FieldNames = {
  hiddenSize: 'n_embd',
  intermediateSize: 'n_inner',
  numLayers: 'n_layer',
  numHeads: 'n_head',
  maxPositionEmbeddings: 'n_positions',
  normEps: 'layer_norm_epsilon',
  activation: 'activation_function',
};

/** What transformers takes where config.json says nothing, and which names an activation has. */
export interface Family {
  readonly names: FieldNames;
  readonly maxPositionEmbeddings: number;
  readonly normEps: number;
  /** Whatever the width; null: the width divided by the heads. */
  readonly headDim: number | null;
  /** null: as many as heads. */
  readonly numKeyValueHeads: number | null;
  readonly tieWordEmbeddings: boolean;
  readonly activation: Activation;
}

const ACTIVATION_NAMES: Readonly<Record<Activation, readonly string[]>> = {
  silu: ['silu', 'swish'],
  geluTanh: ['gelu_pytorch_tanh', 'gelu_new'],
};

const USUAL: Family = {
  names: USUAL_NAMES,
  maxPositionEmbeddings: 2048,
  normEps: 1e-6,
  headDim: null,
  numKeyValueHeads: null,
  tieWordEmbeddings: false,
  activation: 'silu',
};
const QWEN: Family = { ...USUAL, maxPositionEmbeddings: 32_768 };
const GEMMA: Family = {
  ...USUAL,
  names: GEMMA_NAMES,
  headDim: 256,
  numKeyValueHeads: 4,
  tieWordEmbeddings: true,
  activation: 'geluTanh',
};

/** What transformers takes for each family. */
export const FAMILIES: Readonly<Record<ModelType, Family>> = {
  llama: USUAL,
  mistral: { ...USUAL, maxPositionEmbeddings: 131_072, numKeyValueHeads: 8 },
  qwen2: QWEN,
  qwen3: { ...QWEN, headDim: 128 },
  qwen3_moe: { ...QWEN, numKeyValueHeads: 4 },
  gemma2: { ...GEMMA, maxPositionEmbeddings: 8192 },
  gemma3_text: { ...GEMMA, maxPositionEmbeddings: 131_072 },
  phi3: { ...USUAL, maxPositionEmbeddings: 4096, normEps: 1e-5 },
  gpt2: {
    ...USUAL,
    names: GPT2_NAMES,
    maxPositionEmbeddings: 1024,
    normEps: 1e-5,
    tieWordEmbeddings: true,
    activation: 'geluTanh',
  },
};

/** The options of a decoder that follow from its family and a few fields. */
export type FamilyOptions = Pick<
  DecoderConfig,
  | 'attentionBias'
  | 'attentionOutputBias'
  | 'mlpBias'
  | 'qkNorm'
  | 'norm'
  | 'activation'
  | 'gatedMlp'
  | 'learnedPositions'
  | 'outputNorms'
  | 'embeddingScale'
  | 'attentionScale'
  | 'attentionSoftcap'
  | 'logitSoftcap'
  | 'layerKinds'
  | 'slidingWindow'
  | 'experts'
>;

/** @throws CheckpointError for a field of the wrong type, and for what posttrain does not compute */
export function familyOptions(
  modelType: ModelType,
  fields: Fields,
  sizes: Pick<DecoderConfig, 'hiddenSize' | 'numLayers' | 'headDim'>,
): FamilyOptions {
  const { names, activation } = FAMILIES[modelType];
  const accepted = ACTIVATION_NAMES[activation];
  const [usual = ''] = accepted;
  if (!accepted.includes(fields.text(names.activation, usual)))
    throw fields.wrong(names.activation, `"${usual}"`);
  const isGemma = modelType === 'gemma2' || modelType === 'gemma3_text';
  const isGpt2 = modelType === 'gpt2';
  const isQwen3 = modelType === 'qwen3' || modelType === 'qwen3_moe';
  const attentionBias =
    isGpt2 ||
    modelType === 'qwen2' ||
    ((modelType === 'llama' || isQwen3 || isGemma) && fields.flag('attention_bias', false));
  return {
    attentionBias,
    attentionOutputBias: attentionBias && modelType !== 'qwen2',
    mlpBias: isGpt2 || (modelType === 'llama' && fields.flag('mlp_bias', false)),
    qkNorm: isQwen3 || modelType === 'gemma3_text',
    norm: isGpt2 ? 'layer' : isGemma ? 'rmsPlusOne' : 'rms',
    activation,
    gatedMlp: !isGpt2,
    learnedPositions: isGpt2,
    outputNorms: isGemma,
    embeddingScale: isGemma ? Math.sqrt(sizes.hiddenSize) : 1,
    attentionScale:
      (isGemma ? fields.positive('query_pre_attn_scalar', 256) : sizes.headDim) ** -0.5,
    ...softcaps(modelType, fields),
    ...windows(modelType, fields, sizes.numLayers),
    experts: modelType === 'qwen3_moe' ? experts(fields, sizes.numLayers) : null,
  };
}

function softcaps(
  modelType: ModelType,
  fields: Fields,
): Pick<DecoderConfig, 'attentionSoftcap' | 'logitSoftcap'> {
  if (modelType === 'gemma3_text' && fields.value('attn_logit_softcapping') !== undefined)
    throw fields.wrong('attn_logit_softcapping', 'null');
  if (modelType !== 'gemma2' && modelType !== 'gemma3_text')
    return { attentionSoftcap: null, logitSoftcap: null };
  const isSecond = modelType === 'gemma2';
  return {
    attentionSoftcap: isSecond ? fields.positiveOrNull('attn_logit_softcapping', 50) : null,
    logitSoftcap: fields.positiveOrNull('final_logit_softcapping', isSecond ? 30 : null),
  };
}

type Windows = Pick<DecoderConfig, 'layerKinds' | 'slidingWindow'>;

/** Which layers look at a window only, and how large it is. */
function windows(modelType: ModelType, fields: Fields, numLayers: number): Windows {
  const all = (kind: LayerKind): LayerKind[] => Array<LayerKind>(numLayers).fill(kind);
  const full: Windows = { layerKinds: all('full'), slidingWindow: null };
  switch (modelType) {
    case 'llama':
    case 'gpt2':
      if (fields.flag('use_sliding_window', false))
        throw fields.wrong('use_sliding_window', 'false');
      assertAllFull(fields, numLayers);
      return full;
    case 'mistral':
    case 'phi3': {
      const slidingWindow = fields.sizeOrNull('sliding_window', modelType === 'phi3' ? null : 4096);
      if (slidingWindow === null) return full;
      return { layerKinds: all('sliding'), slidingWindow };
    }
    case 'qwen2':
    case 'qwen3':
    case 'qwen3_moe': {
      const slidingWindow = fields.flag('use_sliding_window', false)
        ? fields.sizeOrNull('sliding_window', 4096)
        : null;
      if (slidingWindow === null) {
        assertAllFull(fields, numLayers);
        return full;
      }
      if (modelType === 'qwen3_moe') return { layerKinds: all('sliding'), slidingWindow };
      const firstSliding = fields.count('max_window_layers', 28);
      const kinds = layerTypes(fields, numLayers, (layer) => layer >= firstSliding);
      return { layerKinds: kinds, slidingWindow };
    }
    case 'gemma2':
    case 'gemma3_text': {
      // The config of Gemma 3 on the Hub says sliding_window_pattern: every sixth layer sees everything.
      const period = modelType === 'gemma2' ? 2 : fields.size('sliding_window_pattern', 6);
      const layerKinds = layerTypes(fields, numLayers, (layer) => (layer + 1) % period !== 0);
      return { layerKinds, slidingWindow: fields.size('sliding_window', 4096) };
    }
  }
}

function assertAllFull(fields: Fields, numLayers: number): void {
  const kinds = layerTypes(fields, numLayers, () => false);
  if (kinds.includes('sliding')) throw fields.wrong('layer_types', 'a list of "full_attention"');
}

const LAYER_TYPES: Readonly<Record<string, LayerKind>> = {
  full_attention: 'full',
  sliding_attention: 'sliding',
};

/** `layer_types`, or what follows from `isSliding` where there is none. */
function layerTypes(
  fields: Fields,
  numLayers: number,
  isSliding: (layer: number) => boolean,
): LayerKind[] {
  const given = fields.value('layer_types');
  if (given === undefined)
    return Array.from({ length: numLayers }, (_, layer) => (isSliding(layer) ? 'sliding' : 'full'));
  const kinds = Array.isArray(given)
    ? given.map((type) => (typeof type === 'string' ? LAYER_TYPES[type] : undefined))
    : [];
  if (kinds.length !== numLayers || !kinds.every((kind) => kind !== undefined))
    throw fields.wrong(
      'layer_types',
      `a list of ${numLayers} times "full_attention" or "sliding_attention"`,
    );
  return kinds;
}

/** Experts of a feed-forward layer. */
export interface ExpertSettings {
  /** E */
  readonly numExperts: number;
  /** k: experts that a token uses. */
  readonly expertsPerToken: number;
  /** Width inside one expert. */
  readonly intermediateSize: number;
  /** Whether the k weights of a token are made to sum to 1. */
  readonly normalize: boolean;
  /** Which layers have experts; the others have one feed-forward layer. */
  readonly layers: readonly boolean[];
}

function experts(fields: Fields, numLayers: number): ExpertSettings {
  // transformers 5 reads both names.
  const key = fields.value('num_local_experts') === undefined ? 'num_experts' : 'num_local_experts';
  const numExperts = fields.size(key, 128);
  const expertsPerToken = fields.size('num_experts_per_tok', 8);
  if (expertsPerToken > numExperts)
    throw fields.wrong('num_experts_per_tok', `at most the number of experts, ${numExperts}`);
  const step = fields.size('decoder_sparse_step', 1);
  const dense = fields.value('mlp_only_layers') ?? [];
  if (!Array.isArray(dense) || !dense.every((layer) => Number.isInteger(layer)))
    throw fields.wrong('mlp_only_layers', 'a list of layers');
  return {
    numExperts,
    expertsPerToken,
    intermediateSize: fields.size('moe_intermediate_size', 768),
    normalize: fields.flag('norm_topk_prob', false),
    layers: Array.from(
      { length: numLayers },
      (_, layer) => !dense.includes(layer) && (layer + 1) % step === 0,
    ),
  };
}
