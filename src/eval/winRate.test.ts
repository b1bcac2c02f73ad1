import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { smallModel } from '../../test/runs/smallModel.js';
import { rowsFromObjects, tokenizePrompts } from '../data/index.js';
import { ConfigError, ShapeError, ValueRangeError } from '../errors/index.js';
import { generate } from '../generation/index.js';
import { createScalarModel } from '../models/index.js';
import type { PairwiseJudge, RewardFunction } from '../rewards/index.js';
import { memory } from '../torch/index.js';
import { scoreSequences, wilsonInterval, winRate, type WinRateOptions } from './index.js';

const { model, tokenizer } = smallModel();
const { model: other } = smallModel({ seed: 3 });
const rows = rowsFromObjects(
  Array.from({ length: 12 }, (_, i) => ({ prompt: `${i}+${2 * i}=`, answer: String(3 * i) })),
  'sums',
);
const { prompts } = tokenizePrompts(rows, tokenizer, { maxPromptLength: 16 });
const maxNewTokens = 5;
const opponent = { model: other, tokenizer, prompts };

/** The number that digits are, in some base; many pairs differ. */
const scoreOf: RewardFunction = ({ completion }) =>
  completion.split('1').length - completion.length / 10;
const rewards = [{ name: 'score', weight: 2, fn: scoreOf }];
const base: WinRateOptions = { model, tokenizer, prompts, against: opponent, maxNewTokens };
const compare = (more: Partial<WinRateOptions>) => winRate({ ...base, ...more });

const greedy = (of: typeof model) =>
  generate({
    model: of,
    tokenizer,
    prompts: prompts.map(({ text }) => text),
    ...{ maxNewTokens, temperature: 0 },
  });

/** By the reward, from texts alone. */
function outcomeOf(completion: string, against: string): number {
  const [a, b] = [completion, against].map((text) => text.split('1').length - text.length / 10) as [
    number,
    number,
  ];
  return Math.abs(a - b) < 1e-9 ? 0.5 : a > b ? 1 : 0;
}

