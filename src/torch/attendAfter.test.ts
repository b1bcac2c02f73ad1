import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectNear, expectOwnGradients, expectSameGradients } from '../../test/gradients.js';
import {
  attendAfter,
  attendPrompted,
  autocast,
  cat,
  Generator,
  grad,
  hostMemory,
  noGrad,
  ones,
  randn,
  releaseHostMemory,
  scaledDotProductAttention,
  tensor,
  tidy,
  type Dtype,
  type Tensor,
} from './index.js';

const generator = new Generator(6);
const random = (...shape: number[]): Tensor => randn(shape, { generator });

const [dim, columns, own] = [8, 5, 3];
const scale = 0.3;
const promptOf = (): Tensor => tensor([1, 0, 2, 1, 1], { dtype: 'int64' });

/** Of rows that look at themselves up to each query, and at prompts of 5, 4 and 2 tokens. */
function masks(dtype: Dtype): Tensor {
  const lengths = [4, 5, 2, 4, 4];
  const all = lengths.map((length) => [
    Array.from({ length: own }, (_, query) =>
      Array.from({ length: columns + own }, (_, key) =>
        (key < columns ? key < length : key - columns <= query) ? 0 : -Infinity,
      ),
    ),
  ]);
  return tensor(all, { dtype });
}

/** Queries of 4 heads; keys and values of 2 heads, of three prompts and of five rows. */
const inputs = (): Tensor[] => [
  random(5, 4, own, dim),
  random(3, 2, columns, dim),
  random(3, 2, columns, dim),
  random(5, 2, own, dim),
  random(5, 2, own, dim),
];
type Five = [Tensor, Tensor, Tensor, Tensor, Tensor];

const fused = (...all: Tensor[]): Tensor => {
  const [query, promptKeys, promptValues, keys, values] = all as Five;
  return attendAfter(
    query,
    { keys: promptKeys, values: promptValues },
    promptOf(),
    { keys, values },
    { mask: masks(query.dtype), scale },
  );
};

/** By the definition. */
const plain = (...all: Tensor[]): Tensor => {
  const [query, promptKeys, promptValues, keys, values] = all as Five;
  const seen = (prompts: Tensor, rows: Tensor): Tensor =>
    cat([prompts.indexSelect(0, promptOf()), rows], 2).repeatInterleave(2, 1);
  const scores = query.matmul(seen(promptKeys, keys).transpose(-1, -2)).mul(scale);
  return scores.add(masks(query.dtype)).softmax(-1).matmul(seen(promptValues, values));
};

/** 64 rows of one prompt: put together, keys and values would take 64 · 520 columns each. */
function manyRows() {
  const [rows, heads, before, after, width] = [64, 2, 512, 8, 64];
  const leaf = (...shape: number[]): Tensor => random(...shape).requiresGrad_();
  const pair = (count: number, columns: number) => ({
    keys: leaf(count, heads, columns, width),
    values: leaf(count, heads, columns, width),
  });
  const query = leaf(rows, heads, after, width);
  return { rows, before, after, query, prompts: pair(1, before), own: pair(rows, after) };
}

