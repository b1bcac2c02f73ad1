import { ShapeError } from '../errors/index.js';
import { assertPositive, showShape, type Tensor } from '../torch/index.js';
import { Module } from './module.js';

/**
 * Root-mean-square normalisation over the last dimension.
 *
 *     y = weight · x / √(mean(x²) + eps)
 *
 * Source: Zhang & Sennrich 2019, arXiv:1910.07467, Eq. 4. The statistics are computed in float32 (float64 for float64),
 * and the normalised value is cast back to the input's dtype *before* it is scaled, as Llama and Qwen do; scaling first
 * changes bfloat16 outputs.
 */
export class RMSNorm extends Module {
  /** [D]. Checkpoint key: `weight`. */
  readonly weight: Tensor;
  readonly eps: number;

  /** @throws ShapeError unless weight is [D]; ValueRangeError unless eps is positive */
  constructor(weight: Tensor, eps = 1e-6) {
    super();
    if (weight.ndim !== 1)
      throw new ShapeError(`RMSNorm: expected weight [D], received ${showShape(weight.shape)}.`);
    assertPositive('RMSNorm', 'eps', eps);
    this.weight = this.parameter('weight', weight);
    this.eps = eps;
  }

  /**
   * @param x [..., D]
   * @returns [..., D], same dtype as `x`
   * @throws ShapeError when the last dimension differs from the weight's
   */
  forward(x: Tensor): Tensor {
    if (x.shape.at(-1) !== this.weight.shape[0])
      throw new ShapeError(
        `RMSNorm: expected the last dimension of x to be ${this.weight.shape[0]}, received ${showShape(x.shape)}.`,
      );
    const { dtype } = x;
    // libtorch's own rms_norm scales before it casts, which is the same thing only where there is nothing to cast.
    if (dtype === 'float32' || dtype === 'float64') return x.rmsNorm(this.weight, this.eps);
    const x32 = x.to('float32');
    const inverseRms = x32.square().mean(-1, { keepDim: true }).add(this.eps).rsqrt();
    return x32.mul(inverseRms).to(dtype).mul(this.weight);
  }
}
