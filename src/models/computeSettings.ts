/** In which numbers a decoder computes. Its weights keep their dtype. */

/** How a model computes, in training and in sampling alike. */
export interface ComputeSettings {
  /**
   * `full` computes in the dtype of the weights. `bf16-mixed` keeps float32 weights, gradients and residual stream and
   * computes matrix products and attention in bfloat16; norms, softmax and everything after the logits stay in float32.
   */
  readonly precision: 'full' | 'bf16-mixed';
  /** The output layer computes in float32 whatever the rest computes in; nothing changes where that is float32 or wider. */
  readonly float32Head: boolean;
  /** Each layer keeps its input only and is computed again in the backward pass. Never changes the result. */
  readonly gradientCheckpointing: boolean;
}

/** As the weights are. */
export const FULL_PRECISION: ComputeSettings = {
  precision: 'full',
  float32Head: false,
  gradientCheckpointing: false,
};
