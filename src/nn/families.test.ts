import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { arange, Generator, ones, randn, tensor, type Dtype, type Tensor } from '../torch/index.js';
import {
  applyRope,
  attend,
  Embedding,
  ExpertMlp,
  innerValues,
  LayerNorm,
  Linear,
  Mlp,
  RMSNorm,
  ropeAttentionFactor,
  ropeInverseFrequencies,
  ropeLength,
  ropeRotation,
  type RopeScaling,
} from './index.js';

const generator = new Generator(2);
const random = (shape: number[], dtype: Dtype = 'float64'): Tensor =>
  randn(shape, { generator, dtype });
const exact = (values: number[] | number[][]): Tensor => tensor(values, { dtype: 'float64' });

describe('LayerNorm', () => {
  test('by hand: weight · (x − mean)/√(var + eps) + bias, the variance biased', () => {
    const norm = new LayerNorm(exact([2, 3]), exact([10, 20]), 7);
    // mean 4, variance 9, 9 + 7 = 16.
    expectClose(norm.forward(exact([[1, 7]])), [[10 - 1.5, 20 + 2.25]], { rtol: 1e-12 });
  });
  test('rejects other widths and an eps that is not positive', () => {
    assert.throws(() => new LayerNorm(ones([3]), ones([3])).forward(ones([2, 4])), {
      message: 'LayerNorm: expected the last dimension of x to be 3, received [2, 4].',
    });
    assert.throws(() => new LayerNorm(ones([3]), ones([2])), {
      message: 'LayerNorm: expected weight and bias [D], received [3] and [2].',
    });
    assert.throws(() => new LayerNorm(ones([3]), ones([3]), 0), { code: 'E_RANGE' });
  });
});

describe('RMSNorm with plusOne', () => {
  test('by hand: (1 + weight) · x / √(mean(x²) + eps)', () => {
    const norm = new RMSNorm(exact([1, 2]), 1e-12, { plusOne: true });
    expectClose(norm.forward(exact([[1, 7]])), [[0.4, 4.2]], { rtol: 1e-12 });
  });
  for (const dtype of ['bfloat16', 'float16'] as const)
    test(`in ${dtype} the value is scaled in float32 and cast after that`, () => {
      const x = random([32, 64], 'float32').to(dtype);
      const weight = random([64], 'float32').to(dtype);
      const x32 = x.to('float32');
      const inverseRms = x32.square().mean(-1, { keepDim: true }).add(1e-6).rsqrt();
      const expected = x32.mul(inverseRms).mul(weight.to('float32').add(1)).to(dtype);
      const actual = new RMSNorm(weight, 1e-6, { plusOne: true }).forward(x);
      assert.equal(actual.dtype, dtype);
      // Sums in another order may round one value in a thousand to its neighbour.
      const different = actual.ne(expected).to('float32').mean().item();
      assert.ok(different < 2e-3, `${different} of the values differ`);
    });
});

describe('Embedding with a scale', () => {
  test('multiplies every vector by the scale', () => {
    const table = new Embedding(exact([[1, 2], [3, 4]]), 5); // prettier-ignore
    const row = table.forward(tensor([1], { dtype: 'int64' }));
    expectClose(row, [[15, 20]], { rtol: 1e-15 });
    row.sum().backward();
    assert.deepEqual(table.weight.grad?.toArray(), [
      [0, 0],
      [5, 5],
    ]);
  });
  test('rounds it to the dtype first: √3072 is 55.5 in bfloat16', () => {
    assert.equal(new Embedding(ones([1, 1], { dtype: 'bfloat16' }), Math.sqrt(3072)).scale, 55.5);
  });
});

describe('attend with a soft cap', () => {
  const options = { scale: 0.5, softcap: 2 };
  const [q, k, v] = [random([2, 4, 5, 3]), random([2, 2, 5, 3]), random([2, 2, 5, 3])];

  test('equals its definition head by head: c·tanh(scale·q·k/c) before the mask', () => {
    const mask = ones([1, 1, 5, 5], { dtype: 'bool' }).tril().triu(-1);
    const actual = attend(q, k, v, { ...options, mask });
    for (let head = 0; head < 4; head++) {
      const shared = Math.floor(head / 2);
      const scores = q.select(1, head).bmm(k.select(1, shared).transpose(1, 2));
      const capped = scores.mul(0.5).div(2).tanh().mul(2);
      const hidden = mask.select(0, 0).select(0, 0).logicalNot();
      const weights = capped.maskedFill(hidden, -Infinity).softmax(-1);
      expectClose(actual.select(1, head), weights.bmm(v.select(1, shared)), { rtol: 1e-10 });
    }
  });
  test('causal, a mask of booleans and one that is added mean the same', () => {
    const causal = attend(q, k, v, { ...options, mask: null, causal: true });
    const mask = ones([2, 1, 5, 5], { dtype: 'bool' }).tril();
    const added = mask.logicalNot().to('float64').mul(-1e300);
    for (const other of [mask, added])
      expectClose(attend(q, k, v, { ...options, mask: other }), causal, { rtol: 1e-10 });
  });
  test('a cap far above the scores changes nothing', () => {
    const plain = attend(q, k, v, { scale: 0.5, softcap: null, mask: null, causal: true });
    const capped = attend(q, k, v, { scale: 0.5, softcap: 1e7, mask: null, causal: true });
    expectClose(capped, plain, { rtol: 1e-8 });
  });
  test('no score is above the cap: a query that asks for one key only still sees the others', () => {
    const key = exact([[0], [1e6]]).view([1, 1, 2, 1]);
    const value = exact([[0], [1]]).view([1, 1, 2, 1]);
    const query = ones([1, 1, 1, 1], { dtype: 'float64' });
    const share = Math.exp(2) / (1 + Math.exp(2));
    expectClose(attend(query, key, value, { ...options, mask: null }), [[[[share]]]], {
      rtol: 1e-12,
    });
  });
});

