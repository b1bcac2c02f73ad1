import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases, leaf } from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import {
  bestMinusSecondAdvantages,
  greedyBaselineAdvantages,
  groupAdvantages,
  leaveOneOutAdvantages,
} from './index.js';

interface GoldenCase {
  name: string;
  rewards: number[];
  greedyRewards: number[];
  groupSize: number;
  expected: { leaveOneOut: number[]; bestMinusSecond: number[]; greedy: number[] };
}

describe('match the reference implementation', () => {
  for (const { name, groupSize, expected, ...c } of goldenCases<GoldenCase>('baselines.json')) {
    test(name, () => {
      const rewards = f64(c.rewards);
      const greedyRewards = f64(c.greedyRewards);
      expectClose(leaveOneOutAdvantages({ rewards, groupSize }), expected.leaveOneOut, EXACT);
      expectClose(
        bestMinusSecondAdvantages({ rewards, groupSize }),
        expected.bestMinusSecond,
        EXACT,
      );
      expectClose(
        greedyBaselineAdvantages({ rewards, greedyRewards, groupSize }),
        expected.greedy,
        EXACT,
      );
    });
  }
});

describe('leaveOneOutAdvantages', () => {
  test('by hand: 1, 2 and 6 against 4, 3.5 and 1.5', () => {
    const advantages = leaveOneOutAdvantages({ rewards: f64([1, 2, 6]), groupSize: 3 });
    expectClose(advantages, [-3, -1.5, 4.5], EXACT);
  });
  test('is G/(G − 1) times the reward minus the mean of the group', () => {
    const inputs = { rewards: f64([1, 2, 6, -1, 0, 4, 5, 5]), groupSize: 4 };
    const centred = groupAdvantages({ ...inputs, scale: 'none' });
    expectClose(leaveOneOutAdvantages(inputs), centred.mul(4 / 3), EXACT);
  });
  test('equal rewards, and a lone scored row, give exactly 0', () => {
    const rewards = f64([0.1, 0.1, 0.1, NaN, 5, NaN]);
    const advantages = leaveOneOutAdvantages({ rewards, groupSize: 3 });
    assert.deepEqual(advantages.toArray(), [0, 0, 0, 0, 0, 0]);
  });
});

describe('bestMinusSecondAdvantages', () => {
  test('by hand: only the best of a group gets its lead', () => {
    const rewards = f64([3, 7, 4, 5, 5, 0]);
    const advantages = bestMinusSecondAdvantages({ rewards, groupSize: 3 });
    assert.deepEqual(advantages.toArray(), [0, 3, 0, 0, 0, 0]); // two best lead by nothing
  });
  test('an unscored row is neither best nor second', () => {
    const rewards = f64([NaN, 7, 4, NaN, NaN, 2]);
    const advantages = bestMinusSecondAdvantages({ rewards, groupSize: 3 });
    assert.deepEqual(advantages.toArray(), [0, 3, 0, 0, 0, 0]);
  });
});

describe('greedyBaselineAdvantages', () => {
  test('by hand: each row against the greedy completion of its own prompt', () => {
    const advantages = greedyBaselineAdvantages({
      rewards: f64([1, 2, 6, 4]),
      greedyRewards: f64([2, 5]),
      groupSize: 2,
    });
    assert.deepEqual(advantages.toArray(), [-1, 0, 1, -1]);
  });
  test('takes a group of one: its baseline is not the group', () => {
    const inputs = { rewards: f64([3]), greedyRewards: f64([1]), groupSize: 1 };
    assert.deepEqual(greedyBaselineAdvantages(inputs).toArray(), [2]);
  });
  test('an unscored row, and every row of an unscored greedy completion, gets 0', () => {
    const inputs = { rewards: f64([1, NaN, 3, 4]), greedyRewards: f64([0, NaN]), groupSize: 2 };
    assert.deepEqual(greedyBaselineAdvantages(inputs).toArray(), [1, 0, 0, 0]);
  });
});

describe('all of them', () => {
  const calls = {
    leaveOneOutAdvantages,
    bestMinusSecondAdvantages,
    greedyBaselineAdvantages: (inputs: Parameters<typeof leaveOneOutAdvantages>[0]) =>
      greedyBaselineAdvantages({ ...inputs, greedyRewards: tensor([0], { dtype: 'bool' }) }),
  };
  for (const [name, call] of Object.entries(calls)) {
    test(`${name} keeps the floating dtype of the rewards, else float32, and is a constant`, () => {
      assert.equal(
        call({ rewards: tensor([1, 2], { dtype: 'bfloat16' }), groupSize: 2 }).dtype,
        'bfloat16',
      );
      assert.equal(
        call({ rewards: tensor([1, 2], { dtype: 'int32' }), groupSize: 2 }).dtype,
        'float32',
      );
      assert.equal(call({ rewards: leaf([1, 2]), groupSize: 2 }).requiresGrad, false);
    });
    test(`${name} rejects a group that is too small, a ragged batch and an infinite reward`, () => {
      const minimum = name === 'greedyBaselineAdvantages' ? 1 : 2;
      assert.throws(
        () => call({ rewards: f64([1, 2]), groupSize: minimum - 1 }),
        new ValueRangeError(
          `${name}: expected groupSize to be an integer of at least ${minimum}, received ${minimum - 1}.`,
        ),
      );
      assert.throws(
        () => call({ rewards: f64([1, 2, 3]), groupSize: 2 }),
        new ShapeError(`${name}: expected B to be a multiple of groupSize 2, received 3 rewards.`),
      );
      assert.throws(
        () => call({ rewards: f64([1, Infinity]), groupSize: 2 }),
        new ValueRangeError(
          `${name}: expected finite rewards, or NaN for an unscored row, received Infinity in row 1.`,
        ),
      );
      assert.throws(
        () => call({ rewards: f64([[1, 2]]), groupSize: 2 }),
        new ShapeError(`${name}: expected rewards to have shape [B], received [1, 2].`),
      );
    });
  }
  test('greedyBaselineAdvantages rejects greedy rewards that are not one per prompt', () => {
    assert.throws(
      () =>
        greedyBaselineAdvantages({
          rewards: f64([1, 2]),
          greedyRewards: f64([1, 2]),
          groupSize: 2,
        }),
      new ShapeError(
        'greedyBaselineAdvantages: expected greedyRewards to have shape [P] = [1], one per group of rewards, received [2].',
      ),
    );
  });
});
