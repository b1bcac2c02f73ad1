import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { manualSeed, ones, scaledDotProductAttention, tensor, zeros } from './index.js';

describe('dropout', () => {
  test('zeroes a share p and scales the rest by 1/(1 − p)', () => {
    manualSeed(1);
    const count = 10_000;
    const values = [...ones([count]).dropout(0.25).toTypedArray()];
    const kept = values.filter((value) => value !== 0);
    for (const value of kept) assert.equal(value, Math.fround(4 / 3));
    // Binomial with standard deviation √(10⁴·¼·¾) = 43: beyond 7 of them with probability 3e-12.
    assert.ok(Math.abs(kept.length - 0.75 * count) < 7 * Math.sqrt((count * 3) / 16));
  });

  test('lets the gradient through where it kept the element', () => {
    const x = ones([100], { requiresGrad: true });
    const y = x.dropout(0.5);
    y.sum().backward();
    assert.deepEqual(x.grad?.toArray(), y.toArray());
  });
});

describe('scaledDotProductAttention', () => {
  test('by hand: scores 0 and ln 3 weigh the values 1 to 3', () => {
    const query = tensor([[[[Math.log(3)]]]]);
    const key = tensor([[[[0], [1]]]]); // prettier-ignore
    const value = tensor([[[[4], [8]]]]); // prettier-ignore
    expectClose(scaledDotProductAttention(query, key, value, { scale: 1 }), [[[[7]]]]);
  });

  test('refuses causal together with a mask', () => {
    const x = zeros([1, 1, 2, 2]);
    assert.throws(() => scaledDotProductAttention(x, x, x, { causal: true, mask: zeros([2, 2]) }), {
      name: 'ValueRangeError',
      message: 'scaledDotProductAttention: expected causal or mask, received both.',
    });
  });
});
