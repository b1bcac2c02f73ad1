import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tinyModel, tinyPrompts, tinyTokenizer } from '../../test/tinyRun.js';
import { RewardError } from '../errors/index.js';
import { sample } from '../generation/index.js';
import { createModel } from '../models/index.js';
import type { RewardFunction, RewardInput } from '../rewards/index.js';
import { memory } from '../torch/index.js';
import { describeFailures, requireScores, rollout, type RolloutOptions } from './rollout.js';

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
    microBatchTokens: 64,
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
      const { prompt, completionIds, finishReason, completion } = rows[index] ?? assert.fail();
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
    const { rows, failures } = await rollout(options({ rewards: [{ name: 'r', weight: 1, fn }] }));
    assert.throws(
      () => requireScores(rows, failures),
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

describe('describeFailures', () => {
  test('three sentences, and the number of the rest', () => {
    assert.deepEqual(describeFailures([]), []);
    assert.deepEqual(describeFailures(['a', 'b']), ['a', 'b']);
    assert.deepEqual(describeFailures(['a', 'b', 'c', 'd', 'e']), [
      'a',
      'b',
      'c',
      '2 more scores are missing',
    ]);
  });
});
