import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { sample } from '../generation/index.js';
import { createModel, makeDecoderConfig, tokenLogprobs, type Decoder } from '../models/index.js';
import { sentimentReward, sentimentScore, sentimentTask } from '../tasks/index.js';
import { createCharacterTokenizer } from '../tokenizers/index.js';
import { noGrad, tensor, type Dtype } from '../torch/index.js';
import {
  completionEntropy,
  completionLogprobs,
  completionRewards,
  CompletionSpace,
  expectedReward,
  klPolicyReference,
} from './enumeration.js';
import { tinyDecoder } from './settings.js';

const { characters } = sentimentTask({ seed: 0 });
const tokenizer = createCharacterTokenizer({ characters });
const EOS = tokenizer.eosTokenId ?? NaN;
const PROMPT = tokenizer.encode('qgF');

function decoder(seed: number, dtype: Dtype = 'float64'): Decoder {
  const config = makeDecoderConfig({
    ...tinyDecoder(16),
    vocabSize: tokenizer.vocabSize,
    eosTokenId: EOS,
    padTokenId: tokenizer.padTokenId ?? null,
  });
  return createModel(config, { seed, dtype });
}

const model = decoder(1);
const other = decoder(2);
const spaceOf = (maxNewTokens: number, eosTokenIds = [EOS]): CompletionSpace =>
  new CompletionSpace({ vocabSize: 12, eosTokenIds, maxNewTokens });
const space = spaceOf(3);
const logprobs = completionLogprobs(model, PROMPT, space);
const refLogprobs = completionLogprobs(other, PROMPT, space);
const everyIndex = Array.from({ length: space.size }, (_, index) => index);

/** What `tokenLogprobs` gives to some completions: another way to the same numbers. */
function scored(of: Decoder, indices: readonly number[]): number[] {
  const rows = indices.map((index) => [...PROMPT, ...space.tokenIds(index)]);
  const width = Math.max(...rows.map(({ length }) => length));
  const padded = rows.map((ids) => [...ids, ...Array<number>(width - ids.length).fill(0)]);
  const found = noGrad(() =>
    tokenLogprobs(of, {
      inputIds: tensor(padded, { dtype: 'int64' }),
      promptLengths: rows.map(() => PROMPT.length),
      lengths: rows.map(({ length }) => length),
    }),
  );
  return found.logprobs.sum(1).toArray() as number[];
}

const massOf = (values: Float64Array): number =>
  values.reduce((sum, logprob) => sum + Math.exp(logprob), 0);

describe('CompletionSpace', () => {
  test('by hand: three tokens of which one ends, up to two of them', () => {
    const small = new CompletionSpace({ vocabSize: 3, eosTokenIds: [1], maxNewTokens: 2 });
    const all = Array.from({ length: small.size }, (_, index) => small.tokenIds(index));
    assert.deepEqual(all, [[1], [0, 1], [2, 1], [0, 0], [0, 2], [2, 0], [2, 2]]);
    assert.deepEqual(
      all.map((_, index) => small.finishReason(index)),
      ['eos', 'eos', 'eos', 'length', 'length', 'length', 'length'],
    );
  });
  test('by hand: two tokens that end, in any order, given twice', () => {
    const small = new CompletionSpace({ vocabSize: 3, eosTokenIds: [2, 0, 2], maxNewTokens: 2 });
    const all = Array.from({ length: small.size }, (_, index) => small.tokenIds(index));
    assert.deepEqual(all, [[0], [2], [1, 0], [1, 2], [1, 1]]);
  });
  test('where every token ends, completions have one token', () => {
    const small = new CompletionSpace({ vocabSize: 2, eosTokenIds: [0, 1], maxNewTokens: 4 });
    assert.equal(small.size, 2);
  });
  test('every completion is there once, and none goes on after its EOS', () => {
    const all = everyIndex.map((index) => space.tokenIds(index));
    assert.equal(space.size, 1 + 11 + 121 + 1331);
    assert.equal(new Set(all.map((ids) => ids.join())).size, space.size);
    all.forEach((ids, index) => {
      const ends = space.finishReason(index) === 'eos';
      assert.equal(ids.indexOf(EOS), ends ? ids.length - 1 : -1);
      assert.ok(ends ? ids.length <= 3 : ids.length === 3, ids.join());
    });
  });
  test('texts are those of the sampler: without special tokens', () => {
    const texts = space.texts(tokenizer);
    assert.equal(texts[0], '');
    everyIndex.slice(-50).forEach((index) => {
      const expected = tokenizer.decode(space.tokenIds(index), { skipSpecialTokens: true });
      assert.equal(texts[index], expected);
    });
    assert.ok(texts.includes('vg') && texts.includes('vgh'), 'reviews are among them');
  });
  describe('rejects', () => {
    const refused = (
      options: Partial<ConstructorParameters<typeof CompletionSpace>[0]>,
      message: string,
    ) =>
      assert.throws(
        () => new CompletionSpace({ vocabSize: 12, eosTokenIds: [1], maxNewTokens: 3, ...options }),
        { name: 'ValueRangeError', message },
      );
    test('no limit, no EOS or one that is no token', () => {
      refused(
        { maxNewTokens: 0 },
        'CompletionSpace: expected maxNewTokens to be an integer of at least 1, received 0.',
      );
      const message = 'CompletionSpace: expected at least one EOS token, each from 0 to 11';
      refused({ eosTokenIds: [] }, `${message}, received [].`);
      refused({ eosTokenIds: [1, 12] }, `${message}, received [1, 12].`);
    });
    test('more completions than can be enumerated', () => {
      refused(
        { maxNewTokens: 7 },
        'CompletionSpace: expected at most 8388608 completions, received 21435888 of up to 7 tokens.',
      );
    });
    test('an index that is none', () => {
      for (const index of [-1, 1464, 0.5]) {
        assert.throws(() => space.tokenIds(index), {
          name: 'ValueRangeError',
          message: `CompletionSpace: expected an index from 0 to 1463, received ${index}.`,
        });
      }
    });
  });
});

