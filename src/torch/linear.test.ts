import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { Generator, grad, noGrad, randn, tidy, useOneDnnLinear, type Tensor } from './index.js';

const generator = new Generator(5);
// Large enough for oneDNN: 2·64·512·300 multiplications are above 2²³. Sums of 512 are long enough that oneDNN and MKL add
// them in another order on every processor.
const [rows, inputs, outputs] = [64, 512, 300];
const random = (shape: number[]): Tensor => randn(shape, { generator });

interface Result {
  readonly y: Tensor;
  readonly gradients: readonly (Tensor | null)[];
}

function run(
  enabled: boolean,
  [x, weight, bias]: readonly [Tensor, Tensor, Tensor | null],
): Result {
  const set = useOneDnnLinear(enabled);
  try {
    const leaves = [x, weight, bias].map((leaf) => leaf && leaf.detach().clone());
    for (const [index, leaf] of leaves.entries())
      if (leaf) leaf.requiresGrad = [x, weight, bias][index]?.requiresGrad ?? false;
    const [ownX, ownWeight, ownBias] = leaves as [Tensor, Tensor, Tensor | null];
    const y = ownX.linear(ownWeight, ownBias);
    if (y.requiresGrad) y.square().sum().backward();
    return { y: y.detach(), gradients: leaves.map((leaf) => leaf?.grad ?? null) };
  } finally {
    useOneDnnLinear(set);
  }
}

describe('a linear layer on oneDNN', () => {
  let first = false;
  before(() => (first = useOneDnnLinear(true)));
  after(() => useOneDnnLinear(first));

  for (const [name, shape] of [
    ['[rows, in]', [2 * rows, inputs]],
    ['[B, L, in]', [2, rows, inputs]],
  ] as const)
    for (const withBias of [false, true])
      test(`gives the values and gradients of the plain one: ${name}${withBias ? ', bias' : ''}`, () => {
        tidy(() => {
          const x = random([...shape]).requiresGrad_();
          const weight = random([outputs, inputs]).requiresGrad_();
          const bias = withBias ? random([outputs]).requiresGrad_() : null;
          const [plain, fast] = [run(false, [x, weight, bias]), run(true, [x, weight, bias])];
          expectClose(fast.y, plain.y.toArray(), { rtol: 1e-5, atol: 1e-4 });
          assert.notDeepEqual(fast.y.toArray(), plain.y.toArray(), 'both took the same way');
          plain.gradients.forEach((gradient, index) => {
            const actual = fast.gradients[index];
            assert.equal(actual === null, gradient === null);
            if (gradient && actual)
              expectClose(actual, gradient.toArray(), { rtol: 1e-5, atol: 1e-2 });
          });
        });
      });

  test('gives a frozen weight no gradient', () => {
    tidy(() => {
      const [x, weight] = [random([2 * rows, inputs]).requiresGrad_(), random([outputs, inputs])];
      const { gradients } = run(true, [x, weight, null]);
      assert.ok(gradients[0]);
      assert.equal(gradients[1], null);
    });
  });

  test('can be differentiated twice', () => {
    tidy(() => {
      const x = random([2 * rows, inputs]).requiresGrad_();
      const weight = random([outputs, inputs]).requiresGrad_();
      const [once] = grad([x.linear(weight).square().sum()], [x], { createGraph: true });
      assert.ok(once);
      // d/dW of Σ (∂/∂x Σ y²)·1 = Σ 2·(x·Wᵀ)·W
      const [twice] = grad([once.sum()], [weight]);
      assert.ok(twice);
      const expected = noGrad(() => {
        const y = x.linear(weight);
        const column = weight.sum(1, { keepDim: true }); // [out, 1]
        return y
          .sum(0)
          .unsqueeze(1)
          .add(column.mul(x.sum(0).unsqueeze(0)))
          .mul(2);
      });
      expectClose(twice, expected.toArray(), { rtol: 1e-3, atol: 1e-2 });
    });
  });

  test('records nothing where no gradient is asked for', () => {
    tidy(() => {
      const [x, weight] = [random([2 * rows, inputs]), random([outputs, inputs]).requiresGrad_()];
      assert.equal(noGrad(() => x.linear(weight)).requiresGrad, false);
    });
  });
});
