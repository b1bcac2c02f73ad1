import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases } from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import { groupAdvantages, type AdvantageScale } from './index.js';

interface GoldenCase {
  name: string;
  rewards: number[];
  groupSize: number;
  scale: AdvantageScale;
  epsilon: number;
  expected: number[];
}

describe('groupAdvantages', () => {
  describe('matches the reference implementation', () => {
    for (const { name, rewards, expected, ...settings } of goldenCases<GoldenCase>(
      'group_advantages.json',
    )) {
      test(name, () => {
        expectClose(groupAdvantages({ rewards: f64(rewards), ...settings }), expected, EXACT);
      });
    }
  });

  describe('by hand', () => {
    test('group: the std is unbiased, and of the row’s own group', () => {
      // Group 1: mean 2, std √(((−2)² + 2²)/1) = √8. Group 2: mean 5, std √2.
      const advantages = groupAdvantages({
        rewards: f64([0, 4, 6, 4]),
        groupSize: 2,
        scale: 'group',
        epsilon: 0,
      });
      const s = 1 / Math.sqrt(2);
      expectClose(advantages, [-s, s, s, -s], EXACT);
    });
    test('batch: the std is of all raw scored rewards, not of the centred ones', () => {
      // Rewards 0, 2, 10, 12: mean 6, squares 36 + 16 + 16 + 36 = 104, std √(104/3).
      const advantages = groupAdvantages({
        rewards: f64([0, 2, 10, 12]),
        groupSize: 2,
        scale: 'batch',
        epsilon: 1,
      });
      const a = 1 / (Math.sqrt(104 / 3) + 1);
      expectClose(advantages, [-a, a, -a, a], EXACT);
    });
    test('none: the reward minus the mean of its group', () => {
      const advantages = groupAdvantages({
        rewards: f64([0, 4, 6, 5]),
        groupSize: 2,
        scale: 'none',
      });
      expectClose(advantages, [-2, 2, 0.5, -0.5], EXACT);
    });
    test('scale group and epsilon 1e-4 are the defaults', () => {
      const a = 2 / (Math.sqrt(8) + 1e-4);
      expectClose(groupAdvantages({ rewards: f64([0, 4]), groupSize: 2 }), [-a, a], EXACT);
    });
    test('an unscored row gets 0 and moves neither mean nor std', () => {
      const rewards = f64([0, NaN, 4, NaN, 1, NaN]);
      expectClose(
        groupAdvantages({ rewards, groupSize: 3, scale: 'none' }),
        [-2, 0, 2, 0, 0, 0], // one scored row alone has no baseline
        EXACT,
      );
    });
    test('a lone scored row counts in the std of the batch, and gets 0', () => {
      // Scored: 0, 4, 10: mean 14/3, squares (196 + 4 + 256)/9 = 456/9, std √(228/9).
      const rewards = f64([0, 4, 10, NaN]);
      const a = 2 / Math.sqrt(228 / 9);
      const advantages = groupAdvantages({ rewards, groupSize: 2, scale: 'batch', epsilon: 0 });
      expectClose(advantages, [-a, a, 0, 0], EXACT);
    });
  });

  describe('by hand: scale centered', () => {
    test('divides by the std of the differences to the groups’ means, however far these are apart', () => {
      // Differences −2, 2, −1, 1: their mean is 0, squares 10, std √(10/3). The raw rewards 0, 4, 100, 102 have another.
      const std = Math.sqrt(10 / 3);
      const rewards = f64([0, 4, 100, 102]);
      const advantages = groupAdvantages({ rewards, groupSize: 2, scale: 'centered', epsilon: 0 });
      expectClose(advantages, [-2 / std, 2 / std, -1 / std, 1 / std], EXACT);
    });
    test('an unscored row is left out; a lone scored row has the difference 0', () => {
      // Differences −2, 2 and 0: std √(8/2).
      const rewards = f64([0, 4, 10, NaN]);
      const advantages = groupAdvantages({ rewards, groupSize: 2, scale: 'centered', epsilon: 0 });
      expectClose(advantages, [-1, 1, 0, 0], EXACT);
    });
    test('of one group is scale group', () => {
      const of = (scale: AdvantageScale) =>
        groupAdvantages({ rewards: f64([1, 5, 2]), groupSize: 3, scale });
      expectClose(of('centered'), of('group'), EXACT);
    });
  });

  describe('properties', () => {
    test('a group without variance gives exactly 0, whatever the rounding of its mean', () => {
      for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
        for (const scale of ['group', 'batch', 'centered', 'none'] as const) {
          for (const epsilon of [1e-4, 0]) {
            const rewards = tensor([0.1, 0.1, 0.1, 0.7, 0.7, 0.7], { dtype });
            const advantages = groupAdvantages({ rewards, groupSize: 3, scale, epsilon });
            assert.deepEqual(advantages.toArray(), [0, 0, 0, 0, 0, 0]);
          }
        }
      }
    });
    test('a batch in which nothing, or one row, was scored is all 0', () => {
      for (const scale of ['group', 'batch', 'centered', 'none'] as const) {
        for (const rewards of [
          [NaN, NaN],
          [NaN, 3],
        ]) {
          const advantages = groupAdvantages({ rewards: f64(rewards), groupSize: 2, scale });
          assert.deepEqual(advantages.toArray(), [0, 0]);
        }
      }
    });
    test('every group sums to 0, and adding a constant to a prompt changes nothing', () => {
      const base = [1, 2, 4, -3, 0.5, 9];
      const shifted = base.map((reward, i) => (i < 3 ? reward + 8 : reward));
      for (const scale of ['group', 'none'] as const) {
        const of = (rewards: number[]) =>
          groupAdvantages({ rewards: f64(rewards), groupSize: 3, scale });
        expectClose(of(base).view([2, 3]).sum(1), [0, 0], { atol: 1e-12 });
        expectClose(of(shifted), of(base), EXACT);
      }
    });
    test('keeps the floating dtype of the rewards; integers become float32', () => {
      for (const [dtype, expected] of [
        ['float64', 'float64'],
        ['bfloat16', 'bfloat16'],
        ['int64', 'float32'],
        ['bool', 'float32'],
      ] as const) {
        const advantages = groupAdvantages({
          rewards: tensor([0, 1], { dtype }),
          groupSize: 2,
          scale: 'none',
        });
        assert.equal(advantages.dtype, expected);
        expectClose(advantages, [-0.5, 0.5]);
      }
    });
    test('is a constant', () => {
      const rewards = tensor([0, 1], { dtype: 'float64', requiresGrad: true });
      assert.equal(groupAdvantages({ rewards, groupSize: 2 }).requiresGrad, false);
    });
  });

  describe('rejects', () => {
    test('a group of one', () => {
      assert.throws(
        () => groupAdvantages({ rewards: f64([1, 2]), groupSize: 1 }),
        new ValueRangeError(
          'groupAdvantages: expected groupSize to be an integer of at least 2, received 1.',
        ),
      );
    });
    test('rewards that do not fill the groups', () => {
      assert.throws(
        () => groupAdvantages({ rewards: f64([1, 2, 3]), groupSize: 2 }),
        new ShapeError(
          'groupAdvantages: expected B to be a multiple of groupSize 2, received 3 rewards.',
        ),
      );
    });
    test('rewards that are not [B]', () => {
      assert.throws(
        () => groupAdvantages({ rewards: f64([[1, 2]]), groupSize: 2 }),
        new ShapeError('groupAdvantages: expected rewards to have shape [B], received [1, 2].'),
      );
    });
    test('an infinite reward', () => {
      assert.throws(
        () => groupAdvantages({ rewards: f64([1, -Infinity]), groupSize: 2 }),
        new ValueRangeError(
          'groupAdvantages: expected finite rewards, or NaN for an unscored row, received -Infinity in row 1.',
        ),
      );
    });
    test('a negative epsilon and an unknown scale', () => {
      assert.throws(
        () => groupAdvantages({ rewards: f64([1, 2]), groupSize: 2, epsilon: -1 }),
        new ValueRangeError('groupAdvantages: expected epsilon to be at least 0, received -1.'),
      );
      assert.throws(
        () =>
          groupAdvantages({ rewards: f64([1, 2]), groupSize: 2, scale: 'std' as AdvantageScale }),
        new ValueRangeError(
          'groupAdvantages: expected scale to be group, batch, centered or none, received "std".',
        ),
      );
    });
  });
});