describe('completionLogprobs', () => {
  test('probabilities sum to 1 within 1e-12, of a float32 model too', () => {
    expectClose(massOf(logprobs), 1, { rtol: 1e-12, atol: 0 });
    const single = decoder(1, 'float32');
    for (const length of [1, 2, 4]) {
      const mass = massOf(completionLogprobs(single, PROMPT, spaceOf(length)));
      expectClose(mass, 1, { rtol: 1e-12, atol: 0 });
    }
  });
  test('every one is what tokenLogprobs gives, in both dtypes', () => {
    expectClose([...logprobs], scored(model, everyIndex), { rtol: 1e-12, atol: 1e-12 });
    const single = decoder(1, 'float32');
    const found = completionLogprobs(single, PROMPT, space);
    expectClose([...found], scored(single, everyIndex), { rtol: 1e-5, atol: 1e-5 });
  });
  test('many prefixes go through the model in parts', () => {
    // 11⁴ prefixes are four parts, the last one not full. Their sum tells that none is lost, the samples that none is moved.
    const large = spaceOf(5);
    const found = completionLogprobs(model, PROMPT, large);
    expectClose(massOf(found), 1, { rtol: 1e-12, atol: 0 });
    for (const index of [large.size - 1, large.size - 20_000, 15_000, 7000]) {
      const ids = large.tokenIds(index);
      const row = [...PROMPT, ...ids];
      const { logprobs: expected } = noGrad(() =>
        tokenLogprobs(model, {
          inputIds: tensor([row], { dtype: 'int64' }),
          promptLengths: [PROMPT.length],
          lengths: [row.length],
        }),
      );
      expectClose(found[index] ?? NaN, expected.sum().item(), { rtol: 1e-12 });
    }
  });
  test('the sampler draws every completion as often', async () => {
    // Pearson's χ² over the completions that 6,000 draws should bring at least 10 times, the rest in one class.
    const draws = 6000;
    const rows = await sample({
      ...{ model, promptIds: [PROMPT], numCompletions: draws, maxNewTokens: 3, seed: 9 },
      maxBatchSize: 2000,
    });
    const counts = new Map<string, number>();
    for (const { tokenIds } of rows) {
      counts.set(tokenIds.join(), (counts.get(tokenIds.join()) ?? 0) + 1);
    }
    let [chiSquare, classes, restSeen, restExpected] = [0, 1, draws, draws];
    for (const index of everyIndex) {
      const expected = draws * Math.exp(logprobs[index] ?? NaN);
      if (expected < 10) continue;
      const seen = counts.get(space.tokenIds(index).join()) ?? 0;
      chiSquare += (seen - expected) ** 2 / expected;
      classes++;
      restSeen -= seen;
      restExpected -= expected;
    }
    chiSquare += (restSeen - restExpected) ** 2 / restExpected;
    assert.ok(classes > 50, `${classes} classes`);
    // Five standard deviations of χ²: a false alarm in less than one of a hundred thousand runs.
    const freedom = classes - 1;
    assert.ok(chiSquare < freedom + 5 * Math.sqrt(2 * freedom), `χ² ${chiSquare} of ${freedom}`);
  });
  test('rejects an empty prompt and a space over another vocabulary', () => {
    assert.throws(() => completionLogprobs(model, [], space), {
      name: 'ShapeError',
      message: 'completionLogprobs: expected a prompt of at least one token, received none.',
    });
    const wider = new CompletionSpace({ vocabSize: 13, eosTokenIds: [1], maxNewTokens: 1 });
    assert.throws(() => completionLogprobs(model, PROMPT, wider), {
      name: 'ValueRangeError',
      message:
        "completionLogprobs: expected a space over the model's 12 tokens, received one over 13.",
    });
  });
});

