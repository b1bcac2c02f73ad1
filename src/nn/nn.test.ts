import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  arange,
  Generator,
  memory,
  ones,
  randn,
  tensor,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import {
  applyRope,
  Attention,
  Embedding,
  Linear,
  Mlp,
  Module,
  RMSNorm,
  ropeInverseFrequencies,
  ropeRotation,
  type AttentionParts,
} from './index.js';

const generator = new Generator(1);
const random = (shape: number[], dtype: Dtype = 'float64'): Tensor =>
  randn(shape, { generator, dtype });

class Block extends Module {
  readonly inner: Linear;
  readonly scale: Tensor;

  constructor() {
    super();
    this.scale = this.parameter('scale', ones([2]));
    this.inner = this.child('mlp.inner', new Linear(ones([2, 2]), zeros([2])));
  }
}

describe('Module', () => {
  test('names are dotted paths in the order of registration', () => {
    const block = new Block();
    assert.deepEqual(
      [...block.namedParameters().keys()],
      ['scale', 'mlp.inner.weight', 'mlp.inner.bias'],
    );
    assert.deepEqual(block.parameters(), [block.scale, block.inner.weight, block.inner.bias]);
    assert.ok(block.parameters().every(({ requiresGrad }) => requiresGrad));
  });
  test('parameters outlive the tidy they were made in, until dispose', () => {
    const before = memory().liveTensors;
    const made: Block[] = [];
    tidy(() => void made.push(new Block()));
    assert.equal(memory().liveTensors, before + 3);
    made[0]?.dispose();
    assert.equal(memory().liveTensors, before);
  });
  test('frozen parameters record nothing and hold no gradient', () => {
    const block = new Block();
    block.inner
      .forward(ones([1, 2]))
      .sum()
      .backward();
    assert.ok(block.inner.weight.grad);
    block.freeze();
    assert.equal(block.inner.weight.grad, null);
    assert.equal(block.inner.forward(ones([1, 2])).requiresGrad, false);
  });
});

