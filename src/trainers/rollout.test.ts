import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tinyModel, tinyPrompts, tinyTokenizer } from '../../test/tinyRun.js';
import { RewardError } from '../errors/index.js';
import { sample } from '../generation/index.js';
import { createModel } from '../models/index.js';
import type { RewardFunction, RewardInput } from '../rewards/index.js';
import { memory } from '../torch/index.js';
import {
  describeFailures,
  firstGroups,
  groupMinibatches,
  rollout,
  rolloutMetrics,
  sampleRecord,
  shareWithoutVariance,
  type RolloutOptions,
  type RolloutRow,
} from './rollout.js';

const one: RewardFunction = () => 1;

function options(changes: Partial<RolloutOptions> = {}): RolloutOptions {
  return {
    policy: tinyModel(),
    tokenizer: tinyTokenizer(),
    rewards: [{ name: 'one', weight: 1, fn: one }],
    prompts: tinyPrompts().slice(0, 3),
    groupSize: 4,
    sampling: { maxNewTokens: 5, temperature: 0.8 },
    seed: 9,
    weightVersion: 7,
    timeoutSeconds: 5,
    concurrency: 4,
    ...changes,
  };
}

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
    reward: 0,
    rewards: {},
    weightVersion: 0,
    ...changes,
  };
}

describe('rollout', () => {
  test('is what the sampler draws with this seed, the rows of a prompt together', async () => {
    const given = options();
    const { rows, failures } = await rollout(given);
    const drawn = await sample({
      model: given.policy,
      promptIds: given.prompts.map(({ inputIds }) => inputIds),
      numCompletions: 4,
      maxNewTokens: 5,
      temperature: 0.8,
      seed: 9,
    });
    assert.deepEqual(failures, []);
    assert.deepEqual(
      rows.map((found) => [
        found.promptIndex,
        found.groupIndex,
        found.completionIds,
        found.rolloutLogprobs,
        found.finishReason,
      ]),
      drawn.map((found) => [
        found.promptIndex,
        found.completionIndex,
        found.tokenIds,
        found.logprobs,
        found.finishReason,
      ]),
    );
    for (const { promptIndex, prompt, promptIds, weightVersion } of rows) {
      assert.equal(prompt, given.prompts[promptIndex]);
      assert.equal(promptIds, prompt.inputIds);
      assert.equal(weightVersion, 7);
    }
  });

  test('rewards see text, the row, and how the completion ended', async () => {
    const seen: RewardInput[] = [];
    const fn: RewardFunction = (input) => {
      seen.push(input);
      return 0;
    };
    const { rows } = await rollout(options({ rewards: [{ name: 'spy', weight: 1, fn }] }));
    const tokenizer = tinyTokenizer();
    assert.equal(seen.length, 12);
    for (const [index, input] of seen.entries()) {
      const { prompt, completionIds, finishReason, completion } = rows[index] ?? row({});
      assert.equal(input.prompt, prompt.text);
      assert.equal(input.row['answer'], prompt.text[0]);
      assert.equal(input.completion, tokenizer.decode(completionIds, { skipSpecialTokens: true }));
      assert.equal(input.completion, completion);
      assert.equal(input.finishReason, finishReason);
      assert.equal(input.completionTokens, completionIds.length);
      assert.deepEqual(input.source, { file: 'tiny', line: prompt.row.line });
    }
  });

  test('a row’s reward is the weighted sum, NaN where one is missing', async () => {
    const { rows, failures } = await rollout(
      options({
        rewards: [
          { name: 'length', weight: 2, fn: ({ completionTokens }) => completionTokens },
          { name: 'picky', weight: -1, fn: ({ prompt }) => (prompt === 'a:' ? null : 3) },
        ],
      }),
    );
    assert.equal(failures.length, 4);
    for (const { prompt, completionIds, reward, rewards } of rows) {
      const length = completionIds.length;
      assert.equal(rewards['length'], length);
      assert.equal(rewards['picky'], prompt.text === 'a:' ? NaN : 3);
      assert.equal(reward, prompt.text === 'a:' ? NaN : 2 * length - 3);
    }
  });

  test('the tokenizer’s end token ends completions of a model that names none', async () => {
    const named = tinyModel();
    const policy = createModel({ ...named.config, eosTokenIds: [] }, { seed: 1 });
    const { rows } = await rollout(options({ policy, groupSize: 16 }));
    const { eosTokenId } = tinyTokenizer();
    const ended = rows.filter(({ finishReason }) => finishReason === 'eos');
    assert.ok(ended.length > 0);
    assert.ok(ended.every(({ completionIds }) => completionIds.at(-1) === eosTokenId));
  });

  test('leaves no tensor behind', async () => {
    const given = options();
    const before = memory().liveTensors;
    await rollout(given);
    assert.equal(memory().liveTensors, before);
  });

  test('rejects a batch without any score, and says what the first reward did', async () => {
    const fn: RewardFunction = () => Infinity;
    await assert.rejects(
      rollout(options({ rewards: [{ name: 'r', weight: 1, fn }] })),
      (error: Error) => {
        assert.ok(error instanceof RewardError);
        assert.match(
          error.message,
          /all 12 are unscored; the first: reward r for tiny:1 returned Infinity/,
        );
        return true;
      },
    );
  });
});

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
      eosRate: 0.5,
      truncatedRate: 0.25,
    });
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

