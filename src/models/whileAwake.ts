/** Reading models whose weights wait on the disk. */
import { DTYPE_BYTES, giveBackHostMemory } from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import { Decoder } from './decoder.js';

/**
 * What `use` computes with a model; afterwards the model is at rest where it rests between uses. Its weights come into memory
 * that had been kept for other tensors, and not on top of it.
 */
export function whileAwake<Result>(model: CausalLm, use: () => Result): Result {
  if (!(model instanceof Decoder) || !model.rests) return use();
  let bytes = 0;
  for (const { numel, dtype } of model.parameters()) bytes += numel * DTYPE_BYTES[dtype];
  giveBackHostMemory(bytes);
  try {
    return use();
  } finally {
    model.rest();
  }
}
