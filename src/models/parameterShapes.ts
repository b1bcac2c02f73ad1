import { checkpointNames } from './checkpointNames.js';
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
  const { hiddenSize, vocabSize, headDim, experts } = config;
  const names = checkpointNames(config);
  const queries = config.numHeads * headDim;
  const keys = config.numKeyValueHeads * headDim;
  const shapes = new Map<string, ParameterShape>();
  const table = (name: string, rows: number): void => {
    shapes.set(`${name}.weight`, { shape: [rows, hiddenSize], kind: 'embedding' });
  };
  const linear = (name: string, outputs: number, inputs: number, bias: boolean): void => {
    shapes.set(`${name}.weight`, { shape: [outputs, inputs], kind: 'linear' });
    if (bias) shapes.set(`${name}.bias`, { shape: [outputs], kind: 'bias' });
  };
  const norm = (name: string, size: number): void => {
    shapes.set(`${name}.weight`, { shape: [size], kind: 'norm' });
    if (config.norm === 'layer') shapes.set(`${name}.bias`, { shape: [size], kind: 'bias' });
  };
  /** Layers side by side, or one with the rows of all. */
  const side = (parent: string, own: readonly string[], outputs: number[], bias: boolean): void => {
    const rows = own.length > 1 ? outputs : [outputs.reduce((sum, count) => sum + count, 0)];
    own.forEach((name, index) => linear(`${parent}.${name}`, rows[index] ?? 0, hiddenSize, bias));
  };
  const mlp = (name: string, inner: number): void => {
    side(name, names.mlpInputs, config.gatedMlp ? [inner, inner] : [inner], config.mlpBias);
    linear(`${name}.${names.mlpOutput}`, hiddenSize, inner, config.mlpBias);
  };

  table(names.embedding, vocabSize);
  if (names.positions !== null) table(names.positions, config.maxPositionEmbeddings);
  for (let index = 0; index < config.numLayers; index++) {
    const layer = names.layer(index);
    const attention = `${layer}.${names.attention}`;
    norm(`${layer}.${names.inputNorm}`, hiddenSize);
    side(attention, names.projections, [queries, keys, keys], config.attentionBias);
    linear(
      `${attention}.${names.attentionOutput}`,
      hiddenSize,
      queries,
      config.attentionOutputBias,
    );
    if (config.qkNorm) {
      norm(`${attention}.q_norm`, headDim);
      norm(`${attention}.k_norm`, headDim);
    }
    if (names.attentionOutputNorm !== null)
      norm(`${layer}.${names.attentionOutputNorm}`, hiddenSize);
    norm(`${layer}.${names.mlpNorm}`, hiddenSize);
    const feedForward = `${layer}.${names.mlp}`;
    if (experts?.layers[index]) {
      linear(`${feedForward}.gate`, experts.numExperts, hiddenSize, false);
      for (let expert = 0; expert < experts.numExperts; expert++)
        mlp(`${feedForward}.experts.${expert}`, experts.intermediateSize);
    } else mlp(feedForward, config.intermediateSize);
    if (names.mlpOutputNorm !== null) norm(`${layer}.${names.mlpOutputNorm}`, hiddenSize);
  }
  norm(names.finalNorm, hiddenSize);
  if (!config.tieWordEmbeddings) linear(names.head, vocabSize, hiddenSize, false);
  return shapes;
}
