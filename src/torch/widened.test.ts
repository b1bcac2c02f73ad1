import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { expectNear, valuesAndGradients } from '../../test/gradients.js';
import { packedKernels } from '../../test/packedKernels.js';
import {
  autocast,
  cat,
  gatedMlp,
  Generator,
  grad,
  hostMemory,
  normLinears,
  randn,
  runtimeInfo,
  tidy,
  usePackedKernel,
  useWidenedProducts,
  type PackedKernel,
  type Tensor,
} from './index.js';

const generator = new Generator(11);
const random = (...shape: number[]): Tensor => randn(shape, { generator });
const linear = (x: Tensor, weight: Tensor, bias?: Tensor): Tensor => x.linear(weight, bias);

/** What `compute` gives by the other way. */
function unwidened<Result>(compute: () => Result): Result {
  const set = useWidenedProducts(false);
  try {
    return compute();
  } finally {
    useWidenedProducts(set);
  }
}

/** Rounded once from sums in float32: half a unit in the last of 8 bits, and what float32 sums of numbers near 1 lose. */
const ROUNDED_ONCE = { rtol: 2 ** -8, atol: 2e-5 };

/** The same for millions of numbers. */
function expectRoundedOnce(found: Tensor, exact: Tensor): void {
  assert.deepEqual(found.shape, exact.shape);
  const { rtol, atol } = ROUNDED_ONCE;
  const beyond = found
    .to('float64')
    .sub(exact)
    .abs()
    .sub(exact.abs().mul(rtol))
    .flatten()
    .max(0)
    .values.item();
  assert.ok(beyond <= atol, `${beyond}`);
}

if (process.platform === 'linux' && process.arch === 'x64')
  test('the processor decides whether factors are widened', () => {
    const about = readFileSync('/proc/cpuinfo', 'utf8');
    const isFast = /\bamx_bf16\b/.test(about) || /AuthenticAMD[^]*\bavx512_bf16\b/.test(about);
    const isAble = /\bavx2\b/.test(about) && /\bfma\b/.test(about);
    assert.equal(runtimeInfo().widensBfloat16, isAble && !isFast);
  });