describe('Linear', () => {
  test('by hand: x · weightᵀ + bias', () => {
    const weight = tensor([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    const layer = new Linear(weight, tensor([10, 20, 30]));
    assert.deepEqual(layer.forward(tensor([[[1, -1]]])).toArray(), [[[9, 19, 29]]]);
  });
  test('rejects weights and biases of other shapes', () => {
    assert.throws(() => new Linear(ones([2])), {
      message: 'Linear: expected weight [out, in], received [2].',
    });
    assert.throws(() => new Linear(ones([3, 2]), ones([2])), {
      message: 'Linear: expected bias [3], received [2].',
    });
  });
});

describe('Embedding', () => {
  test('gives the rows that the ids name, and its gradient counts them', () => {
    const table = new Embedding(
      tensor([
        [1, 2],
        [3, 4],
        [5, 6],
      ]),
    );
    const rows = table.forward(tensor([[2, 0, 2]], { dtype: 'int64' }));
    assert.deepEqual(rows.toArray(), [
      [
        [5, 6],
        [1, 2],
        [5, 6],
      ],
    ]);
    rows.sum().backward();
    assert.deepEqual(table.weight.grad?.toArray(), [
      [1, 1],
      [0, 0],
      [2, 2],
    ]);
    assert.throws(() => new Embedding(ones([2])), { code: 'E_SHAPE' });
  });

  test('an id outside of the table is refused by its number', () => {
    const table = new Embedding(ones([3, 2]));
    for (const id of [3, -1])
      assert.throws(() => table.forward(tensor([[0, id, 2]], { dtype: 'int64' })), {
        code: 'E_RANGE',
        message: `Embedding: expected ids from 0 to 2, received ${id}.`,
        hint: 'The tokenizer may belong to another model.',
      });
    // Another fault keeps its own message.
    assert.throws(() => table.forward(tensor([0.5])), { code: 'E_NATIVE' });
  });
});

describe('RMSNorm', () => {
  // mean(x²) = (1 + 49)/2 = 25
  test('by hand: weight · x / √(mean(x²) + eps)', () => {
    const norm = new RMSNorm(tensor([2, 3], { dtype: 'float64' }), 1e-12);
    const y = norm.forward(tensor([[1, 7]], { dtype: 'float64' }));
    expectClose(y, [[0.4, 4.2]], { rtol: 1e-12 });
  });
  test('eps is inside the root', () => {
    const norm = new RMSNorm(ones([2], { dtype: 'float64' }), 24);
    expectClose(norm.forward(tensor([1, 1], { dtype: 'float64' })), [0.2, 0.2], { rtol: 1e-15 });
  });
  for (const dtype of ['float32', 'bfloat16', 'float16'] as const)
    test(`in ${dtype} the value is cast before it is scaled`, () => {
      const x = random([64, 96], 'float32').to(dtype);
      const weight = random([96], 'float32').to(dtype);
      const x32 = x.to('float32');
      const inverseRms = x32.square().mean(-1, { keepDim: true }).add(1e-6).rsqrt();
      const expected = x32.mul(inverseRms).to(dtype).mul(weight);
      const actual = new RMSNorm(weight).forward(x);
      assert.equal(actual.dtype, dtype);
      // Squares are summed in another order, so that one number of ten thousand may be rounded the other way. Cast after it
      // was scaled, one of three would be another.
      if (dtype === 'float32') expectClose(actual, expected.toArray(), { rtol: 1e-6, atol: 1e-6 });
      else assert.ok(actual.ne(expected).to('int64').sum().item() < x.numel / 1000);
    });
  test('with a float32 weight a bfloat16 input gives float32, cast before it is scaled', () => {
    const x = random([8, 6], 'bfloat16');
    const weight = random([6], 'float32');
    const expected = new RMSNorm(ones([6], { dtype: 'bfloat16' })).forward(x).mul(weight);
    const actual = new RMSNorm(weight).forward(x);
    assert.equal(actual.dtype, 'float32');
    expectClose(actual, expected.toArray(), { rtol: 1e-6 });
  });
  for (const dtype of ['float64', 'float32', 'bfloat16', 'float16'] as const)
    test(`with one added to the weight, ${dtype} is cast after it is scaled`, () => {
      const x = random([64, 96], 'float32').to(dtype);
      const weight = random([96], 'float32').to(dtype);
      const wide = dtype === 'float64' ? dtype : 'float32';
      const xWide = x.to(wide);
      const inverseRms = xWide.square().mean(-1, { keepDim: true }).add(1e-6).rsqrt();
      const expected = xWide.mul(inverseRms).mul(weight.to(wide).add(1)).to(dtype);
      const actual = new RMSNorm(weight, 1e-6, { plusOne: true }).forward(x);
      assert.equal(actual.dtype, dtype);
      if (dtype === wide) expectClose(actual, expected.toArray(), { rtol: 1e-6, atol: 1e-6 });
      else assert.ok(actual.ne(expected).to('int64').sum().item() < x.numel / 1000);
    });
  test('rejects another width and an eps that is not positive', () => {
    assert.throws(() => new RMSNorm(ones([3])).forward(ones([2, 4])), {
      message: 'RMSNorm: expected the last dimension of x to be 3, received [2, 4].',
    });
    assert.throws(() => new RMSNorm(ones([3]), 0), { code: 'E_RANGE' });
    assert.throws(() => new RMSNorm(ones([3, 1])), { code: 'E_SHAPE' });
  });
});

describe('rope', () => {
  const plain = { headDim: 4, ropeTheta: 100, ropeScaling: null };
  const frequencies = (): Tensor => tensor(Float32Array.from(ropeInverseFrequencies(plain)));

  test('frequencies by hand: θ^(−2i/D)', () => {
    expectClose(ropeInverseFrequencies(plain), [1, 0.1], { rtol: 1e-7 });
  });
  test('linear scaling divides every frequency', () => {
    const ropeScaling = { type: 'linear', factor: 4 } as const;
    expectClose(ropeInverseFrequencies({ ...plain, ropeScaling }), [0.25, 0.025], { rtol: 1e-7 });
  });
  test('llama3 keeps short wavelengths, divides long ones and mixes between', () => {
    const ropeScaling = {
      type: 'llama3',
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositionEmbeddings: 100,
    } as const;
    const scaled = ropeInverseFrequencies({ headDim: 6, ropeTheta: 1000, ropeScaling });
    // Wavelengths 6.3 < 100/4 is kept, 62.8 lies between, 628 > 100/1 is divided by 8.
    const turns = 100 / (2 * Math.PI * 10);
    const share = (turns - 1) / (4 - 1);
    expectClose(scaled, [1, ((1 - share) * 0.1) / 8 + share * 0.1, 0.01 / 8], { rtol: 1e-6 });
  });
  test('turns dimension i with i + D/2 by position times frequency', () => {
    const x = tensor([1, 0, 0, 1], { dtype: 'float64' }).view([1, 1, 4]);
    const y = applyRope(x, ropeRotation(frequencies(), tensor([3], { dtype: 'int64' }), 'float64'));
    // (x₀, x₂) = (1, 0) by 3 rad; (x₁, x₃) = (0, 1) by 0.3 rad.
    const expected = [Math.cos(3), -Math.sin(0.3), Math.sin(3), Math.cos(0.3)];
    expectClose(y, [[expected]], { rtol: 1e-6 });
  });
  test('position 0 changes nothing, and lengths are kept', () => {
    const x = random([5, 2, 4]);
    const y = applyRope(x, ropeRotation(frequencies(), arange(0, 5), 'float64'));
    assert.ok(y.select(0, 0).equal(x.select(0, 0)));
    expectClose(y.square().sum(-1), x.square().sum(-1), { rtol: 1e-6 });
  });
  test('products of queries and keys depend on distance only', () => {
    const [q, k] = [random([1, 1, 4]), random([1, 1, 4])];
    const score = (from: number, to: number): Tensor => {
      const at = (x: Tensor, position: number): Tensor =>
        applyRope(
          x,
          ropeRotation(frequencies(), tensor([position], { dtype: 'int64' }), 'float64'),
        );
      return at(q, from).mul(at(k, to)).sum();
    };
    expectClose(score(17, 12), score(5, 0), { rtol: 1e-5 });
  });
  test('rejects an odd head size', () => {
    assert.throws(() => ropeInverseFrequencies({ ...plain, headDim: 5 }), {
      message: 'rope: expected an even headDim, received 5.',
    });
  });
});

describe('Attention', () => {
  const headDim = 4;
  const settings = {
    numHeads: 4,
    numKeyValueHeads: 2,
    headDim,
    scale: headDim ** -0.5,
    softcap: null,
  };
  const rotation = (length: number): ReturnType<typeof ropeRotation> => {
    const rope = { headDim, ropeTheta: 100, ropeScaling: null };
    const inverse = tensor(Float32Array.from(ropeInverseFrequencies(rope)));
    return ropeRotation(inverse, arange(0, length), 'float64');
  };
  const parts = (qkNorm: boolean): AttentionParts => ({
    projections: [
      ['q_proj', new Linear(random([16, 8]), random([16]))],
      ['k_proj', new Linear(random([8, 8]))],
      ['v_proj', new Linear(random([8, 8]))],
    ],
    output: ['o_proj', new Linear(random([8, 16]))],
    qNorm: qkNorm ? new RMSNorm(random([4])) : null,
    kNorm: qkNorm ? new RMSNorm(random([4])) : null,
  });

  /** The definition, one query head at a time. */
  function byHand(layer: Attention, x: Tensor): Tensor {
    const length = x.size(1);
    const heads = (y: Tensor): Tensor => y.view([length, -1, headDim]);
    const [q, k, v] = layer.projections.map((linear) => heads(linear.forward(x)));
    assert.ok(q && k && v, 'three projections');
    const turned = (y: Tensor, norm: RMSNorm | null): Tensor =>
      applyRope(norm?.forward(y) ?? y, rotation(length));
    const [query, key] = [turned(q, layer.qNorm), turned(k, layer.kNorm)];
    const hidden = ones([length, length], { dtype: 'bool' }).tril().logicalNot();
    let output = layer.output.forward(zeros([1, length, 16], { dtype: 'float64' }));
    for (let head = 0; head < 4; head++) {
      const shared = Math.floor(head / 2);
      const scores = query
        .select(1, head)
        .mm(key.select(1, shared).transpose(0, 1))
        .div(Math.sqrt(headDim));
      const attended = scores.maskedFill(hidden, -Infinity).softmax(-1).mm(v.select(1, shared));
      const columns = layer.output.weight.narrow(1, head * headDim, headDim);
      output = output.add(attended.mm(columns.transpose(0, 1)));
    }
    return output;
  }

  for (const qkNorm of [false, true])
    test(`equals its definition head by head, ${qkNorm ? 'with' : 'without'} norms of q and k`, () => {
      const layer = new Attention(parts(qkNorm), settings);
      const x = random([1, 6, 8]);
      expectClose(layer.forward(x, rotation(6), null), byHand(layer, x), { rtol: 1e-10 });
    });
  test('a causal mask gives what no mask gives', () => {
    const layer = new Attention(parts(true), settings);
    const x = random([2, 6, 8]);
    const mask = ones([2, 1, 6, 6], { dtype: 'bool' }).tril();
    const [masked, causal] = [mask, null].map((m) => layer.forward(x, rotation(6), m));
    assert.ok(masked && causal);
    expectClose(masked, causal, { rtol: 1e-10 });
  });
});

describe('Mlp', () => {
  test('by hand: down(silu(gate·x) · up·x)', () => {
    const linear = (weight: number): Linear => new Linear(tensor([[weight]], { dtype: 'float64' }));
    const layer = new Mlp(
      {
        inputs: [
          ['gate_proj', linear(2)],
          ['up_proj', linear(3)],
        ],
        output: ['down_proj', linear(5)],
      },
      { activation: 'silu', gated: true },
    );
    // silu(2) = 2/(1 + e⁻²); times 3, times 5.
    const expected = (2 / (1 + Math.exp(-2))) * 3 * 5;
    expectClose(layer.forward(tensor([[1]], { dtype: 'float64' })), [[expected]], { rtol: 1e-14 });
  });

  for (const dtype of ['float64', 'float32'] as const)
    for (const withNorm of [false, true])
      test(`biases of all layers count in ${dtype}, ${withNorm ? 'after a norm' : 'without a norm'}`, () => {
        tidy(() => {
          const [gate, up] = [0, 1].map(
            () => new Linear(random([6, 4], dtype), random([6], dtype)),
          ) as [Linear, Linear];
          const down = new Linear(random([4, 6], dtype), random([4], dtype));
          const mlp = new Mlp(
            {
              inputs: [
                ['gate', gate],
                ['up', up],
              ],
              output: ['down', down],
            },
            { activation: 'silu', gated: true },
          );
          const norm = withNorm ? new RMSNorm(random([4], dtype)) : null;
          const x = random([3, 4], dtype);
          const read = norm?.forward(x) ?? x;
          const inner = gate.forward(read).silu().mul(up.forward(read));
          expectClose(mlp.forward(x, norm), down.forward(inner).toArray(), {
            rtol: 1e-5,
            atol: 1e-6,
          });
        });
      });
});