describe('feed-forward layers', () => {
  const gelu = (x: number): number =>
    (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

  test('without a gate by hand: out(gelu(in(x)))', () => {
    const layer = new Mlp(
      {
        inputs: [['c_fc', new Linear(exact([[2]]), exact([-0.5]))]],
        output: ['c_proj', new Linear(exact([[3]]), exact([7]))],
      },
      { activation: 'geluTanh', gated: false },
    );
    expectClose(layer.forward(exact([[1]])), [[3 * gelu(1.5) + 7]], { rtol: 1e-12 });
    assert.deepEqual(
      [...layer.namedParameters().keys()],
      ['c_fc.weight', 'c_fc.bias', 'c_proj.weight', 'c_proj.bias'],
    );
  });
  test('gate and up in one tensor: the first half is the gate', () => {
    const both = exact([[1.5, -2, 3, 5]]);
    const expected = [[gelu(1.5) * 3, gelu(-2) * 5]];
    const settings = { activation: 'geluTanh', gated: true } as const;
    expectClose(innerValues([both], settings), expected, { rtol: 1e-12 });
    expectClose(innerValues(both.chunk(2, -1), settings), expected, { rtol: 1e-12 });
  });
});

describe('ExpertMlp', () => {
  /** An expert that multiplies by `factor` what is positive, as far as silu lets it. */
  const expert = (factor: number): Mlp =>
    new Mlp(
      {
        inputs: [
          ['gate_proj', new Linear(exact([[100]]))],
          ['up_proj', new Linear(exact([[1]]))],
        ],
        output: ['down_proj', new Linear(exact([[factor / 100]]))],
      },
      { activation: 'silu', gated: true },
    );
  const router = (): Linear => new Linear(exact([[0], [1], [2], [-1]]));
  const layer = (normalize: boolean, expertsPerToken = 2): ExpertMlp =>
    new ExpertMlp(
      { router: router(), experts: [1, 10, 100, 1000].map(expert) },
      { expertsPerToken, normalize },
    );
  const p = [0, 1, 2, -1].map((score) => Math.exp(score));
  const total = p.reduce((sum, value) => sum + value, 0);

  test('by hand: the two likeliest of four, weighted by their probabilities', () => {
    // x = 1: every expert gives factor · silu(100)/100 · 1 = factor.
    const expected = (10 * (p[1] ?? 0) + 100 * (p[2] ?? 0)) / total;
    expectClose(layer(false).forward(exact([[1]])), [[expected]], { rtol: 1e-12 });
  });
  test('normalised weights sum to 1', () => {
    const [one = 0, two = 0] = [p[1], p[2]];
    const expected = (10 * one + 100 * two) / (one + two);
    expectClose(layer(true).forward(exact([[1]])), [[expected]], { rtol: 1e-12 });
  });
  test('with all experts chosen it is the mixture of all', () => {
    const x = random([2, 3, 1]);
    const all = layer(true, 4);
    const weights = all.router.forward(x).softmax(-1);
    const parts = all.experts.map((one, index) => one.forward(x).mul(weights.narrow(-1, index, 1)));
    const sum = parts.reduce((total_, part) => total_.add(part));
    expectClose(all.forward(x), sum, { rtol: 1e-10 });
  });
  test('each token goes to its own experts, and the others get no gradient from it', () => {
    const both = layer(false, 1);
    const y = both.forward(exact([[1], [-1]]).view([1, 2, 1]));
    // x = −1 turns the scores round: the last expert is its first choice.
    y.select(1, 0).sum().backward();
    const gradients = both.experts.map(({ output }) => output.weight.grad?.abs().sum().item() ?? 0);
    assert.ok((gradients[2] ?? 0) > 0, 'the chosen one has a gradient');
    assert.deepEqual([gradients[0], gradients[1], gradients[3]], [0, 0, 0]);
    assert.ok((both.router.weight.grad?.abs().sum().item() ?? 0) > 0, 'so has the router');
  });
  test('names are those of the checkpoint', () => {
    assert.deepEqual([...layer(true).namedParameters().keys()].slice(0, 4), [
      'gate.weight',
      'experts.0.gate_proj.weight',
      'experts.0.up_proj.weight',
      'experts.0.down_proj.weight',
    ]);
  });
});

describe('rotary positions', () => {
  const plain = { headDim: 4, ropeTheta: 100, ropeScaling: null };
  const original = { originalMaxPositionEmbeddings: 10 };

  test('only the first R numbers of a head turn', () => {
    const x = random([3, 2, 6]);
    const frequencies = tensor(
      Float32Array.from(ropeInverseFrequencies({ ...plain, headDim: 6, rotaryDim: 4 })),
    );
    assert.equal(frequencies.size(0), 2);
    const y = applyRope(x, ropeRotation(frequencies, arange(0, 3), 'float64'));
    assert.ok(y.narrow(-1, 4, 2).equal(x.narrow(-1, 4, 2)), 'the rest stays');
    const alone = applyRope(x.narrow(-1, 0, 4), ropeRotation(frequencies, arange(0, 3), 'float64'));
    assert.ok(y.narrow(-1, 0, 4).equal(alone), 'the first turn as a head of their own');
  });
  test('dynamic: θ grows beyond the original context, and is as it was within', () => {
    const ropeScaling = { type: 'dynamic', factor: 3, ...original } as const;
    const at = (length: number): Float64Array =>
      ropeInverseFrequencies({ ...plain, ropeScaling }, length);
    for (const length of [0, 9, 10]) expectClose(at(length), [1, 0.1], { rtol: 1e-6 });
    // θ' = 100·(3·20/10 − 2)^(4/2) = 1600.
    expectClose(at(20), [1, 1 / 40], { rtol: 1e-6 });
  });
  test('yarn by hand: fast dimensions are kept, slow ones divided, half-way ones mixed', () => {
    const ropeScaling = {
      type: 'yarn',
      factor: 4,
      attentionFactor: 1.2,
      betaFast: 100,
      betaSlow: 0.01,
      truncate: false,
      ...original,
    } as const;
    // Dimensions of 100 and of 0.01 turns: 4·ln(10/(2π·100))/(2·ln 100) < 0 → 0, and 2.20.
    const high = (4 * Math.log(10 / (2 * Math.PI * 0.01))) / (2 * Math.log(100));
    const share = 1 / high;
    const expected = [1, (0.1 / 4) * share + 0.1 * (1 - share)];
    const settings = { ...plain, ropeScaling };
    expectClose(ropeInverseFrequencies(settings), expected, { rtol: 1e-6 });
    const truncated = { ...plain, ropeScaling: { ...ropeScaling, truncate: true } };
    const third = [1, (0.1 / 4) * (1 / 3) + (0.1 * 2) / 3];
    expectClose(ropeInverseFrequencies(truncated), third, { rtol: 1e-6 });
    assert.equal(ropeAttentionFactor(settings), 1.2);
    const { cos, sin } = ropeRotation(tensor([1, 0.1]), arange(0, 2), 'float64', 1.2);
    expectClose(cos.square().add(sin.square()), ones(cos.shape).mul(1.44), { rtol: 1e-6 });
  });
  test('longrope: one list within the original context, the other beyond', () => {
    const ropeScaling = {
      type: 'longrope',
      shortFactor: [1, 2],
      longFactor: [4, 5],
      attentionFactor: 1,
      ...original,
    } as const;
    const settings = { ...plain, ropeScaling };
    for (const length of [0, 10])
      expectClose(ropeInverseFrequencies(settings, length), [1, 0.05], { rtol: 1e-6 });
    expectClose(ropeInverseFrequencies(settings, 11), [0.25, 0.02], { rtol: 1e-6 });
    assert.throws(() => ropeInverseFrequencies({ ...settings, headDim: 6 }), {
      message: 'rope: expected 3 factors of longrope, one per frequency, received 2.',
    });
  });
  test('lengths with the same frequencies have the same name', () => {
    const names = (ropeScaling: RopeScaling | null): number[] =>
      [1, 10, 11, 12].map((length) => ropeLength({ ...plain, ropeScaling }, length));
    assert.deepEqual(names(null), [0, 0, 0, 0]);
    assert.deepEqual(names({ type: 'linear', factor: 2 }), [0, 0, 0, 0]);
    assert.deepEqual(names({ type: 'dynamic', factor: 2, ...original }), [10, 10, 11, 12]);
    const factors = { shortFactor: [1, 1], longFactor: [2, 2], attentionFactor: 1 };
    assert.deepEqual(names({ type: 'longrope', ...factors, ...original }), [10, 10, 11, 11]);
  });
});