// Without panels nothing is widened.
for (const kernel of packedKernels().filter((each) => each !== 'oneDnn')) {
  describe(`products of bfloat16 with factors widened to float32, ${kernel}`, () => {
    let widened = false;
    let first: PackedKernel = kernel;
    before(() => {
      widened = useWidenedProducts(true);
      first = usePackedKernel(kernel);
    });
    after(() => {
      useWidenedProducts(widened);
      usePackedKernel(first);
    });

    // Panels hold 2^20 numbers and 2048 inputs at a time: each case is taken in several parts, or in several rows' turns.
    for (const [cut, rows, inputs, outputs] of [
      ['outputs', 40, 2000, 1100],
      ['rows', 3000, 33, 40],
      ['inputs', 35, 5000, 40],
      ['inputs and outputs', 33, 2100, 1061],
    ] as const)
      for (const withBias of [false, true])
        test(`are rounded once, values and gradients, cut along ${cut}${withBias ? ', with a bias' : ''}`, () => {
          tidy(() => {
            const scale = Math.sqrt(inputs);
            const all = [random(rows, inputs), random(outputs, inputs).div(scale)];
            if (withBias) all.push(random(outputs));
            const rounded = all.map((each) => each.to('bfloat16'));
            const weights = random(rows, outputs)
              .div(Math.sqrt(outputs * rows))
              .to('bfloat16');
            const results = (['bfloat16', 'float64'] as const).map((dtype) => {
              const leaves = rounded.map((each) => each.to(dtype).clone().requiresGrad_());
              const [x, weight, bias] = leaves as [Tensor, Tensor, Tensor?];
              const y = linear(x, weight, bias);
              y.backward(weights.to(dtype));
              return [y.detach(), ...leaves.map((leaf) => leaf.grad as Tensor)];
            });
            const [found = [], exact = []] = results;
            found.forEach((tensor, index) => {
              assert.equal(tensor.dtype, 'bfloat16');
              expectRoundedOnce(tensor, exact[index] as Tensor);
            });
          });
        });

    test('are taken: sums that cancel are left with what float32 lost, in another order', () => {
      tidy(() => {
        const [half, weight] = [random(40, 500), random(40, 500)];
        const x = cat([half, half.neg()], 1).to('bfloat16');
        const twice = cat([weight, weight], 1).to('bfloat16');
        const compute = (): Tensor => x.linear(twice);
        assert.notDeepEqual(compute().toArray(), unwidened(compute).toArray());
      });
    });

    test('take factors that are views of larger tensors, and transposed ones', () => {
      tidy(() => {
        const wide = random(70, 120).to('bfloat16');
        const x = wide.narrow(0, 10, 50).narrow(1, 7, 64);
        const weight = random(64, 90).to('bfloat16').transpose(0, 1).narrow(0, 20, 48);
        const exact = x.to('float64').linear(weight.to('float64'));
        expectClose(x.linear(weight).to('float64'), exact.toArray(), ROUNDED_ONCE);
        const batch = random(6, 9, 64).to('bfloat16').transpose(0, 1);
        const found = batch.linear(weight);
        assert.deepEqual(found.shape, [9, 6, 48]);
        expectClose(
          found.to('float64'),
          batch.to('float64').linear(weight.to('float64')).toArray(),
          ROUNDED_ONCE,
        );
      });
    });

    test('leave one row, and other dtypes, to the plain way', () => {
      tidy(() => {
        for (const [x, weight] of [
          [random(1, 4096).to('bfloat16'), random(256, 4096).to('bfloat16')],
          [random(64, 256), random(64, 256)],
          [random(64, 256).to('float64'), random(64, 256).to('float64')],
        ] as const) {
          const compute = (): number[] => x.linear(weight).toArray() as number[];
          assert.deepEqual(compute(), unwidened(compute));
        }
      });
    });

    test('refuse shapes that do not fit as the plain way does', () => {
      tidy(() => {
        const [x, weight] = [random(64, 65).to('bfloat16'), random(64, 66).to('bfloat16')];
        assert.throws(() => x.linear(weight), /shapes cannot be multiplied|size mismatch/);
        const bias = random(65).to('bfloat16');
        assert.throws(() => x.linear(random(64, 65).to('bfloat16'), bias), /expand|size|shape/);
      });
    });

    test('give a frozen weight no gradient', () => {
      tidy(() => {
        const x = random(64, 64).to('bfloat16').requiresGrad_();
        const weight = random(64, 64).to('bfloat16');
        x.linear(weight).sum().backward();
        assert.ok(x.grad);
        assert.equal(weight.grad, null);
      });
    });

    test('keep the input of a frozen layer no longer than it is used elsewhere', () => {
      tidy(() => {
        const weight = random(64, 512).to('bfloat16');
        const leaf = random(4096, 512).to('bfloat16').requiresGrad_();
        const before = hostMemory().bytesInUse;
        const inner = leaf.mul(2);
        const bytes = hostMemory().bytesInUse - before;
        const y = inner.linear(weight);
        const all = hostMemory().bytesInUse;
        inner.dispose();
        assert.equal(all - hostMemory().bytesInUse, bytes);
        y.sum().backward();
        const expected = weight.to('float64').sum(0, { keepDim: true }).mul(2);
        expectClose(
          (leaf.grad as Tensor).to('float64').narrow(0, 7, 1),
          expected.toArray(),
          ROUNDED_ONCE,
        );
      });
    });

    test('keep no narrow copy of it under autocast', () => {
      tidy(() => {
        const leaf = random(4096, 512).requiresGrad_();
        const inner = leaf.mul(2);
        const weight = random(64, 512);
        const before = hostMemory().bytesInUse;
        const y = autocast({ device: 'cpu', dtype: 'bfloat16' }, () => inner.linear(weight));
        assert.equal(y.dtype, 'bfloat16');
        const grown = hostMemory().bytesInUse - before;
        assert.ok(grown < 2 * 2 * y.numel, `${grown} bytes`);
      });
    });

    for (const of of ['x', 'weight'] as const)
      test(`can be differentiated twice, first by ${of}`, () => {
        tidy(() => {
          const all = [random(64, 64).div(8), random(64, 64).div(8)];
          const [found, expected] = (['bfloat16', 'float64'] as const).map((dtype) => {
            const [x, weight] = all.map((each) =>
              each.to('bfloat16').to(dtype).clone().requiresGrad_(),
            ) as [Tensor, Tensor];
            const [first, second] = of === 'x' ? [x, weight] : [weight, x];
            const [once] = grad([x.linear(weight).square().sum()], [first], { createGraph: true });
            const [twice] = grad([(once as Tensor).sum()], [second]);
            return (twice as Tensor).to('float64');
          }) as [Tensor, Tensor];
          const distance = found.sub(expected).norm().item();
          assert.ok(distance < 0.02 * expected.norm().item(), `${distance}`);
        });
      });

    for (const [rows, inputs, outputs] of [
      [48, 64, 56],
      [64, 40, 48],
      [48, 40, 64],
    ] as const)
      test(`are those of autocast, with gradients in float32: ${rows} rows, ${outputs}×${inputs}`, () => {
        tidy(() => {
          const options = { device: 'cpu', dtype: 'bfloat16' } as const;
          const all = [random(rows, inputs), random(outputs, inputs).div(8), random(outputs)];
          const cast = (...inputs: Tensor[]): Tensor =>
            autocast(options, () => linear(...(inputs as [Tensor, Tensor, Tensor])));
          const found = valuesAndGradients(all, 'float32', cast);
          const narrow = valuesAndGradients(all, 'bfloat16', (...inputs) =>
            linear(...(inputs as [Tensor, Tensor, Tensor])),
          );
          assert.equal(found[0]?.dtype, 'bfloat16');
          found.forEach((tensor, index) => {
            assert.ok(index === 0 || tensor.dtype === 'float32');
            assert.deepEqual(
              tensor.to('float64').toArray(),
              narrow[index]?.to('float64').toArray(),
            );
          });
        });
      });

    test('leave what autocast computes in float16 to it', () => {
      tidy(() => {
        const [x, weight] = [random(64, 64).to('bfloat16'), random(64, 64).to('bfloat16')];
        const compute = (): Tensor =>
          autocast({ device: 'cpu', dtype: 'float16' }, () => x.linear(weight));
        assert.equal(compute().dtype, 'float16');
        assert.deepEqual(compute().toArray(), unwidened(compute).toArray());
      });
    });

    test('are those of gatedMlp', () => {
      const layer = (x: Tensor, gate: Tensor, up: Tensor, down: Tensor): Tensor =>
        gatedMlp(x, { gate, up, down }, 'silu');
      const plain = (x: Tensor, gate: Tensor, up: Tensor, down: Tensor): Tensor =>
        x.linear(gate).silu().mul(x.linear(up)).linear(down);
      const inputs = [random(5, 16, 64), random(96, 64).div(8), random(96, 64).div(8)];
      inputs.push(random(64, 96).div(10));
      expectNear(inputs, layer, plain);
    });

    test('are those of normLinears', () => {
      const norm = (x: Tensor, weight: Tensor): Tensor =>
        x.mul(x.square().mean(-1, { keepDim: true }).add(1e-5).rsqrt()).mul(weight);
      const layer = (x: Tensor, weight: Tensor, first: Tensor, second: Tensor): Tensor =>
        cat(
          normLinears(x, { weight, eps: 1e-5 }, [
            { weight: first, bias: null },
            { weight: second, bias: null },
          ]),
          -1,
        );
      const plain = (x: Tensor, weight: Tensor, first: Tensor, second: Tensor): Tensor =>
        cat([norm(x, weight).linear(first), norm(x, weight).linear(second)], -1);
      const inputs = [random(5, 16, 64), random(64).add(2), random(48, 64).div(8)];
      inputs.push(random(40, 64).div(8));
      expectNear(inputs, layer, plain);
    });
  });
}
