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
  leaveOneOutAdvantages,
  penalizedScores,
  shapeRewards,
  softOverlongPenalty,
} from './index.js';

interface GoldenCase {
  name: string;
  scores: number[];
  logprobs: number[][];
  refLogprobs: number[][];
  mask: number[][];
  klCoef: number;
  expected: { shaped: number[][]; penalized: number[] };
}
const golden = goldenCases<GoldenCase>('shaped_rewards.json');
const last = golden.at(-1);
assert.ok(last);
const tensorsOf = ({ scores, logprobs, refLogprobs, mask, klCoef }: GoldenCase) => ({
  scores: f64(scores),
  logprobs: f64(logprobs),
  refLogprobs: f64(refLogprobs),
  mask: f64(mask),
  klCoef,
});

describe('shapeRewards and penalizedScores', () => {
  describe('match the reference implementation', () => {
    for (const c of golden) {
      test(c.name, () => {
        expectClose(shapeRewards(tensorsOf(c)), c.expected.shaped, EXACT);
        expectClose(penalizedScores(tensorsOf(c)), c.expected.penalized, EXACT);
      });
    }
  });

  describe('by hand', () => {
    // l = (1, −2, uncounted), β = 0.1, score 5: the last counted token is the second.
    const inputs = {
      scores: f64([5]),
      logprobs: f64([[-1, -4, -9]]),
      refLogprobs: f64([[-2, -2, -1]]),
      mask: f64([[1, 1, 0]]),
      klCoef: 0.1,
    };
    test('the score lands on the last counted token, not on padding; the price of k1 everywhere', () => {
      expectClose(shapeRewards(inputs), [[-0.1, 5.2, 0]], EXACT);
    });
    test('the sequence form takes the same price from the score', () => {
      expectClose(penalizedScores(inputs), [5.1], EXACT);
    });
  });

  describe('properties', () => {
    test('the rewards of a row sum to its penalised score', () => {
      const sums = shapeRewards(tensorsOf(last)).sum(1).toArray() as number[];
      const penalized = penalizedScores(tensorsOf(last)).toArray() as number[];
      last.mask.forEach((row, i) => {
        if (row.includes(1)) expectClose(sums[i] ?? NaN, penalized[i] ?? NaN, EXACT);
        else assert.equal(sums[i], 0); // nowhere to put the score
      });
    });
    test('uncounted tokens are never read, nor the score of a row without any', () => {
      for (const junk of JUNK) {
        for (const dtype of ['bool', 'int64', 'float32'] as const) {
          const dirty = {
            ...tensorsOf(last),
            logprobs: f64(junkWhere(last.logprobs, last.mask, junk)),
            refLogprobs: f64(junkWhere(last.refLogprobs, last.mask, -junk)),
            mask: tensor(last.mask, { dtype }),
          };
          expectSame(penalizedScores(dirty), penalizedScores(tensorsOf(last)));
          const scores = f64(last.scores.map((score, i) => (i === 3 ? junk : score))); // row 3 is empty
          const shaped = shapeRewards({ ...dirty, scores });
          expectSame(shaped, shapeRewards(tensorsOf(last)));
          assert.equal(shaped.dtype, 'float64');
        }
      }
    });
    test('are constants: the KL in the reward has no gradient', () => {
      const inputs = {
        ...tensorsOf(last),
        scores: leaf(last.scores),
        logprobs: leaf(last.logprobs),
        refLogprobs: leaf(last.refLogprobs),
      };
      assert.equal(shapeRewards(inputs).requiresGrad, false);
      assert.equal(penalizedScores(inputs).requiresGrad, false);
    });
    test('an unscored row stays unscored in penalizedScores, and leaveOneOutAdvantages leaves it out', () => {
      const rewards = penalizedScores({
        scores: f64([1, NaN, 4]),
        logprobs: f64([[-1], [-1], [-1]]),
        refLogprobs: f64([[-1], [-2], [-1]]),
        mask: f64([[1], [1], [1]]),
        klCoef: 0.5,
      });
      expectClose(leaveOneOutAdvantages({ rewards, groupSize: 3 }), [-3, 0, 3], EXACT);
    });
  });

  describe('reject', () => {
    const inputs = tensorsOf(last);
    test('shapes that differ', () => {
      for (const [name, call] of Object.entries({ shapeRewards, penalizedScores })) {
        assert.throws(
          () => call({ ...inputs, scores: f64([1]) }),
          new ShapeError(
            `${name}: expected scores to have shape [B] = [5], one per row, received [1].`,
          ),
        );
        assert.throws(
          () => call({ ...inputs, mask: f64([[1]]) }),
          new ShapeError(
            `${name}: expected mask to have shape [B, T] = [5, 6] like logprobs, received [1, 1].`,
          ),
        );
        assert.throws(
          () => call({ ...inputs, klCoef: -1 }),
          new ValueRangeError(`${name}: expected klCoef to be at least 0, received -1.`),
        );
      }
    });
    test('an unscored row whose tokens count', () => {
      assert.throws(
        () => shapeRewards({ ...inputs, scores: f64([1, NaN, 1, 1, 1]) }),
        new ValueRangeError(
          'shapeRewards: expected a finite score for every row that has a counted token, received NaN in row 1.',
          { hint: 'Mask the tokens of an unscored completion: its score is then not read.' },
        ),
      );
    });
  });
});

