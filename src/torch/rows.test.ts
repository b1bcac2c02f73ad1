import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  fewRowsLinear,
  Generator,
  getNumThreads,
  grad,
  noGrad,
  randn,
  setNumThreads,
  tidy,
  type Tensor,
} from './index.js';

const generator = new Generator(9);
const random = (...shape: number[]): Tensor => randn(shape, { generator });

describe('fewRowsLinear', () => {
  // Widths below, at and above the 16 and 32 numbers that are taken at a time; outputs below and above 4 and 32.
  for (const rows of [1, 2, 4])
    for (const inputs of [1, 15, 16, 31, 32, 33, 100])
      for (const outputs of [1, 3, 4, 33, 70])
        test(`[${rows}, ${inputs}] times [${outputs}, ${inputs}]ᵀ is that of linear`, () => {
          tidy(() => {
            const [x, weight, bias] = [
              random(rows, inputs),
              random(outputs, inputs),
              random(outputs),
            ];
            const close = { rtol: 1e-5, atol: 1e-5 };
            expectClose(fewRowsLinear(x, weight), x.linear(weight).toArray(), close);
            expectClose(fewRowsLinear(x, weight, bias), x.linear(weight, bias).toArray(), close);
          });
        });

  test('sums bfloat16 in float32 and rounds once', () => {
    tidy(() => {
      const [x, weight, bias] = [random(1, 100), random(40, 100), random(40)].map((each) =>
        each.to('bfloat16'),
      ) as [Tensor, Tensor, Tensor];
      const exact = x
        .to('float64')
        .linear(weight.to('float64'), bias.to('float64'))
        .to('bfloat16')
        .to('float32');
      const found = fewRowsLinear(x, weight, bias);
      assert.equal(found.dtype, 'bfloat16');
      // A sum that lies between two numbers of bfloat16 may go to either: one in 2⁸.
      expectClose(found.to('float32'), exact.toArray(), { rtol: 2 ** -7, atol: 1e-6 });
    });
  });

  test('gives the same on one thread as on several', () => {
    const threads = getNumThreads();
    tidy(() => {
      const [x, weight] = [random(2, 300), random(500, 300)];
      const several = fewRowsLinear(x, weight).toArray();
      setNumThreads(1);
      try {
        assert.deepEqual(fewRowsLinear(x, weight).toArray(), several);
      } finally {
        setNumThreads(threads);
      }
    });
  });

  test('of other dtypes and layouts is linear', () => {
    tidy(() => {
      const [x, weight] = [random(2, 20), random(20, 30).transpose(0, 1)];
      expectClose(fewRowsLinear(x, weight), x.linear(weight).toArray(), { rtol: 1e-5, atol: 1e-5 });
      const wide = [x.to('float64'), weight.to('float64')] as const;
      expectClose(fewRowsLinear(...wide), wide[0].linear(wide[1]).toArray(), { rtol: 1e-12 });
      assert.throws(() => fewRowsLinear(x, random(30, 21)), /mat1 and mat2|size mismatch|shapes/);
    });
  });
});

describe('rmsNorm of float32', () => {
  /** By its definition, in operators that have gradients. */
  const byHand = (x: Tensor, weight: Tensor, eps: number): Tensor =>
    x.mul(x.square().mean(-1, { keepDim: true }).add(eps).rsqrt()).mul(weight);

  for (const shape of [[3], [1, 16], [7, 100], [2, 300, 33], [700, 64]])
    test(`gives the values and gradients of its definition: [${shape.join(', ')}]`, () => {
      tidy(() => {
        const x = random(...shape).requiresGrad_();
        const weight = random(shape.at(-1) ?? 1).requiresGrad_();
        const towards = random(...shape);
        const [y, expected] = [x.rmsNorm(weight, 0.1), byHand(x, weight, 0.1)];
        const close = { rtol: 1e-4, atol: 1e-5 };
        expectClose(y.detach(), expected.detach().toArray(), close);
        const found = grad([y.mul(towards).sum()], [x, weight]);
        const wanted = grad([expected.mul(towards).sum()], [x, weight]);
        found.forEach((gradient, index) => {
          assert.ok(gradient);
          expectClose(gradient, wanted[index]?.toArray() ?? [], close);
        });
      });
    });

  test('reads views that are not contiguous', () => {
    tidy(() => {
      const x = random(20, 6).transpose(0, 1);
      const weight = random(40).narrow(0, 3, 20);
      expectClose(x.rmsNorm(weight, 1e-6), byHand(x, weight, 1e-6).toArray(), {
        rtol: 1e-5,
        atol: 1e-6,
      });
    });
  });

  test('can be differentiated twice', () => {
    tidy(() => {
      const x = random(5, 8).requiresGrad_();
      const weight = random(8).requiresGrad_();
      const twice = (y: Tensor): Tensor => {
        const [once] = grad([y.square().sum()], [x], { createGraph: true });
        const [found] = grad([(once as Tensor).square().sum()], [weight]);
        return found as Tensor;
      };
      expectClose(twice(x.rmsNorm(weight, 0.1)), twice(byHand(x, weight, 0.1)).toArray(), {
        rtol: 1e-3,
        atol: 1e-3,
      });
    });
  });

  test('gives a frozen weight no gradient, and records nothing where none is asked for', () => {
    tidy(() => {
      const [x, weight] = [random(4, 8).requiresGrad_(), random(8)];
      x.rmsNorm(weight, 1e-6).sum().backward();
      assert.equal(weight.grad, null);
      assert.equal(noGrad(() => x.rmsNorm(weight, 1e-6)).requiresGrad, false);
    });
  });
});
