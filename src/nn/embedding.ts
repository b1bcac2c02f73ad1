import { ShapeError } from '../errors/index.js';
import { embedding, full, showShape, tidy, type Tensor } from '../torch/index.js';
import { Module } from './module.js';

/** A table of vectors, one per id. */
export class Embedding extends Module {
  /** [V, D]. Checkpoint key: `weight`. */
  readonly weight: Tensor;
  /** What every vector is multiplied by. */
  readonly scale: number;

  /**
   * @param scale rounded to the weight's dtype before it multiplies, as Gemma does
   * @throws ShapeError unless weight is [V, D]
   */
  constructor(weight: Tensor, scale = 1) {
    super();
    if (weight.ndim !== 2)
      throw new ShapeError(
        `Embedding: expected weight [V, D], received ${showShape(weight.shape)}.`,
      );
    this.weight = this.parameter('weight', weight);
    this.scale = tidy(() => full([], scale, { dtype: weight.dtype }).item());
  }

  /**
   * @param ids [...] int64, each from 0 to V − 1
   * @returns [..., D]
   */
  forward(ids: Tensor): Tensor {
    const vectors = embedding(this.weight, ids);
    return this.scale === 1 ? vectors : vectors.mul(this.scale);
  }
}
