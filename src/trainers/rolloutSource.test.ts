import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { tinyModel, tinyPrompts, tinyTokenizer } from '../../test/tinyRun.js';
import { BatchOrder } from '../data/index.js';
import type { Environment } from '../environments/index.js';
import { CheckpointError, RewardError } from '../errors/index.js';
import { createScalarModel } from '../models/index.js';
import type { NamedReward, RewardFunction } from '../rewards/index.js';
import { deriveSeed } from '../torch/index.js';
import { rollout, type RolloutRow } from './rollout.js';
import {
  RolloutSource,
  type Rollout,
  type RolloutParts,
  type RolloutSettings,
} from './rolloutSource.js';
import { scoreRows, type RowScorer } from './scoreRows.js';

const GROUP = 3;

/** Prompts of one letter: no completion varies. Of the others every completion has its own score. */
const easy: RewardFunction = ({ prompt, completion }) =>
  prompt.length === 2 ? 1 : completion.split('x').length - 1 + completion.length / 16;

const settings: RolloutSettings = {
  promptsPerStep: 4,
  groupSize: GROUP,
  sampling: { maxNewTokens: 5, temperature: 0.8 },
  maxTurns: 1,
  rewardTimeoutSeconds: 5,
  rewardConcurrency: 4,
  microBatchTokens: 64,
  seed: 3,
};

function source(
  changes: Partial<RolloutSettings> = {},
  reward: RewardFunction | readonly NamedReward[] = easy,
  others: Partial<RolloutParts> = {},
): RolloutSource {
  const rewards = typeof reward === 'function' ? [{ name: 'r', weight: 1, fn: reward }] : reward;
  const parts: RolloutParts = {
    policy: tinyModel(),
    tokenizer: tinyTokenizer(),
    prompts: tinyPrompts(),
    rewards,
    ...others,
  };
  return new RolloutSource('here', parts, { ...settings, ...changes });
}

/** What identifies a group: its prompt, completions and the place it was given. */
function groups({ rows }: Pick<Rollout, 'rows'>): string[] {
  return Array.from({ length: rows.length / GROUP }, (_, at) => {
    const group = rows.slice(at * GROUP, (at + 1) * GROUP);
    assert.deepEqual(
      group.map(({ promptIndex, groupIndex }) => [promptIndex, groupIndex]),
      [0, 1, 2].map((place) => [at, place]),
    );
    assert.equal(new Set(group.map(({ prompt }) => prompt)).size, 1);
    return `${group[0]?.prompt.text} ${group.map(({ completion }) => completion).join(' ')}`;
  });
}

/** The rounds that dynamic sampling may ask for, drawn without it: rollouts of consecutive prompts. */
async function rounds(count: number, reward: RewardFunction): Promise<RolloutRow[][]> {
  const { seed, promptsPerStep } = settings;
  const prompts = tinyPrompts();
  const order = new BatchOrder({
    rowCount: prompts.length,
    batchSize: promptsPerStep,
    seed: deriveSeed(seed, 'prompt order'),
  });
  const first = deriveSeed(seed, 'rollout', 0);
  const found: RolloutRow[][] = [];
  for (let round = 0; round < count; round++) {
    const { rows } = await rollout({
      policy: tinyModel(),
      tokenizer: tinyTokenizer(),
      rewards: [{ name: 'r', weight: 1, fn: reward }],
      prompts: order.next().map((at) => prompts[at] ?? assert.fail()),
      groupSize: GROUP,
      sampling: settings.sampling,
      seed: round === 0 ? first : deriveSeed(first, 'round', round),
      weightVersion: 0,
      timeoutSeconds: 5,
      concurrency: 4,
      microBatchTokens: 64,
    });
    for (let at = 0; at < rows.length; at += GROUP) found.push(rows.slice(at, at + GROUP));
  }
  return found;
}

const varies = (group: readonly RolloutRow[]): boolean =>
  new Set(group.map(({ reward }) => reward)).size > 1;