describe('groupMinibatches', () => {
  const rows = Array.from({ length: 24 }, (_, index) => index);
  const minibatches = (partSize: number, seed = 1): number[][] =>
    groupMinibatches(rows, { groupSize: 3, partSize, seed });

  test('every row once, groups whole and in order', () => {
    for (const partSize of [3, 6, 12]) {
      const parts = minibatches(partSize);
      assert.ok(parts.every((part) => part.length === partSize));
      assert.deepEqual(
        parts.flat().sort((a, b) => a - b),
        rows,
      );
      const all = parts.flat();
      for (let start = 0; start < 24; start += 3) {
        const first = all[start] ?? NaN;
        assert.equal(first % 3, 0);
        assert.deepEqual(all.slice(start, start + 3), [first, first + 1, first + 2]);
      }
    }
  });

  test('groups are shuffled by the seed', () => {
    assert.notDeepEqual(minibatches(6).flat(), rows);
    assert.notDeepEqual(minibatches(6, 1), minibatches(6, 2));
    assert.deepEqual(minibatches(6, 1), minibatches(6, 1));
  });

  test('a single part is the batch as it is', () => {
    assert.deepEqual(minibatches(24), [rows]);
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
  const known = { advantage: 0.5, oldLogprobs: [-2, -3], refLogprobs: [-4, -5] };

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
    assert.deepEqual(record.streams, {
      oldLogprobs: [-2, -3],
      rolloutLogprobs: [-6, -7],
      refLogprobs: [-4, -5],
      advantages: [0.5, 0.5],
      mask: [1, 1],
    });
  });

  test('an unscored row has null for its reward and is not trained', () => {
    const unscored = row({ completionIds: [4, 5], reward: NaN, rewards: { a: NaN, b: 1 } });
    const record = sampleRecord({ ...unscored, ...known, advantage: 0 }, 3, tokenizer);
    assert.deepEqual([record.reward, record.rewards], [null, { a: null, b: 1 }]);
    assert.deepEqual(record.streams.mask, [0, 0]);
    assert.doesNotMatch(JSON.stringify(record), /NaN/);
  });
});

describe('describeFailures', () => {
  test('three in words with their places, and the number of the rest', () => {
    const failure = { reward: 'r', index: 0, file: 'f.jsonl', line: 8, reason: 'threw Error: x' };
    assert.deepEqual(describeFailures([]), []);
    assert.deepEqual(describeFailures([failure]), ['reward r for f.jsonl:8 threw Error: x']);
    const { file: _file, line: _line, ...unplaced } = failure;
    const sentences = describeFailures([unplaced, failure, failure, failure, failure]);
    assert.equal(sentences.length, 4);
    assert.equal(sentences[0], 'reward r threw Error: x');
    assert.equal(sentences[3], '2 more scores are missing');
  });
});
