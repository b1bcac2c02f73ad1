/** A fused operator against what it stands for: values and gradients of both. */
import assert from 'node:assert/strict';
import { Generator, randn, tidy, type Dtype, type Tensor } from '../src/torch/index.js';
import { expectClose } from './expect.js';

/** Per dtype: how far the fused way may be from the plain one in float64. */
export const CLOSE = {
  float64: { rtol: 1e-12, atol: 1e-13 },
  float32: { rtol: 1e-5, atol: 1e-5 },
  bfloat16: { rtol: 2 ** -7, atol: 2 ** -7 },
} as const;
export type Tested = keyof typeof CLOSE;
export const TESTED_DTYPES = Object.keys(CLOSE) as Tested[];

/** Values and the gradients of Σ y·c for fixed c, computed from copies of `inputs` in `dtype`. */
export function valuesAndGradients(
  inputs: readonly Tensor[],
  dtype: Dtype,
  compute: (...inputs: Tensor[]) => Tensor,
): Tensor[] {
  const leaves = inputs.map((input) => input.to(dtype).clone().requiresGrad_());
  const y = compute(...leaves);
  const weights = randn(y.shape, { generator: new Generator(8) }).to(y.dtype);
  y.mul(weights).sum().backward();
  return [y.detach(), ...leaves.map(({ grad: found }) => found as Tensor)];
}

/** `fused` in `dtype` against `plain` in float64 on the same rounded inputs. */
export function expectSameGradients(
  inputs: readonly Tensor[],
  dtype: Tested,
  fused: (...inputs: Tensor[]) => Tensor,
  plain: (...inputs: Tensor[]) => Tensor,
): void {
  tidy(() => {
    const rounded = inputs.map((input) => input.to(dtype));
    const found = valuesAndGradients(rounded, dtype, fused);
    const expected = valuesAndGradients(rounded, 'float64', plain);
    found.forEach((tensor, index) => {
      assert.equal(tensor.dtype, dtype);
      expectClose(tensor.to('float64'), (expected[index] as Tensor).toArray(), CLOSE[dtype]);
    });
  });
}

/** As far as bfloat16 allows: values and gradients of `fused` in it from those of `plain` in float64, relative to their norms. */
export function expectNear(
  inputs: readonly Tensor[],
  fused: (...inputs: Tensor[]) => Tensor,
  plain: (...inputs: Tensor[]) => Tensor,
): void {
  tidy(() => {
    const rounded = inputs.map((input) => input.to('bfloat16'));
    const found = valuesAndGradients(rounded, 'bfloat16', fused);
    const expected = valuesAndGradients(rounded, 'float64', plain);
    found.forEach((tensor, index) => {
      assert.equal(tensor.dtype, 'bfloat16');
      const other = expected[index] as Tensor;
      const distance = tensor.to('float64').sub(other).norm().item();
      assert.ok(distance < 0.02 * other.norm().item(), `${index}: ${distance}`);
    });
  });
}

/** Where one input alone is trained, it has the gradient of `plain`, and the others have none. */
export function expectOwnGradients(
  inputs: readonly Tensor[],
  fused: (...inputs: Tensor[]) => Tensor,
  plain: (...inputs: Tensor[]) => Tensor,
): void {
  tidy(() => {
    for (const [index, leaf] of inputs.entries()) {
      leaf.requiresGrad_();
      const [found, expected] = [fused, plain].map((compute) => {
        const loss = compute(...inputs)
          .square()
          .sum();
        loss.backward();
        inputs.forEach((other, at) => assert.equal(other.grad !== null, at === index));
        const gradient = leaf.grad as Tensor;
        leaf.grad = null;
        return gradient;
      }) as [Tensor, Tensor];
      expectClose(found, expected.toArray(), { rtol: 1e-4, atol: 1e-4 });
      leaf.requiresGrad = false;
    }
  });
}
