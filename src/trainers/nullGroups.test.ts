import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { forecastNullGroups, forecastOfRollout, nullGroupWarning } from './nullGroups.js';
import type { RolloutRow } from './rollout.js';

const rows = (...rewards: number[]): RolloutRow[] =>
  rewards.map((reward) => ({ reward }) as RolloutRow);

const warningOf = (groupSize: number, ...rewards: number[]): string | undefined =>
  nullGroupWarning(forecastNullGroups(rows(...rewards), groupSize));

describe('forecastNullGroups', () => {
  test('by hand: p = 1/4 in groups of two', () => {
    const forecast = forecastNullGroups(rows(0, 1, 0, 0, 0, 0, 1, 0), 2);
    assert.equal(forecast.groupSize, 2);
    assert.equal(forecast.groups, 4);
    assert.equal(forecast.observed, 0.5);
    assert.equal(forecast.successRate, 0.25);
    // 1/16 + 9/16; in groups of four 1/256 + 81/256.
    assert.equal(forecast.predicted(2), 0.625);
    assert.equal(forecast.predicted(4), 82 / 256);
    assert.equal(forecast.predicted(1), 1);
  });

  test('of p = 0.18 in groups of two it is 70 %', () => {
    const rewards = Array.from({ length: 100 }, (_, at) => (at < 18 ? 1 : 0));
    expectClose(forecastNullGroups(rows(...rewards), 2).predicted(2) ?? NaN, 0.7048);
  });

  test('unscored completions are in no mean; a group with fewer than two scores has no variance', () => {
    const forecast = forecastNullGroups(rows(NaN, 1, 0, 1, NaN, NaN), 2);
    expectClose(forecast.observed, 2 / 3);
    expectClose(forecast.successRate ?? NaN, 2 / 3);
  });

  test('rewards other than 0 and 1 allow no prediction', () => {
    for (const rewards of [
      [0, 0.5, 1, 1],
      [2, 2, 2, 2],
      [NaN, NaN, NaN, NaN],
    ]) {
      const forecast = forecastNullGroups(rows(...rewards), 2);
      assert.equal(forecast.successRate, undefined);
      assert.equal(forecast.predicted(2), undefined);
    }
  });

  test('p = 0 and p = 1 predict that no group varies', () => {
    for (const reward of [0, 1]) {
      const forecast = forecastNullGroups(rows(reward, reward), 2);
      assert.deepEqual([forecast.successRate, forecast.predicted(7)], [reward, 1]);
    }
  });
});

describe('forecastOfRollout', () => {
  const drawn = { rows: rows(0, 1, 1, 1), discardedShare: 0.75 };
  const dynamicSampling = { filterOn: 'reward', accuracyReward: null, maxRounds: 4 } as const;

  test('is that of the rows', () => {
    const forecast = forecastOfRollout(drawn, { groupSize: 2, dynamicSampling: null });
    assert.deepEqual([forecast.observed, forecast.successRate], [0.5, 0.75]);
    assert.equal(forecast.predicted(2), 0.625);
  });

  test('with dynamic sampling, of all groups that were drawn: the rows were chosen', () => {
    const forecast = forecastOfRollout(drawn, { groupSize: 2, dynamicSampling });
    assert.deepEqual([forecast.observed, forecast.successRate], [0.75, undefined]);
    assert.equal(forecast.predicted(2), undefined);
    assert.match(nullGroupWarning(forecast) ?? '', /75 % of the groups of 2/);
  });
});

describe('nullGroupWarning', () => {
  test('is silent up to one half', () => {
    assert.equal(warningOf(4, 0, 1, 0, 1, 0, 0, 0, 0), undefined); // p = 1/4: 82/256 of groups of four
    assert.equal(warningOf(2, 0, 1, 1, 0), undefined); // p = 1/2: exactly one half of groups of two
    assert.equal(warningOf(2, 0.5, 1, 3, 3), undefined);
  });

  test('where few are right: numbers, and what larger groups would change', () => {
    assert.equal(
      warningOf(2, 0, 1, 0, 0, 0, 0, 0, 0),
      'In a first sample 75 % of the groups of 2 have no variance and teach nothing; with the mean reward of 0.13 at least 78 % were to be expected, and 59 % of groups of 4. Raise groupSize, choose easier problems, or set dynamicSampling.',
    );
  });

  test('where few are wrong the problems are too easy', () => {
    assert.match(warningOf(2, 1, 1, 1, 1, 1, 0) ?? '', /67 % .*choose harder problems/);
  });

  test('warns of what is to be expected, where the sample was lucky', () => {
    // Three of six groups vary; p = 1/4 lets 10 of 16 be expected not to.
    assert.match(warningOf(2, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0) ?? '', /50 % of the groups of 2/);
  });

  test('where none is right, and where none is wrong', () => {
    assert.equal(
      warningOf(2, 0, 0, 0, 0),
      'In a first sample 100 % of the groups of 2 have no variance and teach nothing: no completion was right. Use easier problems, or a model that was fine-tuned more.',
    );
    assert.equal(
      warningOf(2, 1, 1),
      'In a first sample 100 % of the groups of 2 have no variance and teach nothing: no completion was wrong. Use harder problems, or a model that was fine-tuned less.',
    );
  });

  test('of other rewards it tells what was seen', () => {
    assert.equal(
      warningOf(2, 0.5, 0.5, 3, 3, 1, 2),
      'In a first sample 67 % of the groups of 2 have no variance and teach nothing: their completions all have the same reward. Use a reward that tells more completions apart, or a larger groupSize.',
    );
  });
});
