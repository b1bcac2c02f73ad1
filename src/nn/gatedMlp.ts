import type { Tensor } from '../torch/index.js';
import type { Linear } from './linear.js';
import { Module } from './module.js';

/**
 * The gated feed-forward layer of Llama and Qwen.
 *
 *     y = down(silu(gate(x)) · up(x))
 *
 * Source: Shazeer 2020 (SwiGLU), arXiv:2002.05202, Eq. 6.
 */
export class GatedMlp extends Module {
  /** [inner, width] */
  readonly gateProj: Linear;
  /** [inner, width] */
  readonly upProj: Linear;
  /** [width, inner] */
  readonly downProj: Linear;

  constructor(parts: { gateProj: Linear; upProj: Linear; downProj: Linear }) {
    super();
    this.gateProj = this.child('gate_proj', parts.gateProj);
    this.upProj = this.child('up_proj', parts.upProj);
    this.downProj = this.child('down_proj', parts.downProj);
  }

  /**
   * @param x [..., width]
   * @returns [..., width]
   */
  forward(x: Tensor): Tensor {
    return this.downProj.forward(this.gateProj.forward(x).silu().mul(this.upProj.forward(x)));
  }
}
