import type { DecoderConfig } from './decoderConfig.js';

/** What a parameter is, for its first values and for weight decay. */
export type ParameterKind = 'embedding' | 'linear' | 'bias' | 'norm';

/** One parameter of a decoder. */
export interface ParameterShape {
  readonly shape: readonly number[];
  readonly kind: ParameterKind;
}

/** Name, shape and kind of every parameter of a decoder, in the checkpoint's names. A tied output layer has none. */
export function parameterShapes(config: DecoderConfig): Map<string, ParameterShape> {
  const { hiddenSize, intermediateSize, vocabSize, headDim } = config;
  const queries = config.numHeads * headDim;
  const keys = config.numKeyValueHeads * headDim;
  const shapes = new Map<string, ParameterShape>();
  const linear = (name: string, outputs: number, inputs: number, bias: boolean): void => {
    shapes.set(`${name}.weight`, { shape: [outputs, inputs], kind: 'linear' });
    if (bias) shapes.set(`${name}.bias`, { shape: [outputs], kind: 'bias' });
  };
  const norm = (name: string, size: number): void => {
    shapes.set(`${name}.weight`, { shape: [size], kind: 'norm' });
  };

  shapes.set('model.embed_tokens.weight', { shape: [vocabSize, hiddenSize], kind: 'embedding' });
  for (let index = 0; index < config.numLayers; index++) {
    const layer = `model.layers.${index}`;
    norm(`${layer}.input_layernorm`, hiddenSize);
    linear(`${layer}.self_attn.q_proj`, queries, hiddenSize, config.attentionBias);
    linear(`${layer}.self_attn.k_proj`, keys, hiddenSize, config.attentionBias);
    linear(`${layer}.self_attn.v_proj`, keys, hiddenSize, config.attentionBias);
    linear(`${layer}.self_attn.o_proj`, hiddenSize, queries, config.attentionOutputBias);
    if (config.qkNorm) {
      norm(`${layer}.self_attn.q_norm`, headDim);
      norm(`${layer}.self_attn.k_norm`, headDim);
    }
    norm(`${layer}.post_attention_layernorm`, hiddenSize);
    linear(`${layer}.mlp.gate_proj`, intermediateSize, hiddenSize, config.mlpBias);
    linear(`${layer}.mlp.up_proj`, intermediateSize, hiddenSize, config.mlpBias);
    linear(`${layer}.mlp.down_proj`, hiddenSize, intermediateSize, config.mlpBias);
  }
  norm('model.norm', hiddenSize);
  if (!config.tieWordEmbeddings) linear('lm_head', vocabSize, hiddenSize, false);
  return shapes;
}
