import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { enableGrad, memory, noGrad, tensor, tidy, zeros, type Tensor } from '../torch/index.js';
import {
  createLora,
  Linear,
  LoraAdapter,
  loraDtype,
  loraScaling,
  withLoraDropout,
} from './index.js';

const f64 = { dtype: 'float64' } as const;

// W is 3 × 2, the rank 1.
const W = [
  [3, 4],
  [0, 2],
  [1, 0],
];
const BIAS = [0.5, -1, 2];
const A = [[1, -2]];
const B = [[2], [0], [-1]];
const X = [[1, 1]];

function adapted(magnitude: number[] | null, scaling = 0.5): { layer: Linear; lora: LoraAdapter } {
  const layer = new Linear(tensor(W, f64), tensor(BIAS, f64));
  const lora = new LoraAdapter({
    a: tensor(A, f64),
    b: tensor(B, f64),
    magnitude: magnitude && tensor(magnitude, f64),
    scaling,
  });
  layer.attachLora(lora);
  return { layer, lora };
}

const gradOf = ({ grad }: Tensor): unknown => grad?.toArray();

describe('loraScaling', () => {
  test('α/r, and α/√r with rank stabilisation', () => {
    assert.equal(loraScaling({ rank: 4, alpha: 6, rsLora: false }), 1.5);
    assert.equal(loraScaling({ rank: 4, alpha: 6, rsLora: true }), 3);
  });
  test('refuses a rank that is no positive integer', () => {
    assert.throws(
      () => loraScaling({ rank: 0.5, alpha: 1, rsLora: false }),
      new ValueRangeError('loraScaling: expected rank to be a positive integer, received 0.5.'),
    );
  });
});

