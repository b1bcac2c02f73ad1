import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { packedKernels } from '../../test/packedKernels.js';
import {
  Generator,
  full,
  getNumThreads,
  noGrad,
  packedLinear,
  packLinearWeight,
  randn,
  runtimeInfo,
  setNumThreads,
  tidy,
  usePackedKernel,
  useWidenedProducts,
  zeros,
  type Dtype,
  type PackedKernel,
  type Tensor,
} from './index.js';

const generator = new Generator(1);
const random = (shape: number[], dtype: Dtype = 'float32'): Tensor =>
  randn(shape, { generator }).to(dtype);

const best = usePackedKernel('oneDnn');
usePackedKernel(best);

for (const kernel of packedKernels()) {
  const panels = kernel !== 'oneDnn';
  describe(`packedLinear, ${kernel}`, () => {
    let [first, widened] = [best, false];
    before(() => {
      first = usePackedKernel(kernel);
      if (panels) widened = useWidenedProducts(true);
    });
    after(() => {
      usePackedKernel(first);
      if (panels) useWidenedProducts(widened);
    });

    // Rows below, at and above what registers hold, and so many that they are taken in parts; inputs and outputs that fill
    // no panel, one panel and more, and inputs that are summed up in parts or lie 4096 bytes apart.
    for (const dtype of panels ? (['float32', 'bfloat16'] as const) : (['float32'] as const))
      for (const [rows, inputs, outputs] of [
        [1, 5, 1],
        [2, 3, 31],
        [5, 32, 48],
        [6, 32, 32],
        [7, 100, 33],
        [13, 70, 65],
        [14, 64, 64],
        [15, 257, 96],
        [29, 1030, 40],
        [64, 1024, 130],
        [300, 600, 70],
        [130, 2500, 37],
      ] as const)
        for (const biased of [false, true])
          test(`${dtype}, [${rows}, ${inputs}] · [${outputs}, ${inputs}]ᵀ${biased ? ' + bias' : ''}: as in float64`, () => {
            noGrad(() =>
              tidy(() => {
                const [x, weight] = [
                  random([rows, inputs], dtype),
                  random([outputs, inputs], dtype),
                ];
                const bias = biased ? random([outputs], dtype) : null;
                const expected = x
                  .to('float64')
                  .linear(weight.to('float64'), bias?.to('float64') ?? null);
                const y = packedLinear(x, packLinearWeight(weight, rows), bias);
                assert.equal(y.dtype, dtype);
                assert.deepEqual(y.shape, [rows, outputs]);
                // Sums of N(0, inputs), of float32 or rounded to bfloat16 once.
                const atol = 1e-6 * inputs;
                expectClose(y.to('float64'), expected, {
                  rtol: dtype === 'float32' ? 1e-6 : 2 ** -8,
                  atol,
                });
              }),
            );
          });

    test('a weight keeps what it was when it was packed, and may be a view', () => {
      tidy(() => {
        const [x, changing] = [random([5, 32]), random([32, 48])];
        const expected = x.linear(changing.transpose(0, 1)).toArray();
        const packed = packLinearWeight(changing.transpose(0, 1), 5);
        changing.zero_();
        expectClose(packedLinear(x, packed), expected, { rtol: 1e-5, atol: 1e-5 });
        if (!panels) return;
        const [half, turned] = [random([5, 40], 'bfloat16'), random([40, 70], 'bfloat16')];
        const weight = turned.transpose(0, 1);
        const same = packedLinear(half, packLinearWeight(weight.contiguous(), 5));
        assert.ok(packedLinear(half, packLinearWeight(weight, 5)).equal(same));
      });
    });

    test('x may be a view', () => {
      tidy(() => {
        const [x, weight] = [random([64, 9]), random([48, 64])];
        const expected = x.transpose(0, 1).contiguous().linear(weight);
        const found = packedLinear(x.transpose(0, 1), packLinearWeight(weight, 9));
        expectClose(found, expected, { rtol: 1e-5, atol: 1e-5 });
      });
    });

    test('what is not a number in a row, or beyond all numbers, stays in its row and its output', () => {
      tidy(() => {
        const [x, weight] = [random([9, 40]), random([40, 40])];
        x.narrow(0, 3, 1).narrow(1, 7, 1).fill_(NaN);
        weight.narrow(0, 38, 1).narrow(1, 2, 1).fill_(Infinity);
        const y = packedLinear(x, packLinearWeight(weight, 9));
        (y.toArray() as number[][]).forEach((row, i) => {
          row.forEach((value, j) => {
            assert.equal(Number.isFinite(value), i !== 3 && j !== 38, `${i}, ${j}`);
          });
        });
      });
    });

    test('refuses what does not fit', () => {
      tidy(() => {
        const packed = packLinearWeight(random([48, 32]), 5);
        const refused = (call: () => Tensor, said: RegExp): void => {
          assert.throws(() => call().toArray(), said);
        };
        const trained = random([5, 32]).requiresGrad_();
        refused(() => packedLinear(trained, packed), /has no gradient/);
        const bias = random([48]).requiresGrad_();
        refused(() => packedLinear(random([5, 32]), packed, bias), /has no gradient/);
        refused(() => packLinearWeight(random([32]), 5), /expected a weight \[out, in\]/);
        refused(
          () => packLinearWeight(random([4, 4], 'float64'), 5),
          /float32 or bfloat16, received float64/,
        );
        refused(
          () => packedLinear(random([5, 32]), random([48, 32])),
          /expected a weight of pack_linear/,
        );
        if (!panels) return;
        refused(() => packedLinear(random([5, 31]), packed), /expected x \[rows, 32\]/);
        refused(() => packedLinear(random([32]), packed), /expected x \[rows, 32\]/);
        refused(
          () => packedLinear(random([5, 32], 'bfloat16'), packed),
          /of float32 on the CPU, received .* of bfloat16/,
        );
        refused(() => packedLinear(random([5, 32]), packed, random([47])), /expected a bias of 48/);
        refused(
          () => packedLinear(random([5, 32]), packed, random([48], 'bfloat16')),
          /expected a bias of 48/,
        );
        // A tensor of three dimensions that has no room for whole panels, or that begins within one.
        refused(
          () => packedLinear(random([5, 32]), random([47, 32, 1])),
          /expected a weight of pack_linear/,
        );
        refused(
          () => packedLinear(random([5, 32]), random([96, 32, 1]).narrow(0, 32, 32)),
          /expected a weight of pack_linear/,
        );
        refused(
          () => packedLinear(zeros([5, 0]), zeros([32, 0, 1])),
          /expected a weight of pack_linear/,
        );
        usePackedKernel('oneDnn');
        try {
          refused(() => packedLinear(random([5, 32]), packed), /oneDNN's form, which is in use/);
        } finally {
          usePackedKernel(kernel);
        }
      });
    });

    if (!panels) return;

    for (const dtype of ['float32', 'bfloat16'] as const)
      test(`${dtype}: a row gets the same bits in every batch and with any number of threads`, () => {
        noGrad(() =>
          tidy(() => {
            const [x, weight] = [random([300, 1100], dtype), random([400, 1100], dtype)];
            const packed = packLinearWeight(weight, 64);
            const all = packedLinear(x, packed);
            for (const [at, count] of [
              [0, 1],
              [17, 5],
              [40, 64],
              [290, 10],
            ] as const)
              assert.ok(
                packedLinear(x.narrow(0, at, count), packed).equal(all.narrow(0, at, count)),
                `${count} rows`,
              );
            const threads = getNumThreads();
            try {
              for (const count of [1, 3]) {
                setNumThreads(count);
                assert.ok(packedLinear(x, packed).equal(all), `${count} threads`);
              }
            } finally {
              setNumThreads(threads);
            }
          }),
        );
      });

    test('no rows give no rows', () => {
      tidy(() => {
        const packed = packLinearWeight(random([48, 32]), 5);
        assert.deepEqual(packedLinear(zeros([0, 32]), packed).shape, [0, 48]);
      });
    });

    test('what fills up the last panel is no output', () => {
      tidy(() => {
        const packed = packLinearWeight(full([33, 4], 1), 5);
        assert.deepEqual(packed.shape, [33, 4, 1]);
        assert.deepEqual(
          packedLinear(full([2, 4], 1), packed).toArray(),
          [0, 1].map(() => Array.from({ length: 33 }, () => 4)),
        );
      });
    });
  });
}

describe('panels', () => {
  for (const dtype of ['float32', 'bfloat16'] as const)
    test(`${dtype}: AVX2 and AVX-512, and outputs in a whole panel or in part of one, give the same bits`, () => {
      const widened = useWidenedProducts(true);
      try {
        noGrad(() =>
          tidy(() => {
            const [x, weight] = [random([21, 1100], dtype), random([64, 1100], dtype)];
            const bias = random([64], dtype);
            const odd = [NaN, Infinity, -Infinity, -0];
            odd.forEach((value, at) => {
              bias.narrow(0, 40 + at, 1).fill_(value);
              x.narrow(0, 3 + at, 1)
                .narrow(1, 9, 1)
                .fill_(value);
            });
            const results = packedKernels()
              .filter((kernel) => kernel !== 'oneDnn')
              .flatMap((kernel) => {
                usePackedKernel(kernel);
                return [64, 63].map((outputs) => {
                  const packed = packLinearWeight(weight.narrow(0, 0, outputs), 21);
                  const y = packedLinear(x, packed, bias.narrow(0, 0, outputs));
                  return y.narrow(1, 0, 63).nanToNum({ nan: 7, posInf: 8, negInf: 9 }).toArray();
                });
              });
            for (const result of results) assert.deepEqual(result, results[0]);
          }),
        );
      } finally {
        usePackedKernel(best);
        useWidenedProducts(widened);
      }
    });
});

describe('usePackedKernel', () => {
  test('is the best one that the processor has, and returns what was set before', () => {
    const expected = { AVX512: 'avx512', AVX2: 'avx2' }[runtimeInfo().cpuCapability] ?? 'oneDnn';
    assert.equal(best, expected);
    assert.equal(usePackedKernel('oneDnn'), best);
    assert.equal(usePackedKernel(best), 'oneDnn');
  });

  test('refuses a name that there is not', () => {
    assert.throws(
      () => usePackedKernel('sse' as PackedKernel),
      /expected one of oneDnn, avx2 and avx512/,
    );
  });

  test('bfloat16 is packed in panels where factors are widened', () => {
    tidy(() => {
      const weight = random([64, 64], 'bfloat16');
      const before = useWidenedProducts(true);
      assert.equal(packLinearWeight(weight, 5).ndim, best === 'oneDnn' ? 2 : 3);
      useWidenedProducts(before);
    });
  });
});
