import { ShapeError } from '../errors/index.js';
import { embedding, showShape, type Tensor } from '../torch/index.js';
import { Module } from './module.js';

/** A table of vectors, one per id. */
export class Embedding extends Module {
  /** [V, D]. Checkpoint key: `weight`. */
  readonly weight: Tensor;

  /** @throws ShapeError unless weight is [V, D] */
  constructor(weight: Tensor) {
    super();
    if (weight.ndim !== 2)
      throw new ShapeError(
        `Embedding: expected weight [V, D], received ${showShape(weight.shape)}.`,
      );
    this.weight = this.parameter('weight', weight);
  }

  /**
   * @param ids [...] int64, each from 0 to V − 1
   * @returns [..., D]
   */
  forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids);
  }
}
