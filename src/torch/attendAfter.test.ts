import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectNear, expectOwnGradients, expectSameGradients } from '../../test/gradients.js';
import {
  attendAfter,
  autocast,
  cat,
  Generator,
  grad,
  hostMemory,
  noGrad,
  ones,
  randn,
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
      // 64 rows of one prompt: put together, keys and values would take 64 · 520 columns each.
      const [rows, heads, before, after, width] = [64, 2, 512, 8, 64];
      const leaf = (...shape: number[]): Tensor => random(...shape).requiresGrad_();
      const prompts = {
        keys: leaf(1, heads, before, width),
        values: leaf(1, heads, before, width),
      };
      const rowsOwn = {
        keys: leaf(rows, heads, after, width),
        values: leaf(rows, heads, after, width),
      };
      const query = leaf(rows, heads, after, width);
      const mask = ones([1, 1, after, before + after]).sub(1);
      const places = tensor(new Int32Array(rows), { dtype: 'int64' });
      const { bytesInUse } = hostMemory();
      const y = attendAfter(query, prompts, places, rowsOwn, { mask, scale });
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
