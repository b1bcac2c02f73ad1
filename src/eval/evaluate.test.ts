import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { smallModel } from '../../test/runs/smallModel.js';
import { rowsFromObjects, tokenizeForSft, tokenizePrompts } from '../data/index.js';
import { ValueRangeError } from '../errors/index.js';
import { generate } from '../generation/index.js';
import { createScalarModel } from '../models/index.js';
import type { RewardInput } from '../rewards/index.js';
import { noGrad, tensor } from '../torch/index.js';
import { evaluate, perplexity, scoreSequences } from './index.js';

const { model, tokenizer } = smallModel();
const rows = rowsFromObjects(
  Array.from({ length: 12 }, (_, i) => ({ prompt: `${i}+${2 * i}=`, answer: String(3 * i) })),
);
const { prompts } = tokenizePrompts(rows, tokenizer, { maxPromptLength: 16 });
const maxNewTokens = 6;

/** A reward that a random model meets now and then, and a record of what it saw. */
function evenDigits() {
  const seen: { completion: string; score: number; prompt: string }[] = [];
  const fn = ({ completion, prompt }: RewardInput): number => {
    const score = /^[02468]/.test(completion) ? 1 : 0;
    seen.push({ completion, score, prompt });
    return score;
  };
  return { seen, rewards: [{ name: 'even', weight: 1, fn }] };
}

describe('evaluate', () => {
  test('counts the greedy completions that the reward calls correct', async () => {
    const { rewards } = evenDigits();
    const found = await evaluate({ model, tokenizer, prompts, rewards, maxNewTokens });
    const texts = await generate({
      model,
      tokenizer,
      prompts: prompts.map(({ text }) => text),
      maxNewTokens,
      temperature: 0,
    });
    assert.deepEqual(
      found.completions.map(({ completion }) => completion),
      texts.map(({ text }) => text),
    );
    const correct = texts.filter(({ text }) => /^[02468]/.test(text)).length;
    expectClose(found.accuracy.value, correct / 12);
    assert.ok(found.accuracy.low <= correct / 12 && correct / 12 <= found.accuracy.high);
    assert.equal(found.sampled, undefined);
    assert.equal(found.problems, 12);
    expectClose(
      found.greedy.completionLength,
      texts.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0) / 12,
    );
    expectClose(
      found.greedy.eosRate,
      texts.filter(({ finishReason }) => finishReason === 'eos').length / 12,
    );
  });

  test('pass@k and maj@k agree with a count of the samples by hand', async () => {
    const { rewards, seen } = evenDigits();
    const found = await evaluate({
      ...{ model, tokenizer, prompts, rewards, maxNewTokens, samples: 4, k: [4, 1, 4], seed: 5 },
    });
    const groups = prompts.map((_, i) => seen.slice(12 + 4 * i, 16 + 4 * i));
    assert.ok(groups.every((group, i) => group.every(({ prompt }) => prompt === prompts[i]?.text)));
    const rates = groups.map((group) => group.filter(({ score }) => score === 1).length / 4);
    assert.ok(
      rates.some((rate) => rate > 0 && rate < 1),
      'the reward tells samples apart',
    );
    const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

    assert.deepEqual(Object.keys(found.sampled?.passAtK ?? {}), ['1', '4']);
    expectClose(found.sampled?.passAtK[1]?.value ?? NaN, mean(rates));
    expectClose(found.sampled?.passAtK[4]?.value ?? NaN, mean(rates.map((r) => (r > 0 ? 1 : 0))));
    expectClose(found.sampled?.majorityAtK[1]?.value ?? NaN, mean(rates));
    // All correct answers are one; the others are counted by their text. Ties are split.
    const majority = groups.map((group) => {
      const votes = new Map<string, number>();
      for (const { score, completion } of group) {
        const answer = score === 1 ? 'right' : `x${completion.trim()}`;
        votes.set(answer, (votes.get(answer) ?? 0) + 1);
      }
      const most = Math.max(...votes.values());
      const winners = [...votes].filter(([, count]) => count === most);
      return winners.some(([answer]) => answer === 'right') ? 1 / winners.length : 0;
    });
    expectClose(found.sampled?.majorityAtK[4]?.value ?? NaN, mean(majority));
    assert.equal(found.sampled?.temperature, 1);
  });

  test('the same seed gives the same numbers, another one others', async () => {
    const run = (seed: number) =>
      evaluate({
        ...{ model, tokenizer, prompts, maxNewTokens, samples: 4, seed },
        ...evenDigits(),
      });
    assert.deepEqual(await run(1), await run(1));
    assert.notDeepEqual((await run(1)).sampled, (await run(2)).sampled);
  });

  test('what a reward cannot score is wrong and counted', async () => {
    const fn = ({ row }: RewardInput): number | null => (row['answer'] === '0' ? 1 : null);
    const found = await evaluate({
      ...{ model, tokenizer, prompts, maxNewTokens, rewards: [{ name: 'r', weight: 1, fn }] },
    });
    expectClose(found.accuracy.value, 1 / 12);
    assert.equal(found.greedy.unscored, 11);
    assert.equal(found.greedy.reward, 1);
    assert.equal(found.failures.length, 11);
  });

  describe('reward models', () => {
    const { model: trunk } = smallModel({ seed: 4 });
    const judge = createScalarModel(trunk, { seed: 1, std: 0.5 });
    const shared = { model, tokenizer, prompts, maxNewTokens };

    test('score the tokens as they were drawn, with their weight', async () => {
      const rewardModels = [{ name: 'judge', weight: 0.5, model: judge }];
      const found = await evaluate({ ...shared, rewards: [], rewardModels });
      const drawn = await generate({
        ...shared,
        prompts: prompts.map(({ text }) => text),
        temperature: 0,
      });
      const sequences = drawn.map(({ promptIndex, tokenIds }) => [
        ...(prompts[promptIndex]?.inputIds ?? []),
        ...tokenIds,
      ]);
      const scores = scoreSequences(judge, sequences).map((score) => score / 2);
      expectClose(
        found.completions.map(({ reward }) => reward),
        scores,
        { rtol: 1e-6 },
      );
      expectClose(found.greedy.reward, scores.reduce((sum, score) => sum + score, 0) / 12, {
        rtol: 1e-6,
      });
      const threshold = [...scores].sort((a, b) => a - b)[6] ?? NaN;
      const judged = await evaluate({ ...shared, rewards: [], rewardModels, threshold });
      assert.equal(judged.accuracy.value, 0.5);
    });

    test('stand beside functions in one sum; a score that is no number leaves a completion unscored', async () => {
      const { rewards } = evenDigits();
      const rewardModels = [{ name: 'judge', weight: 1, model: judge }];
      const both = await evaluate({ ...shared, rewards, rewardModels });
      const apart = [
        await evaluate({ ...shared, rewards }),
        await evaluate({ ...shared, rewards: [], rewardModels }),
      ];
      expectClose(
        both.completions.map(({ reward }) => reward),
        both.completions.map((_, at) =>
          apart.reduce((sum, { completions }) => sum + (completions[at]?.reward ?? NaN), 0),
        ),
        { rtol: 1e-6 },
      );
      const broken = createScalarModel(smallModel().model, { std: 1 });
      noGrad(() => broken.head.weight.fill_(NaN));
      const found = await evaluate({
        ...shared,
        rewards,
        rewardModels: [{ name: 'broken', weight: 1, model: broken }],
      });
      assert.deepEqual([found.greedy.unscored, found.accuracy.value], [12, 0]);
      assert.deepEqual(found.failures[3], {
        ...{ reward: 'broken', index: 3, file: '<memory>', line: 4 },
        reason: 'gave no finite score',
      });
    });

    test('are not all that may be missing', async () => {
      await assert.rejects(evaluate({ ...shared, rewards: [] }), {
        code: 'E_REWARD',
        message: 'scoreCompletions: expected at least one reward, received none.',
      });
    });
  });

  test('weights that add up to the threshold but for a rounding are enough', async () => {
    const fn = (): number => 1;
    // Ten times 0.1 is 0.9999999999999999.
    const rewards = Array.from({ length: 10 }, () => 0.1).map((weight, i) => ({
      name: `r${i}`,
      weight,
      fn,
    }));
    const found = await evaluate({ ...{ model, tokenizer, prompts, maxNewTokens, rewards } });
    assert.equal(found.accuracy.value, 1);
  });

  test('refuses a k beyond the samples, and no problems', async () => {
    const base = { model, tokenizer, prompts, maxNewTokens, ...evenDigits() };
    await assert.rejects(
      evaluate({ ...base, samples: 4, k: [8] }),
      /from 1 to the 4 samples, received 8/,
    );
    await assert.rejects(evaluate({ ...base, prompts: [] }), ValueRangeError);
  });
});

