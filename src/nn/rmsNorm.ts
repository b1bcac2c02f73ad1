import { ShapeError } from '../errors/index.js';
import { assertPositive, showShape, type NormFactors, type Tensor } from '../torch/index.js';
import { Module } from './module.js';

/** Options of `RMSNorm`. */
export interface RMSNormOptions {
  /** The weight is stored less 1 and added to 1 (Gemma); false unless said. */
  readonly plusOne?: boolean;
}

/**
 * Root-mean-square normalisation over the last dimension.
 *
 *     y = weight · x / √(mean(x²) + eps)
 *
 * Source: Zhang & Sennrich 2019, arXiv:1910.07467, Eq. 4. The statistics are computed in float32 (float64 for float64),
 * and the normalised value is cast back to the input's dtype *before* it is scaled, as Llama and Qwen do; scaling first
 * changes bfloat16 outputs. With `plusOne` it is scaled by 1 + weight in float32 and cast *after* that, as Gemma does.
 */
export class RMSNorm extends Module {
  /** [D]. Checkpoint key: `weight`. */
  readonly weight: Tensor;
  readonly eps: number;
  readonly plusOne: boolean;

  /** @throws ShapeError unless weight is [D]; ValueRangeError unless eps is positive */
  constructor(weight: Tensor, eps = 1e-6, { plusOne = false }: RMSNormOptions = {}) {
    super();
    if (weight.ndim !== 1)
      throw new ShapeError(`RMSNorm: expected weight [D], received ${showShape(weight.shape)}.`);
    assertPositive('RMSNorm', 'eps', eps);
    this.weight = this.parameter('weight', weight);
    this.eps = eps;
    this.plusOne = plusOne;
  }

  /**
   * @param x [..., D]
   * @returns [..., D], same dtype as `x`
   * @throws ShapeError when the last dimension differs from the weight's
   */
  forward(x: Tensor): Tensor {
    const factors = this.factorsOf(x);
    if (factors !== null) return x.rmsNorm(factors.weight, factors.eps);
    const x32 = x.to('float32');
    const inverseRms = x32.square().mean(-1, { keepDim: true }).add(this.eps).rsqrt();
    return x32.mul(inverseRms).to(x.dtype).mul(this.weight);
  }

  /**
   * What a layer that reads the result may normalise x by itself; null where the result is wider than x, as that of a
   * bfloat16 input and a float32 weight is.
   *
   * @throws ShapeError when the last dimension differs from the weight's
   */
  factorsOf(x: Tensor): NormFactors | null {
    const { weight, eps, plusOne } = this;
    if (x.shape.at(-1) !== weight.shape[0])
      throw new ShapeError(
        `RMSNorm: expected the last dimension of x to be ${weight.shape[0]}, received ${showShape(x.shape)}.`,
      );
    const isWide = x.dtype === 'float32' || x.dtype === 'float64';
    if (plusOne) return { weight: weight.to(isWide ? x.dtype : 'float32').add(1), eps };
    return isWide || weight.dtype === x.dtype ? { weight, eps } : null;
  }
}
