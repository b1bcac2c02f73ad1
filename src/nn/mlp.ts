import { gatedActivation, gatedMlp, type Tensor } from '../torch/index.js';
import { activate, type Activation } from './activation.js';
import type { LayerNorm } from './layerNorm.js';
import { arePlain, readNormalised, type Linear, type NamedLinear } from './linear.js';
import { Module } from './module.js';
import { RMSNorm } from './rmsNorm.js';

/** The parts of a feed-forward layer. */
export interface MlpParts {
  /**
   * width → inner. Gated: gate and up, [inner, width] each, or one layer that has the rows of both. Not gated: one of
   * [inner, width].
   */
  readonly inputs: readonly NamedLinear[];
  /** [width, inner] */
  readonly output: NamedLinear;
}

/** How a feed-forward layer computes. */
export interface MlpSettings {
  readonly activation: Activation;
  readonly gated: boolean;
}

/**
 * A feed-forward layer.
 *
 *     gated:      y = out(act(gate(x)) · up(x))
 *     not gated:  y = out(act(in(x)))
 *
 * Source: Shazeer 2020 (SwiGLU, GEGLU), arXiv:2002.05202, Eq. 6; not gated Vaswani et al. 2017, arXiv:1706.03762, Eq. 2.
 */
export class Mlp extends Module {
  readonly inputs: readonly Linear[];
  readonly output: Linear;
  readonly settings: MlpSettings;

  constructor({ inputs, output }: MlpParts, settings: MlpSettings) {
    super();
    this.inputs = inputs.map(([name, layer]) => this.child(name, layer));
    this.output = this.child(...output);
    this.settings = settings;
  }

  /**
   * @param x [..., width]
   * @param norm what normalises x before; null for nothing
   * @returns [..., width]
   */
  forward(x: Tensor, norm: RMSNorm | LayerNorm | null = null): Tensor {
    const { inputs, output, settings } = this;
    const [gate, up] = inputs;
    if (settings.gated && gate && up && output.bias === null && arePlain([gate, up, output])) {
      const weights = { gate: gate.weight, up: up.weight, down: output.weight };
      const factors = norm instanceof RMSNorm ? norm.factorsOf(x) : null;
      const read = factors === null ? (norm?.forward(x) ?? x) : x;
      return gatedMlp(read, weights, settings.activation, factors);
    }
    return output.forward(innerValues(readNormalised(x, norm, inputs), settings));
  }
}

/**
 * What the last product of a feed-forward layer takes.
 *
 * @param inputs what the layer's inputs computed; gate and up side by side in one tensor count as two
 */
export function innerValues(inputs: readonly Tensor[], { activation, gated }: MlpSettings): Tensor {
  const [first, up] = inputs as [Tensor, Tensor?];
  return gated ? gatedActivation(first, up ?? null, activation) : activate(first, activation);
}