describe('completionRewards', () => {
  const texts = space.texts(tokenizer);
  test('each is the reward of its text, with why it ended and how long it is', async () => {
    const rewards = await completionRewards({
      ...{ space, texts, prompt: 'qgF', reward: sentimentReward },
    });
    assert.deepEqual(
      [...rewards],
      texts.map((text) => sentimentScore('qgF', text)),
    );
    const seen = await completionRewards({
      ...{ space, texts, prompt: 'p', row: { bonus: 0.5 } },
      reward: ({ prompt, completionTokens, finishReason, row }) =>
        Promise.resolve(
          prompt.length +
            completionTokens +
            (finishReason === 'eos' ? 10 : 0) +
            Number(row['bonus']),
        ),
    });
    assert.deepEqual([seen[0], seen[1], seen.at(-1)], [12.5, 13.5, 4.5]);
  });
  test('rejects a completion without a reward', async () => {
    for (const [score, shown] of [
      [null, 'null'],
      [undefined, 'undefined'],
      [NaN, 'NaN'],
      [Infinity, 'Infinity'],
    ] as const) {
      const reward = ({ completion }: { completion: string }) => (completion === 'vg' ? score : 0);
      await assert.rejects(completionRewards({ space, texts, prompt: 'F', reward }), {
        name: 'RewardError',
        message: `completionRewards: expected a finite reward for every completion, received ${shown} for "vg".`,
      });
    }
  });
});

describe('expectedReward, klPolicyReference, completionEntropy', () => {
  const half = Float64Array.of(Math.log(0.5), Math.log(0.25), Math.log(0.25), -Infinity);
  const ref = Float64Array.of(Math.log(0.125), Math.log(0.5), Math.log(0.125), Math.log(0.25));
  test('by hand', () => {
    expectClose(expectedReward(half, Float64Array.of(1, -2, 4, NaN)), 0.5 - 0.5 + 1);
    expectClose(klPolicyReference(half, ref), (0.5 * 2 - 0.25 + 0.25) * Math.log(2));
    expectClose(completionEntropy(half), 1.5 * Math.log(2));
  });
  test('a policy has no KL to itself, and some to another in either direction', () => {
    assert.equal(klPolicyReference(logprobs, logprobs), 0);
    const [there, back] = [
      klPolicyReference(logprobs, refLogprobs),
      klPolicyReference(refLogprobs, logprobs),
    ];
    assert.ok(there > 0.1 && back > 0.1 && Math.abs(there - back) > 1e-3, `${there}, ${back}`);
    assert.equal(klPolicyReference(ref, half), Infinity);
  });
  test('entropy and KL of a whole completion are those of its tokens, added up', () => {
    // By the chain rule, from the distributions of single tokens: what the first token says, then what the rest says given it.
    const one = spaceOf(1);
    const two = spaceOf(2);
    const first = completionLogprobs(model, PROMPT, one);
    const firstRef = completionLogprobs(other, PROMPT, one);
    let [entropy, kl] = [completionEntropy(first), klPolicyReference(first, firstRef)];
    one.continuations.forEach((id, place) => {
      const p = Math.exp(first[1 + place] ?? NaN);
      const next = completionLogprobs(model, [...PROMPT, id], one);
      entropy += p * completionEntropy(next);
      kl += p * klPolicyReference(next, completionLogprobs(other, [...PROMPT, id], one));
    });
    const whole = completionLogprobs(model, PROMPT, two);
    expectClose(completionEntropy(whole), entropy, { rtol: 1e-12 });
    expectClose(klPolicyReference(whole, completionLogprobs(other, PROMPT, two)), kl, {
      rtol: 1e-12,
    });
  });
});
