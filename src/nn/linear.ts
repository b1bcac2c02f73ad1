import { ShapeError } from '../errors/index.js';
import { showShape, type Tensor } from '../torch/index.js';
import { Module } from './module.js';

/**
 * An affine map of the last dimension.
 *
 *     y = x · weightᵀ + bias
 */
export class Linear extends Module {
  /** [out, in]. Checkpoint key: `weight`. */
  readonly weight: Tensor;
  /** [out], or null without one. Checkpoint key: `bias`. */
  readonly bias: Tensor | null;

  /** @throws ShapeError unless weight is [out, in] and bias, where there is one, [out] */
  constructor(weight: Tensor, bias: Tensor | null = null) {
    super();
    if (weight.ndim !== 2)
      throw new ShapeError(
        `Linear: expected weight [out, in], received ${showShape(weight.shape)}.`,
      );
    if (bias !== null && (bias.ndim !== 1 || bias.shape[0] !== weight.shape[0]))
      throw new ShapeError(
        `Linear: expected bias [${weight.shape[0]}], received ${showShape(bias.shape)}.`,
      );
    this.weight = this.parameter('weight', weight);
    this.bias = bias === null ? null : this.parameter('bias', bias);
  }

  /**
   * @param x [..., in]
   * @returns [..., out]
   */
  forward(x: Tensor): Tensor {
    return x.linear(this.weight, this.bias);
  }
}

/** A layer and the name that it has in its parent. */
export type NamedLinear = readonly [name: string, layer: Linear];
