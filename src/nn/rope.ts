/**
 * Rotary position embeddings in the half-split form of Hugging Face's checkpoints: dimension i turns together with
 * dimension i + D/2 (and not with its neighbour, as in the paper; the two differ by a permutation of the weights).
 *
 * Source: Su et al. 2021, arXiv:2104.09864, Eq. 34; scaling as in transformers' rope utilities.
 */
import { ValueRangeError } from '../errors/index.js';
import { cat, full, rotateHalf, tensor, tidy, type Dtype, type Tensor } from '../torch/index.js';

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
    }
  | {
      /**
       * θ grows with a row's length beyond the original context, so that its longest wavelength is stretched as far as
       * the row is too long ("dynamic NTK", from transformers; no paper).
       */
      readonly type: 'dynamic';
      readonly factor: number;
      readonly originalMaxPositionEmbeddings: number;
    }
  | {
      /** Slow dimensions divided by `factor`, fast ones kept, a ramp between. Peng et al. 2023, arXiv:2309.00071, §3.2. */
      readonly type: 'yarn';
      readonly factor: number;
      /** Multiplies cosines and sines, so scores by its square; the paper's √(1/t). */
      readonly attentionFactor: number;
      /** Dimensions that turn more often than this in the original context are kept. */
      readonly betaFast: number;
      /** Dimensions that turn less often than this are divided. */
      readonly betaSlow: number;
      /** Whether the ends of the ramp are rounded to whole dimensions. */
      readonly truncate: boolean;
      readonly originalMaxPositionEmbeddings: number;
    }
  | {
      /**
       * One divisor per frequency, of two lists: one for rows within the original context, one for longer ones. Ding et
       * al. 2024, arXiv:2402.13753; Phi-3 calls it "su".
       */
      readonly type: 'longrope';
      /** [R/2] */
      readonly shortFactor: readonly number[];
      /** [R/2] */
      readonly longFactor: readonly number[];
      /** Multiplies cosines and sines. */
      readonly attentionFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    };

/** What the frequencies depend on. */
export interface RopeSettings {
  /** D: size of one head. */
  readonly headDim: number;
  /** R: how many numbers of a head turn, the first ones; even, headDim unless said. */
  readonly rotaryDim?: number | undefined;
  /** θ: wavelengths run from 2π to 2π·θ. */
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
}

/**
 * The angle per position of each pair of dimensions.
 *
 *     f_i = θ^(−2i/R), i = 0 … R/2 − 1, then scaled
 *
 * Computed step by step in float32 as transformers does, because at position 10,000 the last bit of a frequency is seen
 * in the logits.
 *
 * @param length tokens of the row, which `dynamic` and `longrope` depend on; 0 stands for a row within the original
 *   context
 * @returns [R/2] radians per position; every value is a float32
 * @throws ValueRangeError when R is odd, or longrope has another number of factors
 */
export function ropeInverseFrequencies(settings: RopeSettings, length = 0): Float64Array {
  const { headDim, rotaryDim = headDim, ropeTheta, ropeScaling: scaling } = settings;
  if (rotaryDim % 2 !== 0)
    throw new ValueRangeError(`rope: expected an even headDim, received ${rotaryDim}.`);
  const half = rotaryDim / 2;
  const exponents = Float32Array.from({ length: half }, (_, i) => f32(2 * i) / rotaryDim);
  const powers = tidy(() => {
    const theta =
      scaling?.type === 'dynamic' ? dynamicTheta(settings, scaling, length) : full([], ropeTheta);
    return theta.expand([half]).pow(tensor(exponents)).toTypedArray();
  });
  if (scaling?.type === 'yarn') return yarnFrequencies(settings, scaling, powers);
  if (scaling?.type === 'longrope') {
    const isLong = length > scaling.originalMaxPositionEmbeddings;
    const factors = isLong ? scaling.longFactor : scaling.shortFactor;
    if (factors.length !== half)
      throw new ValueRangeError(
        `rope: expected ${half} factors of longrope, one per frequency, received ${factors.length}.`,
      );
    return Float64Array.from(powers, (power, i) => f32(1 / f32(f32(factors[i] ?? 1) * power)));
  }
  return Float64Array.from(powers, (power) => scale(f32(1 / power), scaling));
}

type ScalingOf<Type> = Extract<RopeScaling, { type: Type }>;

/** What cosines and sines are multiplied by: 1 for everything but yarn and longrope. */
export function ropeAttentionFactor({ ropeScaling }: RopeSettings): number {
  return ropeScaling && 'attentionFactor' in ropeScaling ? ropeScaling.attentionFactor : 1;
}

