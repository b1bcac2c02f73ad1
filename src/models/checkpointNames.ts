/** How a family's checkpoints name their tensors, and how they store them. */
import type { SafetensorsFile } from '../torch/index.js';
import type { DecoderConfig } from './decoderConfig.js';

/** The names of a decoder's parts; those of a layer's parts stand below the layer's own. */
export interface CheckpointNames {
  readonly embedding: string;
  /** Learned positions; null where there are none. */
  readonly positions: string | null;
  readonly layer: (index: number) => string;
  readonly inputNorm: string;
  readonly attention: string;
  /** Three names for queries, keys and values, or one for all. */
  readonly projections: readonly string[];
  readonly attentionOutput: string;
  /** Normalises what attention computed; null without. */
  readonly attentionOutputNorm: string | null;
  readonly mlpNorm: string;
  readonly mlp: string;
  /** Gate and up, or one name for all. */
  readonly mlpInputs: readonly string[];
  readonly mlpOutput: string;
  /** Normalises what the feed-forward layer computed; null without. */
  readonly mlpOutputNorm: string | null;
  readonly finalNorm: string;
  readonly head: string;
}

const LLAMA: CheckpointNames = {
  embedding: 'model.embed_tokens',
  positions: null,
  layer: (index) => `model.layers.${index}`,
  inputNorm: 'input_layernorm',
  attention: 'self_attn',
  projections: ['q_proj', 'k_proj', 'v_proj'],
  attentionOutput: 'o_proj',
  attentionOutputNorm: null,
  mlpNorm: 'post_attention_layernorm',
  mlp: 'mlp',
  mlpInputs: ['gate_proj', 'up_proj'],
  mlpOutput: 'down_proj',
  mlpOutputNorm: null,
  finalNorm: 'model.norm',
  head: 'lm_head',
};

const GEMMA: CheckpointNames = {
  ...LLAMA,
  attentionOutputNorm: 'post_attention_layernorm',
  mlpNorm: 'pre_feedforward_layernorm',
  mlpOutputNorm: 'post_feedforward_layernorm',
};

const PHI3: CheckpointNames = {
  ...LLAMA,
  projections: ['qkv_proj'],
  mlpInputs: ['gate_up_proj'],
};

const GPT2_PREFIX = 'transformer.';

const GPT2: CheckpointNames = {
  embedding: `${GPT2_PREFIX}wte`,
  positions: `${GPT2_PREFIX}wpe`,
  layer: (index) => `${GPT2_PREFIX}h.${index}`,
  inputNorm: 'ln_1',
  attention: 'attn',
  projections: ['c_attn'],
  attentionOutput: 'c_proj',
  attentionOutputNorm: null,
  mlpNorm: 'ln_2',
  mlp: 'mlp',
  mlpInputs: ['c_fc'],
  mlpOutput: 'c_proj',
  mlpOutputNorm: null,
  finalNorm: `${GPT2_PREFIX}ln_f`,
  head: 'lm_head',
};

/** The names in a family's checkpoints. */
export function checkpointNames({ modelType }: Pick<DecoderConfig, 'modelType'>): CheckpointNames {
  switch (modelType) {
    case 'gpt2':
      return GPT2;
    case 'phi3':
      return PHI3;
    case 'gemma2':
    case 'gemma3_text':
      return GEMMA;
    case 'llama':
    case 'mistral':
    case 'qwen2':
    case 'qwen3':
    case 'qwen3_moe':
      return LLAMA;
  }
}

/**
 * The configuration with what only the file tells: GPT-2's first checkpoints name their tensors without `transformer.`, and
 * a model is saved with the names that it was read with.
 */
export function asStored(config: DecoderConfig, file: SafetensorsFile): DecoderConfig {
  const { embedding } = checkpointNames(config);
  const isBare = config.modelType === 'gpt2' && !file.has(`${embedding}.weight`);
  return { ...config, bareNames: isBare };
}

/** The name of a parameter in the file. */
export function storedName({ bareNames }: DecoderConfig, name: string): string {
  return bareNames && name.startsWith(GPT2_PREFIX) ? name.slice(GPT2_PREFIX.length) : name;
}

/** Whether the file has a matrix as [in, out]: GPT-2's layers within its blocks ("Conv1D"). */
export function isStoredTransposed({ modelType }: DecoderConfig, name: string): boolean {
  return modelType === 'gpt2' && /\.(c_attn|c_proj|c_fc)\.weight$/.test(name);
}