describe('attendAfter', () => {
  for (const dtype of ['float64', 'float32'] as const)
    test(`of ${dtype} has the values and gradients of its definition`, () => {
      expectSameGradients(inputs(), dtype, fused, plain);
    });

  test('of bfloat16 is about as near to the definition in float64', () => {
    expectNear(inputs(), fused, plain);
  });

  test('takes heads that lie beside each other, as layers give them', () => {
    tidy(() => {
      const turned = inputs().map((each) => each.transpose(1, 2).contiguous());
      const back =
        (compute: typeof fused) =>
        (...all: Tensor[]): Tensor =>
          compute(...all.map((each) => each.transpose(1, 2)));
      expectSameGradients(turned, 'float32', back(fused), back(plain));
    });
  });

  test('gives the same where nothing is recorded', () => {
    tidy(() => {
      const all = inputs();
      const recorded = fused(...all.map((each) => each.clone().requiresGrad_())).detach();
      assert.ok(noGrad(() => fused(...all)).equal(recorded));
      assert.equal(fused(...all).requiresGrad, false);
    });
  });

  test('gives frozen tensors no gradient, and the others theirs', () => {
    expectOwnGradients(inputs(), fused, plain);
  });

  test('keeps a prompt once for all of its rows', () => {
    tidy(() => {
      const { rows, before, after, query, prompts, own } = manyRows();
      const mask = ones([1, 1, after, before + after]).sub(1);
      const places = tensor(new Int32Array(rows), { dtype: 'int64' });
      const { bytesInUse } = hostMemory();
      const y = attendAfter(query, prompts, places, own, { mask, scale });
      const grown = hostMemory().bytesInUse - bytesInUse;
      assert.ok(grown < 2 * 4 * y.numel, `${grown} bytes`);
    });
  });

  test('under autocast computes in bfloat16, as libtorch does', () => {
    tidy(() => {
      const all = inputs().map((each) => each.requiresGrad_());
      const found = autocast({ device: 'cpu', dtype: 'bfloat16' }, () => fused(...all));
      assert.equal(found.dtype, 'bfloat16');
      assert.ok(found.requiresGrad);
    });
  });

  test('refuses a second derivative, and a prompt that is not there', () => {
    tidy(() => {
      const all = inputs().map((each) => each.requiresGrad_());
      assert.throws(
        () => grad([fused(...all).sum()], [all[0] as Tensor], { createGraph: true }),
        /no second derivative/,
      );
      const [query, keys, values, ownKeys, ownValues] = all as Five;
      assert.throws(
        () =>
          attendAfter(
            query,
            { keys, values },
            tensor([0, 1, 2, 3, 0], { dtype: 'int64' }),
            { keys: ownKeys, values: ownValues },
            { mask: masks('float32'), scale },
          ),
        /index out of range/,
      );
    });
  });
});

const order = [1, 0, 2, 1, 1];
const lengths = [5, 4, 2];

const prompted = (...all: Tensor[]): Tensor => {
  const [query, promptKeys, promptValues, keys, values] = all as Five;
  const options = { promptOf: order, lengths, scale };
  return attendPrompted(
    query,
    { keys: promptKeys, values: promptValues },
    { keys, values },
    options,
  );
};