/**
 * The length that stands for all lengths with the same frequencies as `length`: rows need other rotations than before
 * when it changes. 0 where frequencies do not depend on the length.
 */
export function ropeLength({ ropeScaling: scaling }: RopeSettings, length: number): number {
  if (scaling?.type !== 'dynamic' && scaling?.type !== 'longrope') return 0;
  const original = scaling.originalMaxPositionEmbeddings;
  if (length <= original) return original;
  return scaling.type === 'dynamic' ? length : original + 1;
}

// Each operation is rounded to float32 by itself, which is what float32 tensors do.
const f32 = Math.fround;

/**
 * θ of a row of `length` tokens, [].
 *
 *     θ' = θ · (factor · max(length, L₀)/L₀ − (factor − 1))^(R/(R − 2))
 */
function dynamicTheta(
  { headDim, rotaryDim = headDim, ropeTheta }: RopeSettings,
  { factor, originalMaxPositionEmbeddings: original }: ScalingOf<'dynamic'>,
  length: number,
): Tensor {
  const times = f32(f32(factor * Math.max(length, original)) / original);
  return full([], f32(times - (factor - 1)))
    .pow(rotaryDim / (rotaryDim - 2))
    .mul(ropeTheta);
}

/**
 * The dimension that turns `turns` times in the original context.
 *
 *     R · ln(L₀ / (2π·turns)) / (2·ln θ)
 */
function dimensionOf(turns: number, dim: number, theta: number, original: number): number {
  return (dim * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
}

function yarnFrequencies(
  { headDim, rotaryDim = headDim, ropeTheta }: RopeSettings,
  { factor, betaFast, betaSlow, truncate, originalMaxPositionEmbeddings }: ScalingOf<'yarn'>,
  powers: ArrayLike<number>,
): Float64Array {
  const end = (turns: number): number =>
    dimensionOf(turns, rotaryDim, ropeTheta, originalMaxPositionEmbeddings);
  const first = truncate ? Math.floor(end(betaFast)) : end(betaFast);
  const last = truncate ? Math.ceil(end(betaSlow)) : end(betaSlow);
  const low = Math.max(first, 0);
  const high = Math.min(last, rotaryDim - 1);
  const width = high === low ? 0.001 : high - low;
  return Float64Array.from({ length: powers.length }, (_, i) => {
    const power = powers[i] ?? 1;
    const ramp = Math.min(1, Math.max(0, f32(f32(i - low) / f32(width))));
    const kept = f32(1 - ramp);
    const divided = f32(1 / f32(f32(factor) * power));
    return f32(f32(divided * f32(1 - kept)) + f32(f32(1 / power) * kept));
  });
}

function scale(frequency: number, scaling: RopeScaling | null): number {
  if (scaling?.type !== 'linear' && scaling?.type !== 'llama3') return frequency;
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

/** The rotation of each position, to be applied to queries and keys of a layer. */
export interface Rotation {
  /** [..., L, 1, R] the cosine of each dimension's angle; both halves are the same. */
  readonly cos: Tensor;
  /** [..., L, 1, R] */
  readonly sin: Tensor;
}

/**
 * Cosines and sines at the given positions, computed in float32 whatever the model's dtype, then cast.
 *
 * @param inverseFrequencies [R/2] float32, from `ropeInverseFrequencies`; or one set per row, [B, 1, 1, R/2]
 * @param positions [..., L] integers
 * @param factor what both are multiplied by, from `ropeAttentionFactor`
 */
export function ropeRotation(
  inverseFrequencies: Tensor,
  positions: Tensor,
  dtype: Dtype,
  factor = 1,
): Rotation {
  return tidy(() => {
    const angles = positions.to('float32').unsqueeze(-1).unsqueeze(-1).mul(inverseFrequencies);
    const both = cat([angles, angles], -1);
    return { cos: both.cos().mul(factor).to(dtype), sin: both.sin().mul(factor).to(dtype) };
  });
}

/**
 * Turns each pair of dimensions by its angle; what stands beyond the first R numbers of a head stays as it is.
 *
 *     y[i] = x[i]·cos − x[i + R/2]·sin;  y[i + R/2] = x[i + R/2]·cos + x[i]·sin
 *
 * @param x [..., L, H, D]
 * @returns same shape
 */
export function applyRope(x: Tensor, { cos, sin }: Rotation): Tensor {
  return rotateHalf(x, cos, sin);
}
