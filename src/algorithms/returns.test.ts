import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  EXACT,
  expectSame,
  f64,
  goldenCases,
  JUNK,
  junkWhere,
  leaf,
} from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import {
  batchWhitenedAdvantages,
  discountedReturns,
  gae,
  monteCarloAdvantages,
  shapeRewards,
  whiten,
} from './index.js';

interface GoldenCase {
  name: string;
  rewards: number[][];
  values: number[][];
  scores: number[];
  mask: number[][];
  discount: number;
  gaeLambda: number;
  bootstrapValues?: number[];
  expected: {
    advantages: number[][];
    returns: number[][];
    discountedReturns: number[][];
    monteCarloAdvantages: number[][];
    monteCarloReturns: number[][];
    batchWhitened: number[][];
  };
}
const golden = goldenCases<GoldenCase>('returns.json');
const [first] = golden;
assert.ok(first);

describe('matches the reference implementation', () => {
  for (const { name, expected, discount, gaeLambda, bootstrapValues, ...c } of golden) {
    const [rewards, values, mask] = [f64(c.rewards), f64(c.values), f64(c.mask)];
    test(`gae, ${name}`, () => {
      const { advantages, returns } = gae({
        rewards,
        values,
        mask,
        discount,
        gaeLambda,
        bootstrapValues: bootstrapValues && f64(bootstrapValues),
      });
      expectClose(advantages, expected.advantages, EXACT);
      expectClose(returns, expected.returns, EXACT);
    });
    test(`discountedReturns, monteCarloAdvantages and batchWhitenedAdvantages, ${name}`, () => {
      expectClose(
        discountedReturns({ rewards, mask, discount }),
        expected.discountedReturns,
        EXACT,
      );
      const scores = f64(c.scores);
      const { advantages, returns } = monteCarloAdvantages({ scores, values, mask, discount });
      expectClose(advantages, expected.monteCarloAdvantages, EXACT);
      expectClose(returns, expected.monteCarloReturns, EXACT);
      const whitened = batchWhitenedAdvantages({ shapedRewards: rewards, mask, discount });
      expectClose(whitened, expected.batchWhitened, EXACT);
    });
  }
});

describe('by hand', () => {
  // A completion of three tokens: values 0.5, 0.4, 0.8, reward 1 for the last; γ = 0.9, λ = 0.5.
  //   δ₃ = 1 − 0.8 = 0.2                    A₃ = 0.2
  //   δ₂ = 0.9·0.8 − 0.4 = 0.32             A₂ = 0.32 + 0.45·0.2 = 0.41
  //   δ₁ = 0.9·0.4 − 0.5 = −0.14            A₁ = −0.14 + 0.45·0.41 = 0.0445
  const chain = {
    rewards: f64([[0, 0, 1]]),
    values: f64([[0.5, 0.4, 0.8]]),
    mask: f64([[1, 1, 1]]),
    discount: 0.9,
  };
  test('gae of a chain of three tokens', () => {
    const { advantages, returns } = gae({ ...chain, gaeLambda: 0.5 });
    expectClose(advantages, [[0.0445, 0.41, 0.2]], EXACT);
    expectClose(returns, [[0.5445, 0.81, 1]], EXACT);
  });
  test('tool output inside a row is skipped, and the recursion is carried through it', () => {
    const { advantages, returns } = gae({
      rewards: f64([[0, 7, 0, 7, 1, 7]]),
      values: f64([[0.5, 7, 0.4, 7, 0.8, 7]]),
      mask: f64([[1, 0, 1, 0, 1, 0]]),
      discount: 0.9,
      gaeLambda: 0.5,
    });
    expectClose(advantages, [[0.0445, 0, 0.41, 0, 0.2, 0]], EXACT);
    expectClose(returns, [[0.5445, 0, 0.81, 0, 1, 0]], EXACT);
  });
  test('bootstrapValues stand after the last counted token, row by row', () => {
    // λ = 0: A = δ. Last token: 1 + 0.9·2 − 0.8.
    const { advantages } = gae({
      rewards: f64([
        [0, 1, 0],
        [0, 1, 0],
      ]),
      values: f64([
        [0.4, 0.8, 5],
        [0.4, 0.8, 5],
      ]),
      mask: f64([
        [1, 1, 0],
        [1, 1, 0],
      ]),
      discount: 0.9,
      gaeLambda: 0,
      bootstrapValues: f64([2, 0]),
    });
    expectClose(
      advantages,
      [
        [0.32, 2, 0],
        [0.32, 0.2, 0],
      ],
      EXACT,
    );
  });
  test('the last action’s return is the score itself, the one before it γ times that', () => {
    const { advantages, returns } = monteCarloAdvantages({
      scores: f64([2, 9]),
      values: f64([
        [0.5, 0, 0.25, 0],
        [3, 3, 3, 3],
      ]),
      mask: f64([
        [1, 0, 1, 0],
        [0, 0, 0, 0],
      ]),
      discount: 0.9,
    });
    expectClose(
      returns,
      [
        [1.8, 0, 2, 0],
        [0, 0, 0, 0],
      ],
      EXACT,
    );
    expectClose(
      advantages,
      [
        [1.3, 0, 1.75, 0],
        [0, 0, 0, 0],
      ],
      EXACT,
    );
  });
  test('discountedReturns: R = r + γ·R′', () => {
    const returns = discountedReturns({
      rewards: f64([[1, 2, 4]]),
      mask: f64([[1, 1, 1]]),
      discount: 0.5,
    });
    expectClose(returns, [[3, 4, 4]], EXACT);
  });
});