describe('attendPrompted', () => {
  test('has the values and gradients of the definition, rows of one prompt apart and beside each other', () => {
    expectSameGradients(inputs(), 'float32', prompted, plain);
  });

  test('takes heads that lie beside each other, as layers give them, and gives its result so', () => {
    tidy(() => {
      const turned = inputs().map((each) => each.transpose(1, 2).contiguous());
      const back =
        (compute: typeof prompted) =>
        (...all: Tensor[]): Tensor =>
          compute(...all.map((each) => each.transpose(1, 2)));
      expectSameGradients(turned, 'float32', back(prompted), back(plain));
      assert.ok(prompted(...inputs()).transpose(1, 2).isContiguous);
    });
  });

  test('reads nothing of the padding of a prompt, and gives it no gradient', () => {
    tidy(() => {
      const all = inputs();
      const junk = all.map((each, index) => {
        if (index !== 1 && index !== 2) return each.clone().requiresGrad_();
        const filled = each.clone();
        lengths.forEach((length, prompt) => {
          filled
            .narrow(0, prompt, 1)
            .narrow(2, length, columns - length)
            .fill_(NaN);
        });
        return filled.requiresGrad_();
      });
      const y = prompted(...junk);
      assert.ok(noGrad(() => prompted(...all)).equal(y.detach()));
      y.square().sum().backward();
      for (const index of [1, 2]) {
        const gradient = junk[index]?.grad as Tensor;
        assert.ok(gradient.isfinite().all().item());
        assert.equal(gradient.narrow(0, 2, 1).narrow(2, 2, 3).abs().sum().item(), 0);
        assert.ok(gradient.narrow(0, 2, 1).narrow(2, 0, 2).abs().sum().item() > 0);
      }
    });
  });

  test('a prompt without columns leaves rows to themselves', () => {
    tidy(() => {
      const [query, promptKeys, promptValues, keys, values] = inputs() as Five;
      const found = attendPrompted(
        query,
        { keys: promptKeys, values: promptValues },
        { keys, values },
        { promptOf: order, lengths: [5, 0, 2], scale },
      );
      const alone = scaledDotProductAttention(query, keys, values, {
        causal: true,
        scale,
        groupedQuery: true,
      });
      for (const row of [0, 3, 4])
        assert.deepEqual(
          found.narrow(0, row, 1).toArray(),
          alone.narrow(0, row, 1).contiguous().toArray(),
        );
    });
  });

  test('holds for scores so far apart that one part outweighs the other', () => {
    tidy(() => {
      const far = (times: number): Tensor[] =>
        inputs().map((each, index) => (index === times ? each.mul(20) : each));
      for (const times of [1, 3]) expectSameGradients(far(times), 'float32', prompted, plain);
    });
  });

  test('gives frozen tensors no gradient, and the others theirs', () => {
    expectOwnGradients(inputs(), prompted, plain);
  });

  test('keeps and makes no copy of a prompt for its rows', () => {
    tidy(() => {
      const { rows, before, query, prompts, own } = manyRows();
      releaseHostMemory();
      const { mostBytesInUse } = hostMemory();
      const y = attendPrompted(query, prompts, own, {
        promptOf: Array.from({ length: rows }, () => 0),
        lengths: [before],
        scale,
      });
      y.sum().backward();
      // A copy of keys for each row would take 64 · 520 columns, 65 times what the result takes.
      const grown = hostMemory().mostBytesInUse - mostBytesInUse;
      assert.ok(grown < 20 * 4 * y.numel, `${grown} bytes`);
    });
  });

  test('refuses a second derivative, another dtype, and what does not fit', () => {
    tidy(() => {
      const all = inputs().map((each) => each.requiresGrad_());
      assert.throws(
        () => grad([prompted(...all).sum()], [all[0] as Tensor], { createGraph: true }),
        /no second derivative/,
      );
      const [query, keys, values, ownKeys, ownValues] = all as Five;
      const call = (promptOf: number[], of: number[], first = query): (() => Tensor) => {
        const options = { promptOf, lengths: of, scale };
        return () =>
          attendPrompted(first, { keys, values }, { keys: ownKeys, values: ownValues }, options);
      };
      assert.throws(call(order, lengths, query.to('bfloat16')), /expected float32 or bfloat16/);
      assert.throws(call(order, lengths, query.to('float64')), /expected float32 or bfloat16/);
      assert.throws(call(order, lengths, query.narrow(2, 0, 2)), /keys and values that fit/);
      const turned = query.transpose(2, 3).contiguous().transpose(2, 3);
      assert.throws(call(order, lengths, turned), /numbers of a head beside each other/);
      assert.throws(call(order, lengths, query.narrow(1, 0, 3)), /for each head of keys/);
      assert.throws(call(order, lengths, query.narrow(2, 0, 0)), /expected columns/);
      assert.throws(call([0, 1, 2], lengths), /a prompt for each of 5 rows/);
      assert.throws(call(order, [5, 4]), /a length for each of 3 prompts/);
      assert.throws(call([0, 1, 2, 3, 0], lengths), /prompts below 3, received 3/);
      assert.throws(call(order, [5, 4, 6]), /lengths up to 5, received 6/);
      assert.throws(call(order, [5, 4, -1]), /lengths up to 5, received -1/);
    });
  });

  test('of bfloat16 is as near to the definition in float64, and keeps its inputs as they are', () => {
    expectNear(inputs(), prompted, plain);
    tidy(() => {
      const { rows, before, query, prompts, own } = manyRows();
      const half = (each: Tensor): Tensor => each.detach().to('bfloat16').requiresGrad_();
      const [q, keys, values] = [half(query), half(prompts.keys), half(prompts.values)];
      const ofRows = { keys: half(own.keys), values: half(own.values) };
      const { bytesInUse } = hostMemory();
      const options = { promptOf: Array.from({ length: rows }, () => 0), lengths: [before], scale };
      const y = attendPrompted(q, { keys, values }, ofRows, options);
      // The result and its sums of float32; wide copies of all inputs would be twice the bytes of the result once more.
      const grown = hostMemory().bytesInUse - bytesInUse;
      assert.ok(grown < 1.5 * 2 * y.numel, `${grown} bytes beside ${2 * y.numel}`);
    });
  });
});
