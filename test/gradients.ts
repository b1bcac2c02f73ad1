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
