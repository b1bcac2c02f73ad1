import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  scoreCompletions,
  withWeights,
  type NamedReward,
  type RewardFunction,
  type RewardInput,
} from './index.js';

const input = (completion: string, row: Record<string, unknown> = {}): RewardInput => ({
  prompt: 'p',
  completion,
  row,
  finishReason: 'eos',
  completionTokens: completion.length,
});
const reward = (name: string, fn: RewardFunction, weight = 1): NamedReward => ({
  name,
  weight,
  fn,
});
const length = reward('length', ({ completion }) => completion.length);

describe('scoreCompletions', () => {
  test('adds up weighted scores and keeps each reward under its name', async () => {
    const result = await scoreCompletions(
      [length, reward('bonus', async () => 1, -0.5)],
      [input('ab'), input('abc')],
    );
    assert.deepEqual(Array.from(result.scores), [1.5, 2.5]);
    assert.deepEqual(result.byReward, { length: [2, 3], bonus: [1, 1] });
    assert.deepEqual(result.failures, []);
  });

  test('hands the row and everything else to the reward', async () => {
    const seen: RewardInput[] = [];
    const given = { ...input('c', { answer: 4 }), source: { file: 'x.jsonl', line: 3 } };
    await scoreCompletions([reward('spy', (i) => seen.push(i))], [given]);
    assert.deepEqual(seen, [given]);
  });

  const failing: [name: string, fn: RewardFunction, reason: string][] = [
    [
      'throws',
      () => {
        throw new TypeError('no such column');
      },
      'threw TypeError: no such column',
    ],
    ['rejects', () => Promise.reject(new Error('503')), 'rejected with Error: 503'],
    ['returns NaN', () => Number.NaN, 'returned NaN'],
    ['returns Infinity', () => Infinity, 'returned Infinity'],
    ['returns null', () => null, 'returned null'],
    ['returns nothing', () => undefined, 'returned undefined'],
    ['answers NaN', () => Promise.resolve(Number.NaN), 'returned NaN'],
    ['returns text', (() => '1') as unknown as RewardFunction, 'returned "1", not a number'],
    ['returns true', (() => true) as unknown as RewardFunction, 'returned boolean, not a number'],
    ['hangs', () => new Promise(() => undefined), 'did not answer within 0.05 s'],
  ];
  for (const [name, fn, reason] of failing) {
    test(`a reward that ${name} leaves its completion unscored and the others alone`, async () => {
      const sometimes = reward('sometimes', (i) => (i.completion === 'bad' ? fn(i) : 1));
      const result = await scoreCompletions(
        [length, sometimes],
        [input('ok'), { ...input('bad'), source: { file: 'x.jsonl', line: 7 } }, input('good')],
        { timeoutSeconds: 0.05 },
      );
      assert.deepEqual(Array.from(result.scores), [3, Number.NaN, 5]);
      assert.deepEqual(result.byReward['sometimes'], [1, Number.NaN, 1]);
      assert.deepEqual(result.byReward['length'], [2, 3, 4]);
      assert.deepEqual(result.failures, [
        { reward: 'sometimes', index: 1, file: 'x.jsonl', line: 7, reason },
      ]);
    });
  }

  test('a promise that rejects after its time is over does not end the process', async () => {
    const late = reward('late', async () => {
      await sleep(30);
      throw new Error('too late');
    });
    const { failures } = await scoreCompletions([late], [input('a')], { timeoutSeconds: 0.005 });
    assert.equal(failures[0]?.reason, 'did not answer within 0.005 s');
    await sleep(50); // an unhandled rejection would fail this test
  });

  test('calls wait together, but no more than allowed at a time', async () => {
    let waiting = 0;
    let most = 0;
    const slow = reward('slow', async () => {
      most = Math.max(most, ++waiting);
      await sleep(5);
      waiting--;
      return 1;
    });
    const inputs = Array.from({ length: 20 }, () => input('a'));
    const { scores } = await scoreCompletions([slow], inputs, { concurrency: 4 });
    assert.equal(most, 4);
    assert.ok(scores.every((score) => score === 1));
  });

  test('scores come in the order of the inputs, whichever answers first', async () => {
    const delayed = reward('delayed', async ({ completion }) => {
      await sleep(20 - 4 * completion.length);
      return completion.length;
    });
    const { scores } = await scoreCompletions(
      [delayed],
      ['a', 'ab', 'abc', 'abcd'].map((text) => input(text)),
    );
    assert.deepEqual(Array.from(scores), [1, 2, 3, 4]);
  });

  test('no completions give no scores', async () => {
    const { scores, byReward } = await scoreCompletions([length], []);
    assert.deepEqual([scores.length, byReward], [0, { length: [] }]);
  });

  test('weight 0 keeps a reward in the log and out of the sum', async () => {
    const { scores, byReward } = await scoreCompletions(
      [length, reward('watched', () => 9, 0)],
      [input('ab')],
    );
    assert.deepEqual([scores[0], byReward['watched']], [2, [9]]);
  });

  describe('rejects', () => {
    const cases: [name: string, rewards: NamedReward[], message: string][] = [
      ['no rewards', [], 'expected at least one reward, received none.'],
      [
        'two rewards of one name',
        [length, length],
        'expected rewards with different names, received two named "length".',
      ],
      [
        'a weight that is not finite',
        [reward('a', () => 1, Number.NaN)],
        'expected reward "a" to have a finite weight, received NaN.',
      ],
      ['a reward without a name', [reward('', () => 1)], 'expected every reward to have a name.'],
      [
        'a reward that is no function',
        [reward('a', 5 as unknown as RewardFunction)],
        'expected reward "a" to be a function, received number.',
      ],
    ];
    for (const [name, rewards, message] of cases) {
      test(name, async () => {
        await assert.rejects(scoreCompletions(rewards, []), {
          code: 'E_REWARD',
          message: `scoreCompletions: ${message}`,
        });
      });
    }

    test('settings that are not positive', async () => {
      await assert.rejects(scoreCompletions([length], [], { timeoutSeconds: 0 }), {
        code: 'E_RANGE',
        message: 'scoreCompletions: expected timeoutSeconds to be positive, received 0.',
      });
      await assert.rejects(scoreCompletions([length], [], { concurrency: Number.NaN }), {
        message: 'scoreCompletions: expected concurrency to be positive, received NaN.',
      });
    });
  });
});

describe('withWeights', () => {
  test('changes the weights that are named and no others', () => {
    const rewards = [length, reward('bonus', () => 1, 2)];
    assert.deepEqual(
      withWeights(rewards, { bonus: 0.5 }).map(({ name, weight }) => [name, weight]),
      [
        ['length', 1],
        ['bonus', 0.5],
      ],
    );
    assert.equal(rewards[1]?.weight, 2);
  });

  test('rejects unknown names and weights that are not finite', () => {
    assert.throws(() => withWeights([length], { lenght: 1 }), {
      code: 'E_REWARD',
      message: 'withWeights: expected the name of a reward (length), received "lenght".',
    });
    assert.throws(() => withWeights([length], { length: Infinity }), {
      message: 'withWeights: expected reward "length" to have a finite weight, received Infinity.',
    });
  });
});
