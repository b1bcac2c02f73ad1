import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { tinyModel, tinyTokenizer } from '../../test/tinyRun.js';
import { ConfigError, RewardError, ValueRangeError } from '../errors/index.js';
import { generate } from '../generation/index.js';
import {
  createModel,
  createScalarModel,
  makeDecoderConfig,
  sequenceScores,
} from '../models/index.js';
import type { RewardInput } from '../rewards/index.js';
import { memory, tensor, tidy } from '../torch/index.js';
import { bestOfN, bestOfNKlBound, type BestOfNOptions } from './index.js';

const countX = ({ completion }: RewardInput): number => completion.split('x').length - 1;

function options(changes: Partial<BestOfNOptions> = {}): BestOfNOptions {
  return {
    model: tinyModel(),
    tokenizer: tinyTokenizer(),
    prompts: ['a:', 'bcd:'],
    n: 6,
    rewards: [{ name: 'x', weight: 1, fn: countX }],
    maxNewTokens: 5,
    seed: 3,
    ...changes,
  };
}

describe('bestOfN', () => {
  test('the samples are those of generate, and the best is the first with the highest score', async () => {
    const given = options();
    const { n, rewards: _rewards, ...rest } = given;
    const drawn = await generate({ ...rest, numCompletions: n });
    const { prompts, failures, klBound } = await bestOfN(given);
    assert.deepEqual(failures, []);
    assert.equal(klBound, bestOfNKlBound(6));
    assert.deepEqual(
      prompts.flatMap(({ completions }) => completions.map(({ text }) => text)),
      drawn.map(({ text }) => text),
    );
    for (const { promptIndex, best, completions } of prompts) {
      const counts = completions.map(({ text }) => text.split('x').length - 1);
      assert.deepEqual(
        completions.map(({ score }) => score),
        counts,
      );
      assert.equal(best, completions[counts.indexOf(Math.max(...counts))]);
      assert.ok(
        completions.every((one) => one.promptIndex === promptIndex),
        'each completion stands with its prompt',
      );
    }
  });

  test('reward is the mean of the best, meanReward that of all samples', async () => {
    const { prompts, reward, meanReward } = await bestOfN(options());
    const all = prompts.map(({ completions }) => completions.map(({ score }) => score));
    expectClose(reward, (Math.max(...(all[0] ?? [])) + Math.max(...(all[1] ?? []))) / 2);
    expectClose(meanReward, all.flat().reduce((sum, score) => sum + score, 0) / 12);
    assert.ok(reward > meanReward, `the best is better: ${reward}, ${meanReward}`);
  });

  test('rewards see the text before a stop text, the prompt, and the row of the prompt', async () => {
    const seen: RewardInput[] = [];
    const fn = (input: RewardInput): number => {
      seen.push(input);
      return 0;
    };
    const rows = [{ answer: 'p' }, { answer: 'q' }];
    const spy = [{ name: 'spy', weight: 1, fn }];
    const { prompts } = await bestOfN(options({ rows, rewards: spy, stop: ['x'], n: 4 }));
    const drawn = prompts.flatMap(({ completions }) => completions);
    assert.deepEqual(
      seen.map(({ prompt, row, completion }) => [prompt, row['answer'], completion]),
      drawn.map(({ text }, index) => [index < 4 ? 'a:' : 'bcd:', index < 4 ? 'p' : 'q', text]),
    );
    assert.ok(
      drawn.some(({ finishReason }) => finishReason === 'stop'),
      'a stop text occurred',
    );
    assert.ok(
      drawn.every(({ text }) => !text.includes('x')),
      'and no reward saw it',
    );
    const { length } = seen.filter(({ completionTokens }, index) => {
      return completionTokens === drawn[index]?.tokenIds.length;
    });
    assert.equal(length, 8);
  });

  test('a reward model scores the tokens as they were drawn, weighted beside the rewards', async () => {
    const judge = createScalarModel(tinyModel({ seed: 8 }), { seed: 1, std: 0.5 }).freeze();
    const rewardModels = [{ name: 'judge', weight: -2, model: judge }];
    const { prompts } = await bestOfN(options({ rewardModels, rewards: [], n: 3 }));
    const tokenizer = tinyTokenizer();
    for (const [index, prompt] of ['a:', 'bcd:'].entries()) {
      for (const { tokenIds, score, scores } of prompts[index]?.completions ?? []) {
        const ids = [...tokenizer.encode(prompt), ...tokenIds];
        const alone = tidy(() =>
          sequenceScores(judge, {
            inputIds: tensor(ids, { shape: [1, ids.length], dtype: 'int64' }),
            lengths: [ids.length],
          }).item(),
        );
        expectClose(scores['judge'] ?? NaN, alone, { rtol: 1e-4, atol: 1e-6 });
        expectClose(score, -2 * alone, { rtol: 1e-4, atol: 1e-6 });
      }
    }
    const both = await bestOfN(options({ rewardModels, n: 3 }));
    for (const { completions } of both.prompts) {
      for (const { score, scores } of completions)
        expectClose(score, (scores['x'] ?? NaN) - 2 * (scores['judge'] ?? NaN));
    }
    judge.dispose();
  });

  test('what cannot be scored is never the best; where nothing can, there is none', async () => {
    const fn = ({ prompt, completion }: RewardInput): number => {
      if (prompt === 'a:') return Number.NaN;
      return completion.includes('x') ? Number.NaN : 1;
    };
    const found = await bestOfN(options({ rewards: [{ name: 'odd', weight: 1, fn }], n: 8 }));
    const [none, some] = found.prompts;
    assert.equal(none?.best, undefined);
    assert.equal(some?.best?.text.includes('x'), false);
    assert.equal(found.reward, 1);
    assert.equal(found.meanReward, 1);
    assert.ok(found.failures.length >= 8, String(found.failures.length));
    assert.match(found.failures[0] ?? '', /^reward odd for prompt:1 returned NaN$/);
  });

  test('leaves no tensor behind', async () => {
    const given = options();
    await bestOfN(given);
    const before = memory().liveTensors;
    await bestOfN(given);
    assert.equal(memory().liveTensors, before);
  });

  describe('rejects', () => {
    test('no reward, and two of one name', async () => {
      await assert.rejects(
        bestOfN(options({ rewards: [] })),
        (error: unknown) =>
          error instanceof RewardError &&
          error.message === 'bestOfN: expected a reward function or a reward model, received none.',
      );
      const one = { name: 'x', weight: 1, fn: countX };
      await assert.rejects(bestOfN(options({ rewards: [one, one] })), /two named "x"/);
    });
    test('a reward model of another vocabulary', async () => {
      const config = makeDecoderConfig({
        ...{ vocabSize: 99, hiddenSize: 16, intermediateSize: 16, numLayers: 1, numHeads: 2 },
      });
      const judge = createScalarModel(createModel(config, { seed: 0 }));
      await assert.rejects(
        bestOfN(options({ rewardModels: [{ name: 'judge', weight: 1, model: judge }] })),
        (error: unknown) =>
          error instanceof ConfigError &&
          /^bestOfN: expected reward model judge to have the model's vocabulary of \d+ tokens, received 99\.$/.test(
            error.message,
          ),
      );
      judge.dispose();
    });
    test('n that is no count, rows that are not one per prompt', async () => {
      await assert.rejects(
        bestOfN(options({ n: 0 })),
        (error: unknown) =>
          error instanceof ValueRangeError &&
          error.message === 'bestOfN: expected n to be a positive integer, received 0.',
      );
      await assert.rejects(
        bestOfN(options({ rows: [{}] })),
        (error: unknown) =>
          error instanceof ValueRangeError &&
          error.message === 'bestOfN: expected one row for each of the 2 prompts, received 1.',
      );
    });
  });
});