describe('winRate', () => {
  test('compares the greedy completions of both models by the reward', async () => {
    const [ours, theirs] = [await greedy(model), await greedy(other)];
    const expected = prompts.map((_, i) => outcomeOf(ours[i]?.text ?? '', theirs[i]?.text ?? ''));
    const found = await compare({ rewards });
    assert.deepEqual(
      found.pairs.map(({ outcome }) => outcome),
      expected,
    );
    assert.deepEqual(
      found.pairs.map(({ completion, against }) => [completion, against]),
      prompts.map((_, i) => [ours[i]?.text, theirs[i]?.text]),
    );
    const sum = expected.reduce((total, value) => total + value, 0);
    assert.deepEqual(found.winRate, wilsonInterval(sum, 12));
    const share = (value: number) => expected.filter((one) => one === value).length / 12;
    assert.deepEqual(
      [found.wins, found.ties, found.losses, found.uncompared, found.problems],
      [share(1), share(0.5), share(0), 0, 12],
    );
    assert.ok(found.wins > 0 && found.losses > 0, 'both happen');
  });

  test('the other side loses what this side wins', async () => {
    const found = await compare({ rewards });
    const turned = await winRate({ ...base, ...opponent, against: base, rewards });
    expectClose(turned.winRate.value, 1 - found.winRate.value, { atol: 1e-12 });
    expectClose(turned.winRate.low, 1 - found.winRate.high, { atol: 1e-12 });
    assert.deepEqual([turned.wins, turned.losses], [found.losses, found.wins]);
  });

  test('a model ties with itself greedily, and its samples are draws of its own', async () => {
    const same = await compare({ against: { model, tokenizer, prompts }, rewards });
    assert.deepEqual([same.wins, same.ties, same.losses, same.winRate.value], [0, 1, 0, 0.5]);
    const sampled = await compare({
      against: { model, tokenizer, prompts },
      ...{ rewards, samples: 8, seed: 3 },
    });
    assert.equal(sampled.pairs.length, 96);
    assert.ok(sampled.ties < 0.9, `not the same draws on both sides: ${sampled.ties} tied`);
    // Half by symmetry; with 96 pairs of variance ≤ ¼ outside 0.5 ± 0.25 with a probability below 1e-6 (4.9 σ).
    assert.ok(Math.abs(sampled.winRate.value - 0.5) < 0.25, String(sampled.winRate.value));
  });

  test('samples: every prompt counts once, by the mean of its pairs that were compared', async () => {
    // Prompt 0 has one pair left of four, all others have all.
    let calls = 0;
    const fn: RewardFunction = (input) => {
      const isFirstPrompt = input.prompt === prompts[0]?.text;
      return isFirstPrompt && calls++ < 3 ? null : scoreOf(input);
    };
    const found = await compare({ rewards: [{ name: 'x', weight: 1, fn }], samples: 4, seed: 5 });
    assert.equal(found.uncompared, 3);
    const means = prompts.map((_, prompt) => {
      const own = found.pairs.flatMap(({ promptIndex, outcome }) =>
        promptIndex === prompt && outcome !== null ? [outcome] : [],
      );
      return own.reduce((sum, value) => sum + value, 0) / own.length;
    });
    const sum = means.reduce((total, value) => total + value, 0);
    expectClose(found.winRate.value, sum / 12, { atol: 1e-12 });
    assert.deepEqual(found.failures[0], 'reward x for sums:1 returned null');
  });

  test('of one seed is the same, of another not', async () => {
    const texts = async (seed: number) =>
      (await compare({ rewards, samples: 3, seed })).pairs.map(({ completion }) => completion);
    assert.deepEqual(await texts(1), await texts(1));
    assert.notDeepEqual(await texts(1), await texts(2));
  });

  test('texts written before take part as they are, against every sample', async () => {
    const against = prompts.map((_, i) => (i % 2 === 0 ? '1111111' : '=='));
    const [first] = await greedy(model);
    const found = await compare({ against, rewards });
    assert.deepEqual(
      found.pairs.map((pair) => pair.against),
      against,
    );
    assert.equal(found.pairs[0]?.outcome, outcomeOf(first?.text ?? '', '1111111'));
    const sampled = await compare({ against, rewards, samples: 2 });
    assert.deepEqual(
      sampled.pairs.slice(0, 4).map((pair) => pair.against),
      ['1111111', '1111111', '==', '=='],
    );
  });

  test('reward models read prompt, text and its end', async () => {
    const scalar = createScalarModel(smallModel({ seed: 7 }).model, { std: 0.5, seed: 2 }).freeze();
    const against = prompts.map(({ row }) => String(row.values['answer']));
    const found = await compare({
      against,
      rewardModels: [{ name: 'rm', weight: -1, model: scalar }],
    });
    const drawn = await greedy(model);
    const scores = scoreSequences(scalar, [
      ...prompts.map(({ inputIds }, i) => [...inputIds, ...(drawn[i]?.tokenIds ?? [])]),
      ...prompts.map(({ inputIds }, i) => [
        ...[...inputIds, ...tokenizer.encode(against[i] ?? '')],
        tokenizer.eosTokenId ?? NaN,
      ]),
    ]);
    assert.deepEqual(
      found.pairs.map(({ outcome }) => outcome),
      prompts.map((_, i) => ((scores[i] ?? NaN) < (scores[12 + i] ?? NaN) ? 1 : 0)),
    );
    scalar.dispose();
  });

  test('what no reward can score is in no share, and told', async () => {
    const fn: RewardFunction = (input) => (input.row['answer'] === '3' ? NaN : scoreOf(input));
    const all = await compare({ rewards });
    const found = await compare({ rewards: [{ name: 'x', weight: 1, fn }] });
    assert.deepEqual([found.uncompared, found.problems], [1, 11]);
    assert.equal(found.pairs[1]?.outcome, null);
    const rest = all.pairs.filter(({ promptIndex }) => promptIndex !== 1);
    const sum = rest.reduce((total, { outcome }) => total + (outcome ?? NaN), 0);
    assert.deepEqual(found.winRate, wilsonInterval(sum, 11));
    assert.deepEqual(found.failures, [
      'reward x for sums:2 returned NaN',
      'reward x for sums:2 returned NaN',
    ]);
  });

  test('frees what it made', async () => {
    const before = memory().liveTensors;
    await compare({ rewards, samples: 2 });
    assert.equal(memory().liveTensors, before);
  });
});

