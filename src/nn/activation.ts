import type { GateActivation, Tensor } from '../torch/index.js';

/**
 * What stands between the products of a feed-forward layer: silu(x) = x·σ(x), or GELU by its tanh approximation (which
 * checkpoints call `gelu_new` and `gelu_pytorch_tanh`).
 *
 * Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2.
 */
export type Activation = GateActivation;

/** The activation of every element. */
export function activate(x: Tensor, activation: Activation): Tensor {
  return activation === 'silu' ? x.silu() : x.gelu({ approximate: 'tanh' });
}
