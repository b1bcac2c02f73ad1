/** By hand and by identities; against formulas written out for whole steps see grpoTrainer.reference.test.ts. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { memory } from '../torch/index.js';
import { rowAdvantages, type AdvantageSettings, type ScoredRow } from './advantages.js';

const settings: AdvantageSettings = {
  groupSize: 2,
  baseline: 'groupMean',
  advantageScale: 'none',
  whitenAdvantages: false,
  klPlacement: 'loss',
  klCoef: 0,
  normalizeRewards: false,
};

/** A row of as many tokens as there are old log-probabilities. */
function row(reward: number, changes: Partial<ScoredRow> = {}): ScoredRow {
  const oldLogprobs = changes.oldLogprobs ?? [-1, -1];
  return {
    completionIds: oldLogprobs.map(() => 1),
    refLogprobs: oldLogprobs.map(() => -1),
    reward,
    outcome: reward,
    rewards: { r: reward },
    ...changes,
    oldLogprobs,
  } as ScoredRow;
}

const advantages = (
  rows: readonly ScoredRow[],
  changes: Partial<AdvantageSettings> = {},
  rewards = [{ name: 'r', weight: 1 }],
): number[][] => rowAdvantages(rows, { ...settings, ...changes }, rewards);

const close = (found: readonly number[][], expected: readonly number[][]): void => {
  assert.deepEqual(
    found.map(({ length }) => length),
    expected.map(({ length }) => length),
  );
  found.forEach((values, index) => expectClose(values, expected[index] ?? []));
};