describe('properties', () => {
  const inputs = { rewards: f64(first.rewards), values: f64(first.values), mask: f64(first.mask) };
  const scores = f64(first.scores);
  const zeroRewards = { logprobs: f64(first.values), refLogprobs: f64(first.values), klCoef: 0 };

  for (const discount of [0, 0.3, 0.99, 1]) {
    test(`gae with λ = 1 is monteCarloAdvantages where the score is the only reward (γ = ${discount})`, () => {
      const rewards = shapeRewards({ ...zeroRewards, scores, mask: inputs.mask });
      const estimated = gae({ ...inputs, rewards, discount, gaeLambda: 1 });
      const sampled = monteCarloAdvantages({ ...inputs, scores, discount });
      expectClose(estimated.advantages, sampled.advantages, EXACT);
      expectClose(estimated.returns, sampled.returns, EXACT);
    });
  }
  test('gae with λ = 1 and values of 0 is discountedReturns', () => {
    const { advantages, returns } = gae({
      ...inputs,
      values: inputs.values.mul(0),
      discount: 0.9,
      gaeLambda: 1,
    });
    expectClose(advantages, discountedReturns({ ...inputs, discount: 0.9 }), EXACT);
    expectClose(returns, advantages, EXACT);
  });
  test('gae with λ = 0 is the temporal difference of each token', () => {
    const mask = f64([[1, 1]]);
    const { advantages } = gae({
      rewards: f64([[1, 2]]),
      values: f64([[3, 5]]),
      mask,
      discount: 0.5,
      gaeLambda: 0,
    });
    expectClose(advantages, [[1 + 0.5 * 5 - 3, 2 - 5]], EXACT);
  });
  test('a sequence has the same advantages compact as with tool output between', () => {
    const row = [1, 2, 3];
    const compact = gae({
      rewards: f64([row]),
      values: f64([row]),
      mask: f64([[1, 1, 1]]),
      discount: 0.8,
      gaeLambda: 0.7,
    });
    const spread = gae({
      rewards: f64([[1, 9, 9, 2, 9, 3, 9]]),
      values: f64([[1, 9, 9, 2, 9, 3, 9]]),
      mask: f64([[1, 0, 0, 1, 0, 1, 0]]),
      discount: 0.8,
      gaeLambda: 0.7,
    });
    const index = tensor([0, 3, 5], { dtype: 'int64' });
    expectClose(spread.advantages.indexSelect(1, index), compact.advantages, EXACT);
  });
  test('uncounted tokens are never read, and every result is exactly 0 there', () => {
    for (const junk of JUNK) {
      for (const dtype of ['bool', 'int64', 'float32'] as const) {
        const dirty = {
          rewards: f64(junkWhere(first.rewards, first.mask, junk)),
          values: f64(junkWhere(first.values, first.mask, -junk)),
          mask: tensor(first.mask, { dtype }),
        };
        const settings = { discount: 0.9, gaeLambda: 0.8 };
        const [clean, got] = [gae({ ...inputs, ...settings }), gae({ ...dirty, ...settings })];
        expectSame(got.advantages, clean.advantages);
        expectSame(got.returns, clean.returns);
        expectSame(
          discountedReturns({ ...dirty, discount: 0.9 }),
          discountedReturns({ ...inputs, discount: 0.9 }),
        );
        const unread = f64(first.scores.map((score, i) => (i === 3 ? junk : score))); // row 3 is empty
        expectSame(
          monteCarloAdvantages({ ...dirty, scores: unread, discount: 0.9 }).advantages,
          monteCarloAdvantages({ ...inputs, scores, discount: 0.9 }).advantages,
        );
        expectSame(
          batchWhitenedAdvantages({
            shapedRewards: dirty.rewards,
            mask: dirty.mask,
            discount: 0.9,
          }),
          batchWhitenedAdvantages({
            shapedRewards: inputs.rewards,
            mask: inputs.mask,
            discount: 0.9,
          }),
        );
      }
    }
    const nothing = first.mask.flat().flatMap((m, i) => (m === 0 ? [i] : []));
    const { advantages, returns } = gae({ ...inputs, discount: 0.9, gaeLambda: 0.8 });
    for (const result of [advantages, returns]) {
      const flat = result.toTypedArray();
      assert.ok(nothing.every((i) => flat[i] === 0));
    }
  });
  test('rows do not touch each other: micro-batches are slices', () => {
    const settings = { discount: 0.9, gaeLambda: 0.8 };
    const whole = gae({ ...inputs, ...settings }).advantages;
    const part = gae({
      rewards: inputs.rewards.slice(0, 1, 3),
      values: inputs.values.slice(0, 1, 3),
      mask: inputs.mask.slice(0, 1, 3),
      ...settings,
    }).advantages;
    assert.deepEqual(part.toArray(), whole.slice(0, 1, 3).toArray());
  });
  test('batchWhitenedAdvantages is whiten of discountedReturns', () => {
    const returns = discountedReturns({ ...inputs, discount: 0.7 });
    const whitened = batchWhitenedAdvantages({
      shapedRewards: inputs.rewards,
      mask: inputs.mask,
      discount: 0.7,
    });
    expectClose(whitened, whiten({ values: returns, mask: inputs.mask }), EXACT);
  });
  test('results are constants in the floating dtype of the inputs', () => {
    for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
      const rewards = tensor(first.rewards, { dtype, requiresGrad: true });
      const values = tensor(first.values, { dtype, requiresGrad: true });
      const mask = tensor(first.mask, { dtype: 'int32' });
      const settings = { discount: 1, gaeLambda: 1 };
      const estimated = gae({ rewards, values, mask, ...settings });
      const scores = rewards.select(1, 0);
      const sampled = monteCarloAdvantages({ scores, values, mask, discount: 1 });
      const results = [
        estimated.advantages,
        estimated.returns,
        sampled.advantages,
        sampled.returns,
        discountedReturns({ rewards, mask, discount: 1 }),
        batchWhitenedAdvantages({ shapedRewards: rewards, mask, discount: 1 }),
      ];
      for (const result of results)
        assert.deepEqual([result.dtype, result.requiresGrad], [dtype, false]);
    }
  });
  test('values in float64 and rewards in float32 give float64', () => {
    const { advantages } = gae({
      rewards: tensor([[1]]),
      values: f64([[0]]),
      mask: f64([[1]]),
      discount: 1,
      gaeLambda: 1,
    });
    assert.equal(advantages.dtype, 'float64');
  });
});

