import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  attendRows,
  fewRowsLinear,
  Generator,
  getNumThreads,
  grad,
  noGrad,
  randn,
  setNumThreads,
  tensor,
  tidy,
  type Tensor,
} from './index.js';

const generator = new Generator(9);
const random = (...shape: number[]): Tensor => randn(shape, { generator });

describe('fewRowsLinear', () => {
  // Widths below, at and above the 16 and 32 numbers that are taken at a time; outputs below and above 4 and 32.
  // Four rows are multiplied together: 5 and 9 leave one over, 6 and 7 two and three.
  for (const rows of [1, 2, 4, 5, 6, 7, 9])
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

  for (const rows of [1, 3, 6])
    for (const inputs of [7, 32, 100])
      test(`sums bfloat16 in float32 and rounds once: [${rows}, ${inputs}]`, () => {
        tidy(() => {
          const [x, weight, bias] = [random(rows, inputs), random(41, inputs), random(41)].map(
            (each) => each.to('bfloat16'),
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

describe('kernels for a few rows have no gradient', () => {
  test('and refuse to be recorded, whichever tensor asks for one', () => {
    tidy(() => {
      const [x, weight] = [random(2, 8), random(3, 8)];
      const [query, keys, values] = [random(2, 4, 8), random(2, 2, 5, 8), random(2, 2, 5, 8)];
      const options = { mask: null, scale: 1, softcap: null };
      for (const one of [x, weight, query, keys, values]) {
        one.requiresGrad_();
        const calls = [
          { uses: [x, weight], run: () => fewRowsLinear(x, weight) },
          { uses: [query, keys, values], run: () => attendRows(query, keys, values, options) },
        ];
        for (const { uses, run } of calls) {
          if (uses.includes(one)) assert.throws(run, /has no gradient/);
          else run();
          noGrad(run);
        }
        one.requiresGrad = false;
      }
    });
  });
});

describe('attendRows', () => {
  interface Case {
    rows: number;
    heads: number;
    kvHeads: number;
    columns: number;
    width: number;
    softcap?: number;
    masked?: boolean;
    dtype?: 'float32' | 'bfloat16';
  }
  /** By its definition, in float64. */
  const byHand = (
    [query, keys, values]: readonly [Tensor, Tensor, Tensor],
    { mask, scale, softcap }: { mask: Tensor | null; scale: number; softcap: number | null },
  ): Tensor => {
    const [q, k, v] = [query, keys, values].map((each) => each.to('float64')) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const [rows, heads, width] = q.shape as [number, number, number];
    const kvHeads = k.size(1);
    const scores = q
      .view([rows, kvHeads, heads / kvHeads, width])
      .matmul(k.transpose(2, 3))
      .mul(scale);
    const capped = softcap === null ? scores : scores.div(softcap).tanh().mul(softcap);
    const seen = mask === null ? capped : capped.add(mask.to('float64').unsqueeze(1).unsqueeze(1));
    return seen
      .softmax(-1)
      .matmul(v)
      .reshape([rows, heads * width]);
  };

  const cases: Case[] = [
    { rows: 1, heads: 1, kvHeads: 1, columns: 1, width: 1 },
    { rows: 3, heads: 6, kvHeads: 2, columns: 7, width: 24 },
    { rows: 2, heads: 4, kvHeads: 4, columns: 33, width: 64 },
    { rows: 2, heads: 3, kvHeads: 1, columns: 12, width: 100 },
    { rows: 5, heads: 4, kvHeads: 2, columns: 300, width: 80, masked: true },
    { rows: 2, heads: 4, kvHeads: 2, columns: 9, width: 32, softcap: 0.7 },
    { rows: 3, heads: 4, kvHeads: 2, columns: 21, width: 64, masked: true, dtype: 'bfloat16' },
  ];
  for (const one of cases)
    test(`gives what its definition gives: ${JSON.stringify(one)}`, () => {
      tidy(() => {
        const { rows, heads, kvHeads, columns, width, dtype = 'float32' } = one;
        // Part of a larger cache, as it is while rows grow.
        const cache = (): Tensor =>
          random(rows, kvHeads, columns + 5, width)
            .to(dtype)
            .narrow(2, 3, columns);
        const inputs = [random(rows, heads, width).to(dtype), cache(), cache()] as const;
        const hidden = Array.from({ length: rows * columns }, (_, at) =>
          at % columns < Math.floor(at / columns) ? -Infinity : 0,
        );
        const mask = one.masked ? tensor(hidden, { shape: [rows, columns] }) : null;
        const options = { mask, scale: 0.3, softcap: one.softcap ?? null };
        const found = attendRows(...inputs, options);
        assert.equal(found.dtype, dtype);
        const tolerance = dtype === 'float32' ? 1e-5 : 2 ** -7;
        expectClose(found.to('float64'), byHand(inputs, options).toArray(), {
          rtol: tolerance,
          atol: tolerance / 10,
        });
      });
    });

  test('refuses other shapes, dtypes and layouts', () => {
    tidy(() => {
      const options = { mask: null, scale: 1, softcap: null };
      const [query, cache] = [random(2, 4, 8), random(2, 2, 5, 8)];
      assert.throws(() => attendRows(query, cache, random(2, 2, 4, 8), options), /expected query/);
      assert.throws(() => attendRows(random(2, 3, 8), cache, cache, options), /expected query/);
      const wide = cache.to('float64');
      assert.throws(() => attendRows(query, wide, wide, options), /float32 or bfloat16/);
      const turned = random(2, 2, 8, 5).transpose(2, 3);
      assert.throws(() => attendRows(query, turned, turned, options), /contiguous/);
      const mask = random(2, 4);
      assert.throws(() => attendRows(query, cache, cache, { ...options, mask }), /mask \[B, L\]/);
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

  test('can be differentiated twice where its input is not contiguous', () => {
    tidy(() => {
      const x = random(8, 5).requiresGrad_();
      const weight = random(8).requiresGrad_();
      const twice = (norm: (rows: Tensor) => Tensor): (Tensor | null)[] => {
        const y = norm(x.transpose(0, 1));
        const [once] = grad([y.square().sum()], [x], { createGraph: true });
        return grad([(once as Tensor).square().sum()], [x, weight]);
      };
      const wanted = twice((rows) => byHand(rows, weight, 0.1));
      twice((rows) => rows.rmsNorm(weight, 0.1)).forEach((found, index) => {
        const close = { rtol: 1e-3, atol: 1e-3 };
        expectClose(found as Tensor, wanted[index]?.toArray() ?? [], close);
      });
    });
  });

  test('gives the same gradients on one thread as on several', () => {
    const threads = getNumThreads();
    tidy(() => {
      const [x, weight] = [random(999, 48).requiresGrad_(), random(48).requiresGrad_()];
      const towards = random(999, 48);
      const gradients = (count: number): unknown => {
        setNumThreads(count);
        const y = x.rmsNorm(weight, 1e-6);
        return grad([y.mul(towards).sum()], [x, weight]).map((each) => each?.toArray());
      };
      try {
        assert.deepEqual(gradients(1), gradients(3));
      } finally {
        setNumThreads(threads);
      }
    });
  });

  test('computes every row where fewer threads come than were asked for', () => {
    // Read when the process begins.
    const script = `
      import { ones, setNumThreads } from '${new URL('./index.js', import.meta.url).href}';
      setNumThreads(4);
      ones([4000, 64]).mul(3).rmsNorm(ones([64]), 0).sum().item() === 256000 || process.exit(1);
      process.exit(0);`;
    const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      env: { ...process.env, OMP_THREAD_LIMIT: '1' },
      encoding: 'utf8',
    });
    assert.equal(status, 0, stderr);
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
