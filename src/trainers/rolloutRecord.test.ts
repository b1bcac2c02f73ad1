import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tinyPrompts, tinyTokenizer } from '../../test/tinyRun.js';
import type { RolloutRow } from './rollout.js';
import {
  firstGroups,
  rolloutMetrics,
  sampleRecord,
  shareWithoutVariance,
} from './rolloutRecord.js';

/** A row with only what the functions below read. */
function row(changes: Partial<RolloutRow>): RolloutRow {
  const [prompt] = tinyPrompts();
  assert.ok(prompt);
  return {
    prompt,
    promptIndex: 0,
    groupIndex: 0,
    promptIds: [3],
    completionIds: [4],
    completion: 'x',
    finishReason: 'eos',
    rolloutLogprobs: [-1],
    outcome: 0,
    reward: 0,
    rewards: {},
    weightVersion: 0,
    ...changes,
  };
}

describe('rolloutMetrics', () => {
  test('by hand: unscored rows are left out of rewards and nothing else', () => {
    const metrics = rolloutMetrics([
      row({
        reward: 1,
        rewards: { a: 1, b: NaN },
        completionIds: [1, 2, 3],
        finishReason: 'length',
      }),
      row({ reward: 4, rewards: { a: 3, b: 2 }, completionIds: [1] }),
      row({ reward: NaN, rewards: { a: NaN, b: 6 }, completionIds: [1, 2], finishReason: 'stop' }),
      row({ reward: 1, rewards: { a: 5, b: NaN }, completionIds: [1, 2] }),
    ]);
    assert.deepEqual(metrics, {
      reward: 2,
      rewardStd: Math.sqrt(2), // (1 + 4 + 1)/3
      'reward/a': 3,
      'reward/b': 4,
      unscored: 1,
      completionLength: 2,
      completionLengthMax: 3,
      eosRate: 0.75, // a stop text ends a completion too
      truncatedRate: 0.25,
    });
  });
});

describe('what an environment wrote', () => {
  const episode = row({
    completionIds: [3, 4, 5, 6],
    completionMask: [1, 0, 0, 1],
    rolloutLogprobs: [-1, 0, 0, -2],
    reward: 1,
    turns: [
      { role: 'model', text: 'a' },
      { role: 'environment', text: 'bc' },
      { role: 'model', text: 'd' },
    ],
  });

  test('is in no length and no mean of advantages, and is marked in the record', () => {
    const metrics = rolloutMetrics([episode]);
    assert.equal(metrics['completionLength'], 2);
    assert.equal(metrics['turns'], 2);
    const streams = { advantages: [4, 0, 0, 2], oldLogprobs: [-1, -9, -9, -2] };
    const record = sampleRecord({ ...episode, ...streams }, 1, tinyTokenizer());
    assert.equal(record.advantage, 3);
    assert.deepEqual(record.streams.mask, [1, 0, 0, 1]);
    assert.equal(record.turns?.length, 3);
  });
});

describe('shareWithoutVariance', () => {
  const rows = (...rewards: number[]): RolloutRow[] => rewards.map((reward) => row({ reward }));

  test('by hand: equal groups, and groups with fewer than two scores', () => {
    assert.equal(shareWithoutVariance(rows(1, 1, 0, 1), 2), 0.5);
    assert.equal(shareWithoutVariance(rows(1, 0, 0, 1), 2), 0);
    assert.equal(shareWithoutVariance(rows(NaN, 1, 0, 1), 2), 0.5);
    assert.equal(shareWithoutVariance(rows(NaN, NaN, NaN, 1), 2), 1);
    assert.equal(shareWithoutVariance(rows(NaN, 0, 1, 0.5, 0.5, NaN), 3), 0.5);
  });

  test('sums of equal parts that differ in their last digits are equal', () => {
    assert.equal(shareWithoutVariance(rows(0.1 + 0.2, 0.3), 2), 1);
    assert.equal(shareWithoutVariance(rows(0.3, 0.3 + 1e-6), 2), 0);
  });
});

describe('firstGroups', () => {
  test('takes whole groups only, at least as many rows as asked for', () => {
    const rows = Array.from({ length: 12 }, (_, index) => index);
    const counts = [0, 1, 4, 5, 100].map((count) => firstGroups(rows, count, 4).length);
    assert.deepEqual(counts, [0, 4, 4, 8, 12]);
    assert.deepEqual(firstGroups(rows, 2, 4), [0, 1, 2, 3]);
  });
});

describe('sampleRecord', () => {
  const tokenizer = tinyTokenizer();
  const known = { advantages: [0.5, -1.5], oldLogprobs: [-2, -3], refLogprobs: [-4, -5] };

  test('one number per token in every stream, and the tokens as text', () => {
    const ids = tokenizer.encode('xy');
    const scored = row({
      completionIds: ids,
      rolloutLogprobs: [-6, -7],
      reward: 1,
      rewards: { a: 2 },
    });
    const record = sampleRecord({ ...scored, ...known }, 3, tokenizer);
    assert.deepEqual(record.tokens, ['x', 'y']);
    assert.deepEqual([record.step, record.reward, record.rewards], [3, 1, { a: 2 }]);
    assert.equal(record.advantage, -0.5);
    assert.deepEqual(record.streams, {
      oldLogprobs: [-2, -3],
      rolloutLogprobs: [-6, -7],
      refLogprobs: [-4, -5],
      advantages: [0.5, -1.5],
      mask: [1, 1],
    });
  });

  test('a scored row without a weight in the loss is not trained', () => {
    const given = row({ completionIds: [4, 5], completionMask: [1, 0], reward: 1 });
    const mask = (isTrained?: boolean): readonly number[] =>
      sampleRecord({ ...given, ...known, isTrained }, 3, tokenizer).streams.mask;
    assert.deepEqual(
      [mask(), mask(true), mask(false)],
      [
        [1, 0],
        [1, 0],
        [0, 0],
      ],
    );
  });

  test('an unscored row has null for its reward and is not trained', () => {
    const unscored = row({ completionIds: [4, 5], reward: NaN, rewards: { a: NaN, b: 1 } });
    const record = sampleRecord({ ...unscored, ...known, advantages: [0, 0] }, 3, tokenizer);
    assert.deepEqual([record.reward, record.rewards], [null, { a: null, b: 1 }]);
    assert.deepEqual(record.streams.mask, [0, 0]);
    assert.doesNotMatch(JSON.stringify(record), /NaN/);
  });
});
