import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  expectNear,
  expectOwnGradients,
  expectSameGradients,
  valuesAndGradients,
} from '../../test/gradients.js';
import {
  autocast,
  gatedMlp,
  Generator,
  grad,
  hostMemory,
  normLinears,
  ones,
  randn,
  stack,
  tensor,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from './index.js';

const generator = new Generator(4);
const random = (...shape: number[]): Tensor => randn(shape, { generator });

/** x / √(mean(x²) + eps) · weight, with operators that have gradients of every order. */
function normalised(x: Tensor, weight: Tensor, eps: number): Tensor {
  return x.square().mean(-1, { keepDim: true }).add(eps).rsqrt().mul(x).mul(weight);
}

describe('rmsNorm of bfloat16', () => {
  // mean(x²) = (1 + 49)/2 = 25: 0.2 is 0.2001953125 in bfloat16 and 1.4 is 1.3984375; weights are 1.5 and 1.0078125.
  test('by hand: rounded before it is scaled by a weight of bfloat16, after it by one of float32', () => {
    tidy(() => {
      const x = tensor([[1, 7]], { dtype: 'bfloat16' });
      const weight = tensor([1.5, 1.0078125]);
      const by = (factors: Tensor): unknown => x.rmsNorm(factors, 1e-12).to('float32').toArray();
      assert.deepEqual(by(weight.to('bfloat16')), [[0.30078125, 1.40625]]);
      assert.deepEqual(by(weight), [[0.30078125, 1.4140625]]);
    });
  });

  for (const shape of [[3], [1, 16], [7, 100], [2, 300, 33], [700, 64]])
    for (const dtype of ['bfloat16', 'float32'] as const)
      test(`gives the values and gradients of its definition: [${shape.join(', ')}] by ${dtype}`, () => {
        const inputs = [random(...shape), random(shape.at(-1) ?? 1)];
        expectNear(
          inputs,
          (x, weight) => x.rmsNorm(weight.to(dtype), 0.1),
          (x, weight) => normalised(x, weight, 0.1),
        );
      });

  // 13 · 0.2001953125 is 2.6025 and 13 · 1.3984375 is 18.18; 13 · 0.2 and 13 · 1.4 are nearer to other numbers of bfloat16.
  test('by hand: the gradient of a weight of bfloat16 is made of what was rounded', () => {
    tidy(() => {
      const times = <Value>(values: Value[]): Value[] =>
        Array.from({ length: 9 }, () => values).flat();
      const x = tensor([times([1, 7])], { dtype: 'bfloat16' }).expand([13, 18]);
      const of = (dtype: Dtype): unknown => {
        const weight = ones([18], { dtype }).requiresGrad_();
        return grad([x.rmsNorm(weight, 1e-12).sum()], [weight])[0]
          ?.to('bfloat16')
          .toArray();
      };
      assert.deepEqual(of('bfloat16'), times([2.609375, 18.125]));
      assert.deepEqual(of('float32'), times([2.59375, 18.25]));
    });
  });

  test('can be differentiated twice', () => {
    tidy(() => {
      const [x, weight] = [random(5, 8), random(8)].map((each) => each.to('bfloat16'));
      const twice = (dtype: Dtype, norm: typeof normalised): Tensor[] => {
        const leaves = [x, weight].map((each) => (each as Tensor).to(dtype).requiresGrad_());
        const [input, factors] = leaves as [Tensor, Tensor];
        const first = grad([norm(input, factors, 0.1).square().sum()], leaves, {
          createGraph: true,
        }) as Tensor[];
        const of = first.map((each) => each.square().sum()).reduce((sum, each) => sum.add(each));
        return grad([of], leaves) as Tensor[];
      };
      const expected = twice('float64', normalised);
      twice('bfloat16', (...all) => all[0].rmsNorm(all[1], all[2])).forEach((found, index) => {
        const other = expected[index] as Tensor;
        const distance = found.to('float64').sub(other).norm().item();
        assert.ok(distance < 0.02 * other.norm().item(), `${index}: ${distance}`);
      });
    });
  });

  test('keeps nothing for the backward pass that has the size of its input', () => {
    tidy(() => {
      const [x, weight] = [random(4096, 512), random(512)].map((each) => each.to('bfloat16'));
      const input = (x as Tensor).requiresGrad_();
      const before = hostMemory().bytesInUse;
      const y = input.rmsNorm(weight as Tensor, 1e-6);
      const grown = hostMemory().bytesInUse - before;
      assert.ok(grown < 1.1 * 2 * y.numel, `${grown} bytes for ${y.numel} numbers`);
    });
  });
});

describe('gatedMlp with a norm', () => {
  type Five = [Tensor, Tensor, Tensor, Tensor, Tensor];
  const inputs = (): Tensor[] => [
    random(2, 3, 24),
    random(20, 24).div(3),
    random(20, 24).div(3),
    random(24, 20).div(4),
    random(24),
  ];
  const eps = 0.01;
  const fused = (...[x, gate, up, down, weight]: Five): Tensor =>
    gatedMlp(x, { gate, up, down }, 'silu', { weight, eps });
  const plain = (...[x, gate, up, down, weight]: Five): Tensor => {
    const read = normalised(x, weight, eps);
    return read.linear(gate).silu().mul(read.linear(up)).linear(down);
  };
  const of =
    (compute: (...all: Five) => Tensor) =>
    (...all: Tensor[]): Tensor =>
      compute(...(all as Five));

  for (const dtype of ['float64', 'float32'] as const)
    test(`of ${dtype} has the values and gradients of the plain one`, () => {
      expectSameGradients(inputs(), dtype, of(fused), of(plain));
    });

  test('of bfloat16 is about as near to the plain one in float64', () => {
    expectNear(inputs(), of(fused), of(plain));
  });

  test('gives frozen tensors no gradient, and the others theirs', () => {
    expectOwnGradients(inputs(), of(fused), of(plain));
  });

  test('under autocast normalises in float32 and multiplies in bfloat16', () => {
    tidy(() => {
      const options = { device: 'cpu', dtype: 'bfloat16' } as const;
      const all = inputs();
      const [found = [], expected = []] = [fused, plain].map((compute) =>
        valuesAndGradients(all, 'float32', (...each) =>
          autocast(options, () => of(compute)(...each)),
        ),
      );
      assert.equal(found[0]?.dtype, 'bfloat16');
      found.forEach((tensor, index) => {
        const other = (expected[index] as Tensor).to('float32');
        const distance = tensor.to('float32').sub(other).norm().item();
        assert.ok(distance < 0.015 * other.norm().item(), `${index}: ${distance}`);
      });
    });
  });
});

describe('normLinears', () => {
  const eps = 0.01;
  const weights = (): Tensor[] => [random(20, 24), random(8, 24), random(8, 24)];
  const biases = (): Tensor[] => [random(20), random(8), random(8)];
  /** Of x, the norm's weight, three weights and three biases or none. */
  type Compute = (...all: Tensor[]) => Tensor[];
  const fused: Compute = (x, norm, ...layers) =>
    normLinears(
      x,
      { weight: norm, eps },
      layers.slice(0, 3).map((weight, index) => ({ weight, bias: layers[index + 3] ?? null })),
    );
  const plain: Compute = (x, norm, ...layers) => {
    const read = normalised(x, norm, eps);
    return layers
      .slice(0, 3)
      .map((weight, index) => read.linear(weight, layers[index + 3] ?? null));
  };
  const together =
    (compute: Compute) =>
    (...all: Tensor[]): Tensor =>
      stack(
        compute(...all).flatMap((each) => each.unbind(-1)),
        -1,
      );

  for (const dtype of ['float64', 'float32'] as const)
    for (const shape of [
      [5, 24],
      [2, 3, 24],
    ])
      for (const withBias of [false, true])
        test(`${dtype}, ${shape.length} dimensions, ${withBias ? 'with' : 'without'} biases: values and gradients of the plain ones`, () => {
          const own = withBias ? biases() : [];
          const all = [random(...shape), random(24), ...weights(), ...own];
          expectSameGradients(all, dtype, together(fused), together(plain));
        });

  test('of bfloat16 is about as near to the plain one in float64', () => {
    const all = [random(2, 30, 24), random(24), ...weights(), ...biases()];
    expectNear(all, together(fused), together(plain));
  });

  test('what is large runs on another engine, with the same values and gradients', () => {
    const all = [random(700, 96), random(96), random(256, 96), random(64, 96), random(64, 96)];
    tidy(() => {
      const [found, expected] = [
        valuesAndGradients(all, 'float32', together(fused)),
        valuesAndGradients(all, 'float64', together(plain)),
      ];
      found.forEach((tensor, index) => {
        const other = expected[index] as Tensor;
        const distance = tensor.to('float64').sub(other).norm().item();
        assert.ok(distance < 1e-5 * other.norm().item(), `${index}: ${distance}`);
      });
    });
  });

  test('an output that nothing reads adds nothing, and its weight has no gradient', () => {
    tidy(() => {
      const all = [random(5, 24), random(24), ...weights(), ...biases()].map((each) =>
        each.requiresGrad_(),
      );
      const grads = [fused, plain].map((compute) => {
        const [, second] = compute(...all) as [Tensor, Tensor, Tensor];
        second.square().sum().backward();
        const found = all.map((leaf) => leaf.grad);
        for (const leaf of all) leaf.grad = null;
        return found;
      });
      const [found = [], expected = []] = grads;
      assert.deepEqual(
        found.map((each) => each !== null),
        [true, true, false, true, false, false, true, false],
      );
      found.forEach((each, index) => {
        if (each)
          expectClose(each, (expected[index] as Tensor).toArray(), { rtol: 1e-4, atol: 1e-4 });
      });
    });
  });

  test('gives frozen tensors no gradient, and needs none', () => {
    const all = [random(5, 24), random(24), ...weights(), ...biases()];
    tidy(() => {
      assert.ok(fused(...all).every(({ requiresGrad }) => !requiresGrad));
    });
    expectOwnGradients(all, together(fused), together(plain));
  });

  test('under autocast normalises in float32 and multiplies in bfloat16', () => {
    tidy(() => {
      const options = { device: 'cpu', dtype: 'bfloat16' } as const;
      const all = [random(5, 24), random(24), ...weights()];
      const [found = [], expected = []] = [fused, plain].map((compute) =>
        valuesAndGradients(all, 'float32', (...each) =>
          autocast(options, () => together(compute)(...each)),
        ),
      );
      assert.equal(found[0]?.dtype, 'bfloat16');
      found.forEach((tensor, index) => {
        const other = (expected[index] as Tensor).to('float32');
        const distance = tensor.to('float32').sub(other).norm().item();
        assert.ok(distance < 0.015 * other.norm().item(), `${index}: ${distance}`);
      });
    });
  });

  test('takes no rows, and rows that do not lie together', () => {
    tidy(() => {
      const outputs = fused(random(0, 24), random(24), ...weights());
      assert.deepEqual(
        outputs.map(({ shape }) => shape),
        [
          [0, 20],
          [0, 8],
          [0, 8],
        ],
      );
    });
    const turned =
      (compute: Compute): Compute =>
      (x, ...others) =>
        compute(x.transpose(0, 1), ...others);
    const all = [random(24, 5), random(24), ...weights(), ...biases()];
    expectSameGradients(all, 'float32', together(turned(fused)), together(turned(plain)));
  });

  test('under autocast adds up in float32 what products give their input', () => {
    tidy(() => {
      // 256 + 1 is 256 in bfloat16.
      const x = tensor([[3, 4]]).requiresGrad_();
      const norm = tensor([1, 1]).requiresGrad_();
      const layers = [tensor([[256, 0]]), tensor([[1, 0]])].map((weight) => ({
        ...{ weight, bias: null },
      }));
      const outputs = autocast({ device: 'cpu', dtype: 'bfloat16' }, () =>
        normLinears(x, { weight: norm, eps: 1e-12 }, layers),
      );
      const found = grad(
        outputs.map((each) => each.to('float32').sum()),
        [x, norm],
      ) as [Tensor, Tensor];
      const inverse = 1 / Math.sqrt(12.5);
      const mean = (257 * 3 * inverse * inverse) / 2;
      expectClose(found[0], [[inverse * (257 - 3 * mean), inverse * (-4 * mean)]], { rtol: 1e-5 });
      expectClose(found[1], [257 * 3 * inverse, 0], { rtol: 1e-5 });
    });
  });

  test('under autocast keeps nothing of the size of what was normalised', () => {
    tidy(() => {
      const x = random(4096, 512).requiresGrad_();
      const norm = { weight: random(512).requiresGrad_(), eps };
      const [first, second] = [random(8, 512), random(8, 512)].map((each) => each.requiresGrad_());
      const layers = [{ weight: first as Tensor, bias: null }];
      const mlp = { gate: first as Tensor, up: second as Tensor, down: random(512, 8) };
      const grown = (compute: () => unknown): number => {
        const before = hostMemory().bytesInUse;
        autocast({ device: 'cpu', dtype: 'bfloat16' }, compute);
        return hostMemory().bytesInUse - before;
      };
      assert.ok(grown(() => normLinears(x, norm, layers)) < 2 ** 20);
      // What it gives has that size itself, in bfloat16.
      assert.ok(grown(() => gatedMlp(x, mlp, 'silu', norm)) < 1.1 * 2 * x.numel);
    });
  });

  test('under autocast nothing becomes nothing', () => {
    tidy(() => {
      const x = zeros([0, 24]);
      const layers = [{ weight: random(8, 24), bias: random(8) }];
      const mlp = { gate: random(20, 24), up: random(20, 24), down: random(24, 20) };
      const norm = { weight: random(24), eps };
      const options = { device: 'cpu', dtype: 'bfloat16' } as const;
      const [found] = autocast(options, () => normLinears(x, norm, layers));
      const given = autocast(options, () => gatedMlp(x, mlp, 'silu', norm));
      assert.deepEqual([found?.shape, found?.dtype], [[0, 8], 'bfloat16']);
      assert.deepEqual([given.shape, given.dtype], [[0, 24], 'bfloat16']);
    });
  });

  test('outside of autocast, refuses weights of another dtype than what is normalised', () => {
    tidy(() => {
      const [x, norm] = [random(5, 24), random(24)];
      const narrow = weights().map((each) => each.to('bfloat16'));
      const [gate, up] = [random(20, 24), random(20, 24)].map((each) => each.to('bfloat16'));
      const mlp = { gate: gate as Tensor, up: up as Tensor, down: random(24, 20).to('bfloat16') };
      assert.throws(() => fused(x, norm, ...narrow), /dtype/);
      assert.throws(() => gatedMlp(x, mlp, 'silu', { weight: norm, eps }), /dtype/);
    });
  });

  test('refuses a second derivative, shapes that do not fit and biases for some', () => {
    tidy(() => {
      const [x, norm] = [random(5, 24).requiresGrad_(), random(24)];
      const y = together(fused)(x, norm, ...weights()).sum();
      assert.throws(() => grad([y], [x], { createGraph: true }), /no second derivative/);
      assert.throws(() => fused(x, norm, random(8, 23)), /size|shape/);
      assert.throws(() => fused(x, random(23), ...weights()), /shape/);
      const layers = [
        { weight: random(8, 24), bias: random(8) },
        { weight: random(8, 24), bias: null },
      ];
      assert.throws(
        () => normLinears(x, { weight: norm, eps }, layers),
        /a bias for each or none, received 2 and 1/,
      );
    });
  });
});