describe('RolloutSource', () => {
  test('draws the prompts in their shuffled order, every rollout with a seed of its own', async () => {
    const given = source();
    const drawn = [await given.next(0), await given.next(5), await given.next(5)];
    const texts = drawn.flatMap(({ rows }) =>
      rows.filter(({ groupIndex }) => groupIndex === 0).map(({ prompt }) => prompt.text),
    );
    const all = tinyPrompts().map(({ text }) => text);
    for (const epoch of [texts.slice(0, 6), texts.slice(6)]) {
      assert.deepEqual(epoch.toSorted(), all.toSorted());
    }
    assert.notDeepEqual(texts.slice(0, 6), all);
    assert.deepEqual(
      drawn.map(({ rows }) => rows[0]?.weightVersion),
      [0, 5, 5],
    );
    const expected = await rounds(1, easy);
    assert.deepEqual(
      drawn[0]?.rows.map(({ completion }) => completion),
      expected.flat().map(({ completion }) => completion),
    );
    assert.deepEqual(
      drawn.map(({ rounds: count, discardedShare }) => [count, discardedShare]),
      [
        [1, 0],
        [1, 0],
        [1, 0],
      ],
    );
    const again = source();
    assert.deepEqual(groups(await again.next(0)), groups(drawn[0] ?? assert.fail()));
    const other = source({ seed: 4 });
    assert.notDeepEqual(groups(await other.next(0)), groups(drawn[0] ?? assert.fail()));
  });

  test('peek draws nothing twice: what it shows is what next takes', async () => {
    const given = source();
    const peeked = await given.peek(0);
    assert.equal(await given.peek(1), peeked);
    assert.equal(await given.next(1), peeked);
    assert.notEqual(await given.next(1), peeked);
  });

  test('draws several sources in the shares that are set, also where it goes on', async () => {
    const prompts = tinyPrompts().map((prompt, at) => ({
      ...prompt,
      row: { ...prompt.row, source: at < 4 ? 0 : 1 },
    }));
    const mixed = (weights: readonly number[] | null): RolloutSource =>
      source({ promptsPerStep: 3, data: { weights } }, easy, { prompts });
    for (const [weights, fromSecond] of [
      [null, 2],
      [[1, 2], 4],
      [[5, 1], 1],
    ] as const) {
      const given = mixed(weights);
      const first = await given.next(0);
      const resumed = mixed(weights);
      resumed.restorer(JSON.parse(JSON.stringify(given.state())) as Record<string, unknown>)();
      const rest = await given.next(0);
      assert.deepEqual(groups(await resumed.next(0)), groups(rest));
      const drawn = [...first.rows, ...rest.rows].filter(({ prompt }) => prompt.row.source === 1);
      assert.equal(drawn.length, fromSecond * GROUP, `weights ${String(weights)}`);
    }
  });

  describe('what scores the rows', () => {
    const fn: RewardFunction = () => 1;
    const rewardModels = [
      { name: 'rm', weight: 1, model: createScalarModel(tinyModel(), { seed: 1, std: 0.3 }) },
    ];
    const refused = (rewards: readonly NamedReward[], others: object, message: string): void =>
      assert.throws(() => source({}, rewards, others), { name: RewardError.name, message });

    test('is at least one reward, of different names, before anything is drawn', () => {
      refused([], {}, 'here: expected a reward function or a reward model, received none.');
      refused(
        [{ name: 'rm', weight: 1, fn }],
        { rewardModels },
        'here: expected rewards with different names, received two named "rm".',
      );
      refused(
        [{ name: 'r', weight: NaN, fn }],
        {},
        'here: expected reward "r" to have a finite weight, received NaN.',
      );
      source({}, [], { rewardModels });
    });

    test('may be something else that needs no rewards, and gets the settings', async () => {
      const given: number[][] = [];
      const score: RowScorer = (options) => {
        const { timeoutSeconds, concurrency, microBatchTokens, seed } = options;
        given.push([timeoutSeconds, concurrency, microBatchTokens, seed]);
        return scoreRows({ ...options, rewards: [{ name: 'r', weight: 1, fn }] });
      };
      const limits = { rewardTimeoutSeconds: 7, rewardConcurrency: 3, microBatchTokens: 11 };
      const own = source(limits, [], { score });
      await own.next(0);
      await own.next(0);
      assert.deepEqual(
        given,
        [0, 1].map((at) => [7, 3, 11, deriveSeed(settings.seed, 'rollout', at)]),
      );
    });

    test('has its time: what takes longer is a score that is missing', async () => {
      const slow: RewardFunction = ({ prompt }) =>
        prompt === 'a:' ? setTimeout(5000, 1, { ref: false }) : 1;
      const limits = { promptsPerStep: 6, rewardTimeoutSeconds: 0.5, rewardConcurrency: 32 };
      const { rows, failures } = await source(limits, slow).next(0);
      assert.deepEqual(
        rows.map(({ reward }) => Number.isNaN(reward)),
        rows.map(({ prompt }) => prompt.text === 'a:'),
      );
      assert.deepEqual(
        failures,
        Array.from({ length: GROUP }, () => 'reward r for tiny:1 did not answer within 0.5 s'),
      );
    });

    test('is called as often at once as it is told', async () => {
      let running = 0;
      let most = 0;
      const waits: RewardFunction = async () => {
        most = Math.max(most, ++running);
        await setTimeout(1);
        running--;
        return 1;
      };
      await source({ rewardConcurrency: 3 }, waits).next(0);
      assert.equal(most, 3);
    });
  });

  describe('dynamic sampling', () => {
    const dynamicSampling = { filterOn: 'reward', accuracyReward: null, maxRounds: 5 } as const;

    test('samples round after round until every group varies, and keeps the order', async () => {
      const given = source({ dynamicSampling });
      const found = await given.next(0);
      const all = await rounds(found.rounds, easy);
      const before = all.slice(0, (found.rounds - 1) * 4).filter(varies);
      assert.ok(found.rounds > 1 && before.length < 4, 'the round before was not enough');
      const kept = all.filter(varies);
      assert.deepEqual(
        groups(found),
        kept
          .slice(0, 4)
          .map(
            (group) =>
              `${group[0]?.prompt.text} ${group.map(({ completion }) => completion).join(' ')}`,
          ),
      );
      assert.equal(found.discardedShare, 1 - kept.length / all.length);
      assert.ok(found.discardedShare > 0, 'some groups must not have varied');
    });

    test('fills the batch with groups without variance once the rounds are spent', async () => {
      // Only the group of one prompt ever varies.
      const reward: RewardFunction = (input) =>
        input.prompt === 'cad:' ? input.completionTokens + easyLetters(input.completion) : 0;
      const given = source({ dynamicSampling: { ...dynamicSampling, maxRounds: 2 } }, reward);
      const found = await given.next(0);
      assert.equal(found.rounds, 2);
      const all = await rounds(2, reward);
      const kept = all.filter(varies);
      assert.ok(kept.length > 0 && kept.length < 4, `${kept.length} of 4 groups vary`);
      const chosen = [...kept, ...all.filter((group) => !varies(group))].slice(0, 4);
      assert.deepEqual(
        found.rows.map(({ prompt, completion }) => [prompt.text, completion]),
        chosen.flat().map(({ prompt, completion }) => [prompt.text, completion]),
      );
      assert.equal(found.discardedShare, 1 - kept.length / 8);
      groups(found);
    });

    test('one round is a batch as it comes, variance or not, those that vary first', async () => {
      const given = source({ dynamicSampling: { ...dynamicSampling, maxRounds: 1 } });
      const found = await given.next(0);
      assert.equal(found.rounds, 1);
      assert.equal(found.rows.length, 4 * GROUP);
    });

    test('failures of every round are told', async () => {
      const reward: RewardFunction = (input) =>
        input.prompt === 'a:' || input.prompt === 'b:' ? null : easy(input);
      const found = await source({ dynamicSampling }, reward).next(0);
      const all = await rounds(found.rounds, reward);
      const unscored = all.flat().filter((row) => Number.isNaN(row.reward)).length;
      assert.equal(found.failures.length, unscored);
      assert.ok(!found.rows.some(({ reward }) => Number.isNaN(reward)), 'every row must be scored');
    });

    test('a batch without any score is refused, though a group beyond it has some', async () => {
      let calls = 0;
      const late: RewardFunction = () => (calls++ < 4 * GROUP ? null : 1);
      const given = source({ dynamicSampling: { ...dynamicSampling, maxRounds: 2 } }, late);
      await assert.rejects(given.next(0), (error: Error) => {
        assert.ok(error instanceof RewardError, String(error));
        assert.match(error.message, /at least one scored completion, but all 12 are unscored/);
        return true;
      });
      assert.equal(calls, 8 * GROUP);
    });

    describe('a penalty for length gives variance to completions that are all right', () => {
      const right: RewardFunction = ({ prompt, completion }) =>
        prompt.startsWith('c') ? easyLetters(completion) : 1;
      const penaltyOf = ({ length }: { length: number }): number => -length / 10;
      const texts = ({ rows }: Rollout): Set<string> =>
        new Set(rows.map(({ prompt }) => prompt.text));

      test('filterOn reward keeps them', async () => {
        const found = await source({ dynamicSampling, penaltyOf }, right).next(0);
        assert.ok(
          [...texts(found)].some((text) => !text.startsWith('c')),
          'the penalty must have kept one',
        );
        assert.ok(found.rounds < 4, `it took ${found.rounds} rounds`);
      });

      for (const accuracyReward of [null, 'r']) {
        test(`filterOn accuracy does not (accuracyReward ${accuracyReward})`, async () => {
          const accuracy = { filterOn: 'accuracy', accuracyReward, maxRounds: 9 } as const;
          const found = await source({ dynamicSampling: accuracy, penaltyOf }, right).next(0);
          assert.deepEqual(texts(found), new Set(['cad:']));
          assert.ok(found.rounds >= 4, `it took ${found.rounds} rounds`);
        });
      }
    });

    test('accuracyReward names the reward that must vary; others that vary do not count', async () => {
      const rewards: NamedReward[] = [
        { name: 'noise', weight: 1, fn: ({ completion }) => easyLetters(completion) },
        { name: 'right', weight: 1, fn: (input) => (input.prompt === 'cad:' ? easy(input) : 0) },
      ];
      const accuracy = { filterOn: 'accuracy', accuracyReward: 'right', maxRounds: 9 } as const;
      const found = await source({ dynamicSampling: accuracy }, rewards).next(0);
      assert.deepEqual(new Set(found.rows.map(({ prompt }) => prompt.text)), new Set(['cad:']));
      const sum = { ...accuracy, accuracyReward: null };
      const any = await source({ dynamicSampling: sum }, rewards).next(0);
      assert.ok(
        any.rows.some(({ prompt }) => prompt.text !== 'cad:'),
        'the noise must count',
      );
    });
  });

  describe('rolloutLag', () => {
    test('a step gets what was drawn that many steps before it, the first steps what was drawn first', async () => {
      const given = source({ rolloutLag: 2 });
      const plain = source();
      for (let step = 0; step < 6; step++) {
        const { rows } = await given.next(10 * step);
        assert.equal(rows[0]?.weightVersion, 10 * Math.max(0, step - 2));
        // The weights do not change here, so that the stream of completions is the same.
        assert.deepEqual(groups({ rows }), groups(await plain.next(0)));
      }
    });
  });

  describe('state', () => {
    const answers: Environment<number> = {
      name: 'answers',
      stop: [':'],
      reset: () => 0,
      step: (turns, { text }) => ({
        state: turns + 1,
        observation: `${'z'.repeat(text.length)}:`,
        done: false,
      }),
    };
    const rewards: NamedReward[] = [
      { name: 'letters', weight: 1, fn: ({ completion }) => easyLetters(completion) },
      { name: 'picky', weight: 2, fn: ({ prompt }) => (prompt.startsWith('b') ? null : 1) },
    ];
    const changes: Partial<RolloutSettings> = {
      rolloutLag: 2,
      sampling: { maxNewTokens: 4, temperature: 0.8, topP: 0.9, keepSamplingMask: true },
      maxTurns: 3,
      withGreedy: true,
      dynamicSampling: { filterOn: 'accuracy', accuracyReward: 'letters', maxRounds: 2 },
    };

    test('waiting rollouts survive JSON as they are: NaN, supports, turns, greedy rewards', async () => {
      const given = source(changes, rewards, { environment: answers });
      await given.next(0);
      const saved = JSON.parse(JSON.stringify(given.state())) as Record<string, unknown>;
      const again = source(changes, rewards, { environment: answers });
      again.restorer(saved)();
      assert.deepEqual(again.state(), given.state());
      for (let step = 1; step < 4; step++) {
        const [expected, found] = [await given.next(step), await again.next(step)];
        assert.deepEqual(
          found.rows.map(({ prompt, ...row }) => [prompt.text, row]),
          expected.rows.map(({ prompt, ...row }) => [prompt.text, row]),
        );
        assert.deepEqual({ ...found, rows: [] }, { ...expected, rows: [] });
        const { rows } = expected;
        const has = (what: string, test: (row: RolloutRow) => unknown): void =>
          assert.ok(rows.some(test), `there must be ${what}`);
        has('a row without a score', ({ reward, outcome }) =>
          [reward, outcome].every(Number.isNaN),
        );
        has('a greedy completion without a score', ({ greedyReward = 0 }) =>
          Number.isNaN(greedyReward),
        );
        has('a greedy completion with one', ({ greedyReward = NaN }) => greedyReward >= 0);
        has('a token that was not drawn', ({ supports }) => supports?.includes(null));
        has('a support', ({ supports = [] }) => supports[0] instanceof Int32Array);
        has('a second turn', ({ turns = [] }) => turns.length > 1);
      }
    });

    test('without what a method has no use for, nothing is made up', async () => {
      const given = source({ rolloutLag: 1 });
      await given.peek(0);
      const again = source({ rolloutLag: 1 });
      again.restorer(JSON.parse(JSON.stringify(given.state())) as Record<string, unknown>)();
      const [row] = (await again.next(0)).rows;
      for (const name of ['greedyReward', 'supports', 'turns'])
        assert.equal(name in (row ?? assert.fail('there is a row')), false, name);
    });

    test('a restored source goes on in the middle of an epoch', async () => {
      const dynamicSampling = { filterOn: 'reward', accuracyReward: null, maxRounds: 3 } as const;
      const given = source({ dynamicSampling });
      await given.next(0);
      const again = source({ dynamicSampling });
      again.restorer(JSON.parse(JSON.stringify(given.state())) as Record<string, unknown>)();
      for (let step = 0; step < 3; step++) {
        assert.deepEqual(groups(await again.next(0)), groups(await given.next(0)));
      }
    });

    test('is read before anything is changed, and refused where it does not fit', async () => {
      const given = source({ rolloutLag: 1 });
      await given.peek(0);
      const saved = JSON.parse(JSON.stringify(given.state())) as {
        waiting: { rows: { prompt: number }[] }[];
      };
      const again = source({ rolloutLag: 1 });
      const before = again.state();
      const refused = (state: Record<string, unknown>, message: RegExp): void => {
        assert.throws(
          () => again.restorer(state),
          (error: Error) => error instanceof CheckpointError && message.test(error.message),
        );
        assert.deepEqual(again.state(), before);
      };
      again.restorer({ ...saved });
      assert.deepEqual(again.state(), before, 'nothing changes before it is told to');
      const noNumber =
        /^here: expected the saved state to tell which rollouts were drawn, received/;
      refused({ ...saved, drawn: '1' }, noNumber);
      refused({ ...saved, drawn: undefined }, noNumber);
      refused({ ...saved, waiting: undefined }, noNumber);
      refused({ ...saved, order: undefined }, /^here: expected order\.epoch/);
      refused(
        { ...saved, order: { epoch: 0, position: 6 } },
        /^here: expected order\.position to be below the 6 rows of the data, received 6\.$/,
      );
      const [first] = saved.waiting;
      assert.ok(first, 'a rollout must be waiting');
      const strange = { ...first, rows: first.rows.map((row) => ({ ...row, prompt: 6 })) };
      refused(
        { ...saved, waiting: [strange] },
        /^here: expected a prompt 6 among the 6 of the data, received none\.$/,
      );
    });
  });
});

/** A number that differs between nearly all completions. */
function easyLetters(completion: string): number {
  return Array.from(completion, (letter, at) => letter.charCodeAt(0) / 2 ** at).reduce(
    (sum, value) => sum + value,
    0,
  );
}
