import {
  deriveSeed,
  Generator,
  ones,
  randn,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import { FULL_PRECISION, type ComputeSettings } from './computeSettings.js';
import { Decoder } from './decoder.js';
import type { DecoderConfig } from './decoderConfig.js';
import { parameterShapes, type ParameterShape } from './parameterShapes.js';

/** Options of `createModel`. */
export interface CreateModelOptions {
  /** A non-negative integer. The same one gives the same weights in every dtype and on every device. */
  readonly seed: number;
  /** float32 unless said. */
  readonly dtype?: Dtype | undefined;
  /** cpu unless said. */
  readonly device?: string | undefined;
  /** In which numbers it computes: those of `dtype` unless said. */
  readonly compute?: ComputeSettings | undefined;
}

/**
 * A model with random weights: normal with mean 0 and standard deviation `initializerRange` for the embedding and every
 * linear layer, ones for norms (zeros where they are added to 1), zeros for biases. No row of the embedding is special, the padding token's neither.
 *
 * Each tensor is drawn in float32 on the CPU from a stream of its own, derived from the seed and its name, so no tensor
 * depends on how many others there are.
 */
export function createModel(config: DecoderConfig, options: CreateModelOptions): Decoder {
  const { seed, dtype = 'float32', device = 'cpu' } = options;
  const values = tidy(() => {
    const weights = new Map<string, Tensor>();
    for (const [name, parameter] of parameterShapes(config)) {
      const made = initialValue(parameter, config, deriveSeed(seed, 'init', name));
      weights.set(name, made.to({ dtype, device }));
    }
    return weights;
  });
  const model = new Decoder(config, values);
  model.compute = options.compute ?? FULL_PRECISION;
  return model;
}

function initialValue(
  { shape, kind }: ParameterShape,
  { initializerRange, norm }: DecoderConfig,
  seed: number,
): Tensor {
  switch (kind) {
    case 'norm':
      return norm === 'rmsPlusOne' ? zeros(shape) : ones(shape);
    case 'bias':
      return zeros(shape);
    case 'linear':
    case 'embedding':
      return randn(shape, { generator: new Generator(seed) }).mul(initializerRange);
  }
}