describe('perplexity', () => {
  const pairs = rowsFromObjects([
    { prompt: '1+1=', completion: '2' },
    { prompt: '12+30=', completion: '42' },
    { prompt: '9+9=', completion: '18' },
  ]);
  const { examples } = tokenizeForSft(pairs, tokenizer, { maxLength: 32 });

  test('is the exponential of the mean over predicted tokens, sequence by sequence', () => {
    let sum = 0;
    let count = 0;
    for (const { inputIds, completionStart } of examples) {
      const ids = tensor(Int32Array.from(inputIds), {
        shape: [1, inputIds.length],
        dtype: 'int64',
      });
      const logits = model
        .forward({ inputIds: ids })
        .logits.to('float64')
        .toArray() as number[][][];
      for (let t = completionStart; t < inputIds.length; t++) {
        const scores = logits[0]?.[t - 1] ?? [];
        const total = Math.log(scores.reduce((acc, score) => acc + Math.exp(score), 0));
        sum += total - (scores[inputIds[t] ?? 0] ?? NaN);
        count++;
      }
    }
    const found = perplexity({ model, examples });
    assert.equal(found.tokens, count);
    expectClose(found.loss, sum / count, { rtol: 1e-5 });
    expectClose(found.perplexity, Math.exp(sum / count), { rtol: 1e-5 });
  });

  test('does not depend on how the sequences are batched', () => {
    const whole = perplexity({ model, examples });
    expectClose(perplexity({ model, examples, microBatchTokens: 1 }).loss, whole.loss);
  });

  test('of a model that knows nothing is the size of its vocabulary', () => {
    const blank = smallModel({ initializerRange: 1e-4 });
    const found = perplexity({ model: blank.model, examples });
    expectClose(found.perplexity, blank.tokenizer.vocabSize, { rtol: 1e-4 });
  });

  test('refuses to predict nothing', () => {
    assert.throws(() => perplexity({ model, examples: [] }), ValueRangeError);
  });
});