describe('winRate by a judge', () => {
  const judge: PairwiseJudge = ({ completions: [a, b] }) => {
    const outcome = outcomeOf(a, b);
    return outcome === 0.5 ? null : outcome === 1 ? 0 : 1;
  };

  test('is that of the rewards it agrees with, in whatever order it sees them', async () => {
    const [scored, judged] = [await compare({ rewards }), await compare({ judge })];
    assert.deepEqual(judged.winRate, scored.winRate);
    assert.deepEqual(judged.pairs, scored.pairs);
  });

  test('a judge that prefers a place is told by firstPreferred, and gives no model an advantage', async () => {
    const first = await compare({ judge: () => 0, samples: 8 });
    const second = await compare({ judge: () => 1, samples: 8 });
    assert.deepEqual([first.firstPreferred, second.firstPreferred], [1, 0]);
    // Binomial over at least 60 pairs: further than 0.3 from ½ with a probability below 4e-6; the seed is fixed.
    assert.ok(Math.abs(first.winRate.value - 0.5) < 0.3, String(first.winRate.value));
    expectClose(first.winRate.value + second.winRate.value, 1, { atol: 1e-9 });
    assert.equal((await compare({ rewards })).firstPreferred, undefined);
  });

  test('sees prompt, row and both texts; its failures are told and left out', async () => {
    const seen: unknown[] = [];
    const faulty: PairwiseJudge = (input) => {
      seen.push([input.prompt, input.row['answer'], input.source?.line]);
      if (input.source?.line === 3) throw new TypeError('no');
      return judge(input);
    };
    const found = await compare({ judge: faulty });
    assert.ok(
      seen.some((one) => JSON.stringify(one) === JSON.stringify(['2+4=', '6', 3])),
      'the third row',
    );
    assert.deepEqual(found.failures, ['judge for sums:3 threw TypeError: no']);
    assert.equal(found.uncompared, 1);
  });
});

describe('winRate rejects', () => {
  test('rewards and a judge, or neither', async () => {
    await assert.rejects(
      compare({ rewards, judge: () => 0 }),
      new ConfigError('winRate: expected rewards or a judge, received both.'),
    );
    await assert.rejects(
      compare({}),
      new ConfigError('winRate: expected rewards or a judge, received neither.'),
    );
  });
  test('no prompts, and sides of different sizes', async () => {
    await assert.rejects(
      compare({ prompts: [], rewards }),
      new ValueRangeError('winRate: expected at least one prompt, received none.'),
    );
    const message =
      'winRate: expected as many completions or prompts on the other side, 12, received 2.';
    await assert.rejects(compare({ against: ['1', '2'], rewards }), new ShapeError(message));
    const short = { ...opponent, prompts: prompts.slice(0, 2) };
    await assert.rejects(compare({ against: short, rewards }), new ShapeError(message));
  });
  test('pairs of which none can be compared', async () => {
    await assert.rejects(compare({ judge: () => undefined }), (error) => {
      assert.ok(error instanceof ValueRangeError, String(error));
      assert.match(
        error.message,
        /^winRate: expected at least one pair that can be compared, but none of 12 was; the first: judge for sums:\d+ returned undefined, not 0, 1 or null\.$/,
      );
      return true;
    });
  });
});
