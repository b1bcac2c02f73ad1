/**
 * Rotary position embeddings in the half-split form of Hugging Face's checkpoints: dimension i turns together with
 * dimension i + D/2 (and not with its neighbour, as in the paper; the two differ by a permutation of the weights).
 *
 * Source: Su et al. 2021, arXiv:2104.09864, Eq. 34; scaling as in transformers' rope utilities.
 */
import { ValueRangeError } from '../errors/index.js';
import { cat, full, tensor, tidy, type Dtype, type Tensor } from '../torch/index.js';

/** How frequencies are stretched for contexts longer than the model was first trained on; null for not at all. */
export type RopeScaling =
  | {
      /** Every frequency divided by `factor`. Chen et al. 2023, arXiv:2306.15595. */
      readonly type: 'linear';
      readonly factor: number;
    }
  | {
      /** Long wavelengths divided by `factor`, short ones kept, a linear passage between. Llama 3.1, arXiv:2407.21783. */
      readonly type: 'llama3';
      readonly factor: number;
      /** Wavelengths above originalMaxPositionEmbeddings / lowFreqFactor are divided. */
      readonly lowFreqFactor: number;
      /** Wavelengths below originalMaxPositionEmbeddings / highFreqFactor are kept. */
      readonly highFreqFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    };

/** What the frequencies depend on. */
export interface RopeSettings {
  /** D: size of one head, even. */
  readonly headDim: number;
  /** θ: wavelengths run from 2π to 2π·θ. */
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
}

/**
 * The angle per position of each pair of dimensions.
 *
 *     f_i = θ^(−2i/D), i = 0 … D/2 − 1, then scaled
 *
 * Computed step by step in float32 as transformers does, because at position 10,000 the last bit of a frequency is seen
 * in the logits.
 *
 * @returns [D/2] radians per position; every value is a float32
 * @throws ValueRangeError when headDim is odd
 */
export function ropeInverseFrequencies(settings: RopeSettings): Float64Array {
  const { headDim, ropeTheta, ropeScaling } = settings;
  if (headDim % 2 !== 0)
    throw new ValueRangeError(`rope: expected an even headDim, received ${headDim}.`);
  const half = headDim / 2;
  const exponents = Float32Array.from({ length: half }, (_, i) => Math.fround(2 * i) / headDim);
  const powers = tidy(() => full([half], ropeTheta).pow(tensor(exponents)).toTypedArray());
  return Float64Array.from(powers, (power) => scale(Math.fround(1 / power), ropeScaling));
}

// Each operation is rounded to float32 by itself, which is what float32 tensors do.
const f32 = Math.fround;

function scale(frequency: number, scaling: RopeScaling | null): number {
  if (scaling === null) return frequency;
  const { factor } = scaling;
  const divided = f32(frequency / f32(factor));
  if (scaling.type === 'linear') return divided;
  const { lowFreqFactor: low, highFreqFactor: high, originalMaxPositionEmbeddings } = scaling;
  const wavelength = f32(f32(2 * Math.PI) / frequency);
  if (wavelength > originalMaxPositionEmbeddings / low) return divided;
  if (wavelength < originalMaxPositionEmbeddings / high) return frequency;
  const turns = f32(f32(originalMaxPositionEmbeddings) / wavelength);
  const share = f32(f32(turns - low) / f32(high - low));
  const stretched = f32(f32(f32(1 - share) * frequency) / f32(factor));
  return f32(stretched + f32(share * frequency));
}

/** The rotation of each position, to be applied to queries and keys of every layer. */
export interface Rotation {
  /** [..., L, 1, D] the cosine of each dimension's angle; both halves are the same. */
  readonly cos: Tensor;
  /** [..., L, 1, D] */
  readonly sin: Tensor;
}

/**
 * Cosines and sines at the given positions, computed in float32 whatever the model's dtype, then cast.
 *
 * @param inverseFrequencies [D/2] float32, from `ropeInverseFrequencies`
 * @param positions [..., L] integers
 */
export function ropeRotation(
  inverseFrequencies: Tensor,
  positions: Tensor,
  dtype: Dtype,
): Rotation {
  return tidy(() => {
    const angles = positions.to('float32').unsqueeze(-1).unsqueeze(-1).mul(inverseFrequencies);
    const both = cat([angles, angles], -1);
    return { cos: both.cos().to(dtype), sin: both.sin().to(dtype) };
  });
}

/**
 * Turns each pair of dimensions by its angle.
 *
 *     y[i] = x[i]·cos − x[i + D/2]·sin;  y[i + D/2] = x[i + D/2]·cos + x[i]·sin
 *
 * @param x [..., L, H, D]
 * @returns same shape
 */
export function applyRope(x: Tensor, { cos, sin }: Rotation): Tensor {
  const half = x.size(-1) / 2;
  const turned = cat([x.narrow(-1, half, half).neg(), x.narrow(-1, 0, half)], -1);
  return x.mul(cos).add(turned.mul(sin));
}