describe('rejects', () => {
  const one = f64([[1]]);
  const wide = f64([[1, 1]]);
  const settings = { discount: 1, gaeLambda: 1 };
  test('shapes that differ', () => {
    assert.throws(
      () => gae({ rewards: one, values: wide, mask: one, ...settings }),
      new ShapeError(
        'gae: expected values to have shape [B, T] = [1, 1] like rewards, received [1, 2].',
      ),
    );
    assert.throws(
      () => gae({ rewards: one, values: one, mask: one, ...settings, bootstrapValues: one }),
      new ShapeError('gae: expected bootstrapValues to have shape [B], received [1, 1].'),
    );
    assert.throws(
      () => discountedReturns({ rewards: one, mask: wide, discount: 1 }),
      new ShapeError(
        'discountedReturns: expected mask to have shape [B, T] = [1, 1] like rewards, received [1, 2].',
      ),
    );
    assert.throws(
      () => monteCarloAdvantages({ scores: f64([1, 2]), values: one, mask: one, discount: 1 }),
      new ShapeError(
        'monteCarloAdvantages: expected scores to have shape [B] = [1], one per row, received [2].',
      ),
    );
    assert.throws(
      () => batchWhitenedAdvantages({ shapedRewards: one, mask: wide, discount: 1 }),
      new ShapeError(
        'batchWhitenedAdvantages: expected mask to have shape [B, T] = [1, 1] like shapedRewards, received [1, 2].',
      ),
    );
  });
  test('a discount or λ outside of [0, 1]', () => {
    const tensors = { rewards: one, values: one, mask: one };
    assert.throws(
      () => gae({ ...tensors, discount: 1.1, gaeLambda: 1 }),
      new ValueRangeError('gae: expected discount to be a number from 0 to 1, received 1.1.'),
    );
    assert.throws(
      () => gae({ ...tensors, discount: 1, gaeLambda: -0.1 }),
      new ValueRangeError('gae: expected gaeLambda to be a number from 0 to 1, received -0.1.'),
    );
    assert.throws(
      () => discountedReturns({ ...tensors, discount: NaN }),
      new ValueRangeError(
        'discountedReturns: expected discount to be a number from 0 to 1, received NaN.',
      ),
    );
    assert.throws(
      () => monteCarloAdvantages({ ...tensors, scores: f64([1]), discount: 2 }),
      new ValueRangeError(
        'monteCarloAdvantages: expected discount to be a number from 0 to 1, received 2.',
      ),
    );
    assert.throws(
      () => batchWhitenedAdvantages({ shapedRewards: one, mask: one, discount: 2 }),
      new ValueRangeError(
        'batchWhitenedAdvantages: expected discount to be a number from 0 to 1, received 2.',
      ),
    );
  });
  test('a score that is not finite where the row counts', () => {
    assert.throws(
      () => monteCarloAdvantages({ scores: f64([NaN]), values: one, mask: one, discount: 1 }),
      new ValueRangeError(
        'monteCarloAdvantages: expected a finite score for every row that has a counted token, received NaN in row 0.',
        { hint: 'Mask the tokens of an unscored completion: its score is then not read.' },
      ),
    );
  });
});

test('a leaf of values receives nothing from returns that were made of it', () => {
  const values = leaf([[0.5]]);
  const { returns } = gae({
    rewards: f64([[1]]),
    values,
    mask: f64([[1]]),
    discount: 1,
    gaeLambda: 1,
  });
  returns.mul(values).sum().backward();
  expectClose(values.grad ?? NaN, [[1]], EXACT); // d(R·V)/dV with R = 1 fixed
});