describe('LoraAdapter', () => {
  describe('by hand', () => {
    test('LoRA adds s·B·A·x to what the layer gives', () => {
      // W·x + b = (7.5, 1, 3); A·x = −1; s·B·(−1) = (−1, 0, 0.5)
      const { layer } = adapted(null);
      expectClose(layer.forward(tensor(X, f64)), [[6.5, 1, 3.5]]);
    });

    test('LoRA: gradients of A, B and x for a loss Σ g·y', () => {
      const { layer, lora } = adapted(null);
      const x = tensor(X, f64).requiresGrad_();
      enableGrad(() =>
        layer
          .forward(x)
          .mul(tensor([[1, 10, 100]], f64))
          .sum()
          .backward(),
      );
      // ∂A = s·(Bᵀg)·xᵀ = 0.5·(2 − 100)·(1, 1); ∂B = s·g·(A·x) = 0.5·(1, 10, 100)·(−1); ∂x = gᵀW + s·(Bᵀg)·A
      expectClose(gradOf(lora.a) as number[][], [[-49, -49]]);
      expectClose(gradOf(lora.b) as number[][], [[-0.5], [-5], [-50]]);
      expectClose(gradOf(x) as number[][], [[103 - 49, 24 + 98]]);
    });

    test('DoRA scales the adapted rows to the lengths m, beside the bias', () => {
      // W + s·B·A = [[4, 2], [0, 2], [0.5, 1]]; lengths √20, 2, √1.25
      const { layer } = adapted([2 * Math.sqrt(20), 1, 3 * Math.sqrt(1.25)]);
      // (6·2 + 0.5, 2·0.5 − 1, 1.5·3 + 2)
      expectClose(layer.forward(tensor(X, f64)), [[12.5, 0, 6.5]]);
    });

    test('DoRA: the length of a row is a constant to A and B', () => {
      const { layer, lora } = adapted([2 * Math.sqrt(20), 1, 3 * Math.sqrt(1.25)]);
      enableGrad(() =>
        layer
          .forward(tensor(X, f64))
          .mul(tensor([[1, 10, 100]], f64))
          .sum()
          .backward(),
      );
      // With ratios (2, 0.5, 3) as constants: ∂B = s·(2·1, 0.5·10, 3·100)·(−1); ∂A = s·(2·2 − 300)·(1, 1)
      expectClose(gradOf(lora.b) as number[][], [[-1], [-2.5], [-150]]);
      expectClose(gradOf(lora.a) as number[][], [[-148, -148]]);
      // ∂m = g · (W + s·B·A)·x / length = (6/√20, 20/2, 150/√1.25)
      expectClose(gradOf(lora.magnitude as Tensor) as number[], [
        6 / Math.sqrt(20),
        10,
        150 / Math.sqrt(1.25),
      ]);
    });

    test('folded in: W + s·B·A, and rows of length m for DoRA', () => {
      expectClose(adapted(null).layer.effectiveWeight(), [
        [4, 2],
        [0, 2],
        [0.5, 1],
      ]);
      expectClose(adapted([2 * Math.sqrt(20), 1, 3 * Math.sqrt(1.25)]).layer.effectiveWeight(), [
        [8, 4],
        [0, 1],
        [1.5, 3],
      ]);
    });
  });

  describe('properties', () => {
    test('the folded weight gives what the adapted layer gives, and the weight stays as it is', () => {
      for (const magnitude of [null, [1, 2, 3]]) {
        const { layer } = adapted(magnitude);
        const x = tensor(
          [
            [0.3, -2],
            [5, 1],
          ],
          f64,
        );
        expectClose(x.linear(layer.effectiveWeight(), layer.bias), layer.forward(x));
        expectClose(layer.weight, W);
      }
    });

    test('on weights of bfloat16 the output stays in it, and A, B and m are kept in float32', () => {
      // √(1 + 0.0625²) = 1.00195…, which bfloat16 rounds to 1.
      const weight = tensor([[1, 0.0625]]).to('bfloat16');
      const layer = new Linear(weight);
      layer.attachLora(createLora(weight, { rank: 1, scaling: 1, dora: true, seed: 1 }));
      expectClose(layer.lora?.magnitude as Tensor, [Math.hypot(1, 0.0625)], { rtol: 1e-6 });
      const x = tensor([[1, 1]]).to('bfloat16');
      assert.equal(layer.forward(x).dtype, 'bfloat16');
      const plain = new Linear(weight);
      plain.attachLora(createLora(weight, { rank: 1, scaling: 1, dora: false, seed: 1 }));
      assert.equal(plain.forward(x).dtype, 'bfloat16');
      assert.equal(plain.lora?.merged(weight).dtype, 'float32');
      assert.equal(plain.lora?.a.dtype, 'float32');
    });

    test('no gradient is recorded for the folded weight', () => {
      const { layer } = adapted([1, 2, 3]);
      assert.equal(enableGrad(() => layer.effectiveWeight()).requiresGrad, false);
    });

    test('a layer without an adapter acts as its own weight, without a copy', () => {
      const layer = new Linear(tensor(W, f64));
      assert.equal(layer.effectiveWeight(), layer.weight);
      assert.equal(layer.lora, null);
      assert.deepEqual([...layer.namedParameters().keys()], ['weight']);
    });

    test('parameters have the names of PEFT, and are freed with the layer', () => {
      const before = memory().liveTensors;
      const { layer } = adapted([1, 2, 3]);
      assert.deepEqual(
        [...layer.namedParameters().keys()],
        ['weight', 'bias', 'lora_A.weight', 'lora_B.weight', 'lora_magnitude_vector'],
      );
      layer.dispose();
      assert.equal(memory().liveTensors, before);
    });

    test('on 16-bit weights the adapter is float32, and the output of the weights’ dtype', () => {
      assert.equal(loraDtype('bfloat16'), 'float32');
      assert.equal(loraDtype('float64'), 'float64');
      const layer = new Linear(tensor(W, { dtype: 'bfloat16' }));
      layer.attachLora(createLora(layer.weight, { rank: 1, scaling: 1, dora: true, seed: 1 }));
      assert.equal(layer.lora?.a.dtype, 'float32');
      assert.equal(layer.forward(tensor(X, { dtype: 'bfloat16' })).dtype, 'bfloat16');
      assert.equal(layer.effectiveWeight().dtype, 'bfloat16');
    });
  });

  describe('rejects', () => {
    const parts = { a: zeros([2, 3]), b: zeros([4, 2]), magnitude: null, scaling: 1 };

    test('matrices that do not fit, and a magnitude of another length', () => {
      assert.throws(
        () => new LoraAdapter({ ...parts, b: zeros([4, 3]) }),
        new ShapeError(
          'LoraAdapter: expected A [r, in] and B [out, r], received [2, 3] and [4, 3].',
        ),
      );
      assert.throws(
        () => new LoraAdapter({ ...parts, magnitude: zeros([3]) }),
        new ShapeError('LoraAdapter: expected magnitude [4], received [3].'),
      );
    });

    test('an adapter for another weight, and a second one', () => {
      const layer = new Linear(zeros([4, 2]));
      assert.throws(
        () => layer.attachLora(new LoraAdapter(parts)),
        new ShapeError('Linear: expected an adapter for a weight [4, 2], received one for [4, 3].'),
      );
      const fitting = (): LoraAdapter => new LoraAdapter({ ...parts, a: zeros([2, 2]) });
      layer.attachLora(fitting());
      assert.throws(
        () => layer.attachLora(fitting()),
        new ValueRangeError(
          'Linear: expected a layer without an adapter, received one that has one.',
        ),
      );
    });
  });
});

