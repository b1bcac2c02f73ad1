import { ShapeError, ValueRangeError } from '../errors/index.js';
import { embedding, full, noGrad, showShape, tidy, type Tensor } from '../torch/index.js';
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
   * @throws ValueRangeError for an id outside of the table, on the CPU: CUDA tells later and ends the process
   */
  forward(ids: Tensor): Tensor {
    const vectors = this.lookUp(ids);
    return this.scale === 1 ? vectors : vectors.mul(this.scale);
  }

  private lookUp(ids: Tensor): Tensor {
    try {
      return embedding(this.weight, ids);
    } catch (cause) {
      // Looked at only now: where nothing is wrong the ids are not read.
      if (ids.device !== 'cpu' || ids.numel === 0) throw cause;
      const rows = this.weight.size(0);
      const wrong = noGrad(() =>
        tidy(() => [ids.flatten().max(0), ids.flatten().min(0)].map(({ values }) => values.item())),
      ).find((id) => id < 0 || id >= rows);
      if (wrong === undefined) throw cause;
      throw new ValueRangeError(
        `Embedding: expected ids from 0 to ${rows - 1}, received ${wrong}.`,
        { cause, hint: 'The tokenizer may belong to another model.' },
      );
    }
  }
}