describe('softOverlongPenalty', () => {
  test('by hand, on both sides of every bend: Lmax = 20, Lcache = 5', () => {
    const penalties = softOverlongPenalty({
      lengths: f64([0, 14, 15, 16, 17.5, 19, 20, 21, 1000]),
      maxLength: 20,
      cacheLength: 5,
    });
    expectClose(penalties, [0, 0, 0, -0.2, -0.5, -0.8, -1, -1, -1], EXACT);
  });
  test('DAPO’s own numbers: 20,480 tokens with a cache of 4,096', () => {
    const lengths = tensor([16_384, 18_432, 20_480], { dtype: 'int64' });
    const penalties = softOverlongPenalty({ lengths, maxLength: 20_480, cacheLength: 4096 });
    assert.equal(penalties.dtype, 'float32');
    expectClose(penalties, [0, -0.5, -1]);
  });
  test('without a cache it is a step after maxLength', () => {
    const penalties = softOverlongPenalty({ lengths: f64([4, 5]), maxLength: 4, cacheLength: 0 });
    assert.deepEqual(penalties.toArray(), [0, -1]);
  });
  test('is a constant', () => {
    const inputs = { lengths: leaf([3]), maxLength: 4, cacheLength: 2 };
    assert.equal(softOverlongPenalty(inputs).requiresGrad, false);
  });
  test('rejects lengths that are not [B], and sizes that are not 0 ≤ cache ≤ max', () => {
    const lengths = f64([1]);
    assert.throws(
      () => softOverlongPenalty({ lengths: f64([[1]]), maxLength: 4, cacheLength: 1 }),
      new ShapeError('softOverlongPenalty: expected lengths to have shape [B], received [1, 1].'),
    );
    const message = 'softOverlongPenalty: expected';
    assert.throws(
      () => softOverlongPenalty({ lengths, maxLength: 0, cacheLength: 0 }),
      new ValueRangeError(`${message} maxLength to be an integer of at least 1, received 0.`),
    );
    assert.throws(
      () => softOverlongPenalty({ lengths, maxLength: 4, cacheLength: -1 }),
      new ValueRangeError(`${message} cacheLength to be an integer of at least 0, received -1.`),
    );
    assert.throws(
      () => softOverlongPenalty({ lengths, maxLength: 4, cacheLength: 5 }),
      new ValueRangeError(`${message} cacheLength to be at most maxLength 4, received 5.`),
    );
  });
});