describe('createLora', () => {
  const weight = tensor(W, f64);
  const init = { rank: 2, scaling: 1, dora: true, seed: 7 };

  test('B is zero, A within 1/√in of zero and of every sign, m the length of each row', () => {
    const wide = zeros([4, 400]);
    const { a, b } = createLora(wide, { ...init, rank: 30 });
    assert.deepEqual([...new Set(b.toTypedArray())], [0]);
    const values = Array.from(a.toTypedArray(), Number);
    const largest = Math.max(...values.map(Math.abs));
    // P(all of 12,000 below 0.99 of the bound) = 0.99^12000 < 1e-52.
    assert.ok(largest <= 0.05 && largest > 0.0495, `${largest} is not just below 1/√400`);
    // Uniform: variance bound²/3, of which 12,000 draws miss 5 % with probability below 1e-9.
    const variance = values.reduce((sum, value) => sum + value * value, 0) / values.length;
    assert.ok(Math.abs(variance / (0.05 ** 2 / 3) - 1) < 0.05, `variance ${variance}`);
    expectClose(createLora(weight, init).magnitude as Tensor, [5, 2, 1]);
  });

  test('a new adapter changes nothing, and no dtype changes A', () => {
    const layer = new Linear(weight, tensor(BIAS, f64));
    const before = layer.forward(tensor(X, f64)).toArray() as number[][];
    layer.attachLora(createLora(weight, init));
    expectClose(layer.forward(tensor(X, f64)), before, { atol: 1e-15, rtol: 1e-15 });
    const other = createLora(zeros([3, 2]), init);
    assert.deepEqual(other.a.toArray(), layer.lora?.a.toArray());
    assert.notDeepEqual(createLora(weight, { ...init, seed: 8 }).a.toArray(), other.a.toArray());
    assert.equal(createLora(weight, { ...init, dora: false }).magnitude, null);
  });

  test('refuses a rank that is no positive integer', () => {
    assert.throws(
      () => createLora(weight, { ...init, rank: 0 }),
      new ValueRangeError('createLora: expected rank to be a positive integer, received 0.'),
    );
  });
});

describe('withLoraDropout', () => {
  const wide = (dora: boolean): Linear => {
    const layer = new Linear(zeros([1, 4000], f64));
    layer.attachLora(
      new LoraAdapter({
        a: tensor([Array<number>(4000).fill(1)], f64),
        b: tensor([[1]], f64),
        magnitude: dora ? tensor([Math.sqrt(4000)], f64) : null,
        scaling: 1,
      }),
    );
    return layer;
  };
  const ones = (): Tensor => tensor([Array<number>(4000).fill(1)], f64);
  const summed = (layer: Linear, seed: number, p = 0.25): number =>
    tidy(() =>
      withLoraDropout(new Map([['layer', layer]]), { p, seed }, () => layer.forward(ones()).item()),
    );

  test('drops a share p of the input and scales the rest, by seed and name alone', () => {
    const layer = wide(false);
    const sum = summed(layer, 1);
    // 4,000/0.75 · Binomial(4000, 0.75)/4000: standard deviation 36.5; six of them are missed once in 5e8.
    assert.ok(sum !== 4000 && Math.abs(sum - 4000) < 220, `${sum} is not about 4000`);
    expectClose(sum * 0.75, Math.round(sum * 0.75), { atol: 1e-9, rtol: 0 });
    assert.equal(summed(layer, 1), sum);
    assert.notEqual(summed(layer, 2), sum);
    const renamed = withLoraDropout(new Map([['other', layer]]), { p: 0.25, seed: 1 }, () =>
      layer.forward(ones()).item(),
    );
    assert.notEqual(renamed, sum);
  });

  test('in DoRA the frozen weight sees the dropped input too', () => {
    const layer = wide(true);
    noGrad(() => layer.weight.fill_(1));
    // (W + B·A)·x = 2·Σ d(x), rows of length m = √4000 halve it: y = Σx + (1/2 − 1)·Σd(x) + 1/2·Σd(x) = Σx
    expectClose(summed(layer, 1), 4000);
    noGrad(() => layer.lora?.magnitude?.mul_(2));
    const sum = summed(layer, 1);
    // Ratio 1: y = Σx + Σd(x).
    expectClose(sum - 4000, summed(wide(false), 1), { rtol: 1e-12 });
  });

  test('ends with the callback, where that throws too, and p = 0 drops nothing', () => {
    const layer = wide(false);
    assert.equal(summed(layer, 1, 0), 4000);
    assert.throws(() =>
      withLoraDropout(new Map([['layer', layer]]), { p: 0.5, seed: 1 }, () => {
        throw new ValueRangeError('stop');
      }),
    );
    assert.equal(layer.forward(ones()).item(), 4000);
  });

  test('refuses a probability of 1', () => {
    assert.throws(
      () => withLoraDropout(new Map(), { p: 1, seed: 1 }, () => 0),
      new ValueRangeError('withLoraDropout: expected p to be from 0 to below 1, received 1.'),
    );
  });
});
