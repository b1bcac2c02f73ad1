/** What every layer is: parameters and children under names. Knows no forward pass; layers define their own. */
import { isFloatingPoint, keep, type Tensor } from '../torch/index.js';

/**
 * A layer, or a tree of layers. Parameters live outside of every `tidy` until `dispose`, and require a gradient until
 * `freeze`.
 */
export class Module {
  private readonly ownParameters = new Map<string, Tensor>();
  private readonly children = new Map<string, Module>();

  /** Registers a parameter under `name`, takes it out of the `tidy` it was made in and gives it back. */
  protected parameter(name: string, tensor: Tensor): Tensor {
    keep(tensor);
    if (isFloatingPoint(tensor.dtype)) tensor.requiresGrad = true;
    this.ownParameters.set(name, tensor);
    return tensor;
  }

  /** Registers a layer under `name`, which may hold dots, and gives it back. */
  protected child<Layer extends Module>(name: string, layer: Layer): Layer {
    this.children.set(name, layer);
    return layer;
  }

  /** Every parameter below, by its dotted name, in the order of registration. */
  namedParameters(): Map<string, Tensor> {
    const named = new Map(this.ownParameters);
    for (const [name, layer] of this.children)
      for (const [rest, tensor] of layer.namedParameters()) named.set(`${name}.${rest}`, tensor);
    return named;
  }

  /** Every layer below, by its dotted name, in the order of registration; each before those inside it. */
  namedModules(): Map<string, Module> {
    const named = new Map<string, Module>();
    for (const [name, layer] of this.children) {
      named.set(name, layer);
      for (const [rest, inner] of layer.namedModules()) named.set(`${name}.${rest}`, inner);
    }
    return named;
  }

  /** Every parameter below, in the order of registration. */
  parameters(): Tensor[] {
    return [...this.namedParameters().values()];
  }

  /** Lets no parameter below require a gradient from now on, and drops the gradients they have. For references. */
  freeze(): this {
    for (const tensor of this.parameters()) {
      tensor.grad = null;
      tensor.requiresGrad = false;
    }
    return this;
  }

  /** Frees every parameter below. The module is of no use afterwards. */
  dispose(): void {
    for (const tensor of this.parameters()) tensor.dispose();
  }
}