describe('rowAdvantages', () => {
  describe('by hand', () => {
    const pair = [row(1, { oldLogprobs: [-1] }), row(4)];

    test('differences to the mean of the group, at every token', () => {
      close(advantages(pair), [[-1.5], [1.5, 1.5]]);
    });

    test('to the others, to the second best, to the greedy completion', () => {
      close(advantages(pair, { baseline: 'leaveOneOut' }), [[-3], [3, 3]]);
      close(advantages(pair, { baseline: 'secondBest' }), [[0], [3, 3]]);
      const two = [row(1, { greedyReward: 3 }), row(4, { greedyReward: 3 }), row(5), row(6)];
      close(advantages(two, { baseline: 'greedy' }), [
        [-2, -2],
        [1, 1],
        [0, 0],
        [0, 0],
      ]);
    });

    test('an unscored row has none, and is in no mean', () => {
      close(advantages([row(1), row(NaN), row(3), row(NaN)], { groupSize: 4 }), [
        [-1, -1],
        [0, 0],
        [1, 1],
        [0, 0],
      ]);
    });

    test('the KL of a whole completion is subtracted from its reward', () => {
      const far = row(4, { oldLogprobs: [-1, -2], refLogprobs: [-3, -2.5] }); // 2 + 0.5 nats
      const kl = { klCoef: 0.2, klPlacement: 'reward' } as const;
      close(advantages([row(1), far], kl), [
        [-1.25, -1.25],
        [1.25, 1.25],
      ]);
      close(advantages([row(1), far], { ...kl, klPlacement: 'loss' }), [
        [-1.5, -1.5],
        [1.5, 1.5],
      ]);
    });

    test('without a baseline every token has what follows, standardised', () => {
      const far = row(4, { oldLogprobs: [-1, -2], refLogprobs: [-3, -2.5] });
      const none = { baseline: 'none', whitenAdvantages: true, klCoef: 0.2 } as const;
      // 4 − 0.2·2.5 = 3.5, then 4 − 0.2·0.5 = 3.9; 1 and 1. Mean 2.35, variance 1.8425.
      const std = Math.sqrt(1.8425);
      close(advantages([row(1), far], { ...none, klPlacement: 'reward' }), [
        [-1.35 / std, -1.35 / std],
        [1.15 / std, 1.55 / std],
      ]);
      close(advantages([row(1), far], none), [
        [-1, -1],
        [1, 1],
      ]);
    });

    test('standardised over tokens, so that longer completions count more', () => {
      const rows = [row(0, { oldLogprobs: [-1] }), row(4, { oldLogprobs: [-1, -1, -1] })];
      // −2 once and 2 three times: mean 1, variance 3.
      const std = Math.sqrt(3);
      close(advantages(rows, { whitenAdvantages: true }), [
        [-3 / std],
        [1 / std, 1 / std, 1 / std],
      ]);
    });

    test('standardised over the tokens of scored rows alone', () => {
      const rows = [row(0), row(4), row(NaN, { oldLogprobs: [-1, -1, -1] }), row(NaN)];
      // −2 and 2, twice each: mean 0, variance 4. With the zeros of five unscored tokens it would be 16/9.
      close(advantages(rows, { groupSize: 4, whitenAdvantages: true }), [
        [-1, -1],
        [1, 1],
        [0, 0, 0],
        [0, 0],
      ]);
    });

    test('rewards are standardised one by one, weighted, and a penalty is added as it is', () => {
      // Of each reward the two rows differ by ±1/√2 in units of their std, whatever its scale (less ε of the std).
      const rows = [
        row(0, { rewards: { a: 0, b: 500 }, outcome: 0, reward: -0.25 }),
        row(0, { rewards: { a: 2, b: 0 }, outcome: 0, reward: 0 }),
      ];
      const weights = [
        { name: 'a', weight: 1 },
        { name: 'b', weight: 0.5 },
      ];
      const a = 1 / (Math.SQRT2 + 1e-4);
      const b = 250 / (250 * Math.SQRT2 + 1e-4);
      const low = -a + 0.5 * b - 0.25;
      const high = a - 0.5 * b;
      const found = advantages(rows, { normalizeRewards: true }, weights);
      const half = (high - low) / 2;
      close(found, [
        [-half, -half],
        [half, half],
      ]);
    });

    test('rewards are standardised in the group of their prompt', () => {
      const rows = [1, 4, 100, 300].map((reward) => row(reward));
      const change = { normalizeRewards: true } as const;
      close(advantages(rows, change), [
        ...advantages(rows.slice(0, 2), change),
        ...advantages(rows.slice(2), change),
      ]);
    });

    test('a row that one reward left unscored is in no other reward’s mean', () => {
      const rows = [
        row(0, { rewards: { a: 0, b: 1 } }),
        row(0, { rewards: { a: 2, b: 2 } }),
        row(NaN, { rewards: { a: 100, b: NaN } }),
      ];
      const weights = ['a', 'b'].map((name) => ({ name, weight: 1 }));
      const found = advantages(rows, { normalizeRewards: true, groupSize: 3 }, weights);
      const value = 1 / (Math.SQRT2 + 1e-4) + 0.5 / (Math.SQRT1_2 + 1e-4);
      close(found, [
        [-value, -value],
        [value, value],
        [0, 0],
      ]);
    });
  });

  describe('what the environment said', () => {
    // A completion of three tokens, and the same with observations in between.
    const compact = {
      oldLogprobs: [-1, -2, -1.5],
      refLogprobs: [-1.5, -1, -3],
      completionIds: [5, 6, 7],
    };
    const spread = (junk: number) => ({
      oldLogprobs: [-1, junk, junk, -2, junk, -1.5],
      refLogprobs: [-1.5, junk, -junk, -1, 0, -3],
      completionIds: [5, 9, 9, 6, 9, 7],
      completionMask: [1, 0, 0, 1, 0, 1],
    });
    const kl = { klCoef: 0.3, klPlacement: 'reward' } as const;
    const cases: Record<string, Partial<AdvantageSettings>> = {
      groupMean: {},
      whitened: { whitenAdvantages: true },
      'leaveOneOut with KL in the reward': { ...kl, baseline: 'leaveOneOut' },
      'none with KL in the reward': { ...kl, baseline: 'none', whitenAdvantages: true },
    };
    for (const [name, changes] of Object.entries(cases)) {
      for (const junk of [1e4, -Infinity, NaN]) {
        test(`gets no advantage and changes none (${name}, ${junk})`, () => {
          const other = row(0.5, { oldLogprobs: [-2], refLogprobs: [-1] });
          const [expected = []] = advantages([row(2, compact), other], changes);
          const [found = []] = advantages([row(2, spread(junk)), other], changes);
          const mask = spread(junk).completionMask;
          expectClose(
            found.filter((_, t) => mask[t] === 1),
            expected,
          );
          assert.ok(found.every((value, t) => mask[t] === 1 || Object.is(Math.abs(value), 0)));
        });
      }
    }
  });

  test('leaves no tensor behind', () => {
    const before = memory().liveTensors;
    advantages([row(1), row(2)], { baseline: 'none', whitenAdvantages: true });
    assert.equal(memory().liveTensors, before);
  });
});
