import { ShapeError } from '../errors/index.js';
import { assertPositive, showShape, type Tensor } from '../torch/index.js';
import { Module } from './module.js';

/**
 * Layer normalisation over the last dimension.
 *
 *     y = weight · (x − mean(x)) / √(var(x) + eps) + bias
 *
 * Source: Ba et al. 2016, arXiv:1607.06450, Eq. 4; the variance is the biased one.
 */
export class LayerNorm extends Module {
  /** [D]. Checkpoint key: `weight`. */
  readonly weight: Tensor;
  /** [D]. Checkpoint key: `bias`. */
  readonly bias: Tensor;
  readonly eps: number;

  /** @throws ShapeError unless weight and bias are [D]; ValueRangeError unless eps is positive */
  constructor(weight: Tensor, bias: Tensor, eps = 1e-5) {
    super();
    if (weight.ndim !== 1 || bias.ndim !== 1 || bias.shape[0] !== weight.shape[0])
      throw new ShapeError(
        `LayerNorm: expected weight and bias [D], received ${showShape(weight.shape)} and ${showShape(bias.shape)}.`,
      );
    assertPositive('LayerNorm', 'eps', eps);
    this.weight = this.parameter('weight', weight);
    this.bias = this.parameter('bias', bias);
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
        `LayerNorm: expected the last dimension of x to be ${this.weight.shape[0]}, received ${showShape(x.shape)}.`,
      );
    return x.layerNorm(this.weight, this.bias, this.eps);
  }
}
