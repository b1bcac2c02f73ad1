import { ShapeError, ValueRangeError } from '../errors/index.js';
import { noGrad, normLinears, showShape, tidy, type Tensor } from '../torch/index.js';
import type { LayerNorm } from './layerNorm.js';
import type { LoraAdapter } from './lora.js';
import { Module } from './module.js';
import { RMSNorm } from './rmsNorm.js';

/**
 * An affine map of the last dimension.
 *
 *     y = x · weightᵀ + bias
 *
 * and what an adapter adds to it, where there is one.
 */
export class Linear extends Module {
  /** [out, in]. Checkpoint key: `weight`. */
  readonly weight: Tensor;
  /** [out], or null without one. Checkpoint key: `bias`. */
  readonly bias: Tensor | null;
  private adapter: LoraAdapter | null = null;

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
    const y = x.linear(this.weight, this.bias);
    return this.adapter === null ? y : this.adapter.forward(x, y, this);
  }

  /** The adapter on this layer; null without one. */
  get lora(): LoraAdapter | null {
    return this.adapter;
  }

  /**
   * Puts an adapter on this layer, which owns it from now on. Whether the weight is trained stays as it is.
   *
   * @throws ShapeError unless the adapter is for a weight of this shape; ValueRangeError where there is one already
   */
  attachLora(adapter: LoraAdapter): void {
    const [outputs, inputs] = [adapter.b.shape[0], adapter.a.shape[1]];
    if (outputs !== this.weight.shape[0] || inputs !== this.weight.shape[1])
      throw new ShapeError(
        `Linear: expected an adapter for a weight ${showShape(this.weight.shape)}, received one for [${outputs}, ${inputs}].`,
      );
    if (this.adapter !== null)
      throw new ValueRangeError(
        'Linear: expected a layer without an adapter, received one that has one.',
      );
    this.adapter = adapter;
  }

  /** [out, in] The weight that this layer acts as: its own, or a copy of it with the adapter folded in. Not recorded. */
  effectiveWeight(): Tensor {
    const { adapter, weight } = this;
    if (adapter === null) return weight;
    return noGrad(() => tidy(() => adapter.merged(weight).to(weight.dtype)));
  }

  override namedParameters(): Map<string, Tensor> {
    const { adapter } = this;
    if (adapter === null) return super.namedParameters();
    return new Map([...super.namedParameters(), ...adapter.namedParameters()]);
  }
}

/** Whether layers are products with their weights, and a bias each or none: those that one call may compute. */
export function arePlain(layers: readonly Linear[]): boolean {
  const withBias = layers.filter(({ bias }) => bias !== null).length;
  return (
    layers.every(({ lora }) => lora === null) && (withBias === 0 || withBias === layers.length)
  );
}

/**
 * What layers make of x, normalised before where there is a norm.
 *
 * @param x [..., in]
 * @returns [..., out], as many as there are layers
 */
export function readNormalised(
  x: Tensor,
  norm: RMSNorm | LayerNorm | null,
  layers: readonly Linear[],
): Tensor[] {
  const factors = norm instanceof RMSNorm && arePlain(layers) ? norm.factorsOf(x) : null;
  if (factors !== null) return normLinears(x, factors, layers);
  const read = norm?.forward(x) ?? x;
  return layers.map((layer) => layer.forward(read));
}

/** A layer and the name that it has in its parent. */
export type NamedLinear = readonly [name: string, layer: Linear];
