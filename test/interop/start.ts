/**
 * The model that training begins with here and in TRL: weights that are arithmetic, not a file.
 *
 *     u = mix(fnv1a(name) + i) / 2³²,  weight[i] = centre + (2u − 1)·√3·std
 *
 * with the finalizer of MurmurHash3 as mix, all in 32-bit integers. tools/interop/start.py computes the same bits.
 */
import { createHash } from 'node:crypto';
import {
  addLora,
  createModel,
  createScalarModel,
  makeDecoderConfig,
  type Decoder,
  type DecoderOptions,
  type LoraOptions,
  type ScalarModel,
} from '../../src/models/index.js';
import { noGrad, tensor, type Tensor } from '../../src/torch/index.js';

/** What has parameters by the names of a checkpoint, of which training changes some. */
export interface Trained {
  namedParameters(): ReadonlyMap<string, Tensor>;
  trainedParameters(): ReadonlyMap<string, Tensor>;
}

/** A language model with the weights that both sides begin with. */
export function startModel(shape: DecoderOptions): Decoder {
  const model = createModel(makeDecoderConfig(shape), { seed: 0 });
  fill(model);
  return model;
}

/** The same with a head that gives scores. */
export function startScalarModel(shape: DecoderOptions): ScalarModel {
  const model = createScalarModel(createModel(makeDecoderConfig(shape), { seed: 0 }), {
    padTokenId: shape.padTokenId ?? undefined,
  });
  fill(model);
  return model;
}

/**
 * The same under an adapter of its own. Its B is not 0, so that the policy is not its reference, which is the model
 * without adapters.
 */
export function startAdapter(shape: DecoderOptions, lora: LoraOptions): Decoder {
  const model = startModel(shape);
  addLora(model, { ...lora, seed: 0, baseModel: null });
  fill(model);
  return model;
}

/** Matrices around 0; the weights of norms around 1. */
export function fill(model: Trained, std = 0.08): void {
  noGrad(() => {
    for (const [name, parameter] of model.trainedParameters()) {
      const [spread, centre] = parameter.ndim > 1 ? [std, 0] : [0.1, 1];
      const values = arithmetic(name, parameter.numel, spread, centre);
      parameter.copy_(tensor(values, { shape: [...parameter.shape] }));
    }
  });
}

function arithmetic(name: string, count: number, std: number, centre: number): Float32Array {
  let offset = 2166136261;
  for (const byte of new TextEncoder().encode(name)) offset = Math.imul(offset ^ byte, 16777619);
  return Float32Array.from({ length: count }, (_, index) => {
    const uniform = mix(index + offset) / 2 ** 32;
    return centre + (2 * uniform - 1) * Math.sqrt(3) * std;
  });
}

function mix(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** SHA-256 of the bytes of all parameters in the order of their names. */
export function digestOf(model: Trained): string {
  const hash = createHash('sha256');
  for (const [, values] of byName(model)) {
    const bytes = values.toTypedArray();
    hash.update(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  }
  return hash.digest('hex');
}

/** Parameters in the order of their names. */
export function byName(model: Trained): [string, Tensor][] {
  return [...model.trainedParameters()].sort(([a], [b]) => (a < b ? -1 : 1));
}
