/** Truncated sampling that can be trained on: the supports that the sampler stores make its log-probabilities the trainer's. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createModel, makeDecoderConfig, tokenLogprobs, type Decoder } from '../models/index.js';
import { memory, noGrad, tensor, tidy } from '../torch/index.js';
import { drawTokens } from './drawTokens.js';
import { sample, type SampledCompletion } from './sample.js';
import { resolveSampling, type SamplingSettings } from './settings.js';

const VOCABULARY = 24;
const PROMPTS = [[5], [6, 7, 8, 9, 10], [11, 12, 13]];

function policyOf(): Decoder {
  const config = makeDecoderConfig({
    vocabSize: VOCABULARY,
    hiddenSize: 32,
    intermediateSize: 48,
    numLayers: 2,
    numHeads: 4,
    maxPositionEmbeddings: 64,
    initializerRange: 0.2,
    eosTokenId: [3, 4],
  });
  return createModel(config, { seed: 1 });
}

/** log-probabilities of the trainer per completion, with and without the stored supports. */
function trained(
  model: Decoder,
  rows: readonly SampledCompletion[],
  temperature: number,
  withSupports: boolean,
): number[][] {
  const prompts = rows.map((row) => PROMPTS[row.promptIndex] ?? []);
  const texts = rows.map((row, index) => [...(prompts[index] ?? []), ...row.tokenIds]);
  const longest = Math.max(...texts.map((ids) => ids.length));
  const padded = texts.map((ids) => [...ids, ...Array<number>(longest - ids.length).fill(0)]);
  const values = noGrad(() =>
    tidy(() =>
      tokenLogprobs(model, {
        inputIds: tensor(padded, { dtype: 'int64' }),
        promptLengths: prompts.map((ids) => ids.length),
        lengths: texts.map((ids) => ids.length),
        temperature,
        chunkTokens: 64,
        ...(withSupports && { supports: rows.map((row) => row.supports) }),
      }).logprobs.toArray(),
    ),
  ) as number[][];
  return rows.map((row, index) => (values[index] ?? []).slice(0, row.tokenIds.length));
}

const TRUNCATIONS: Record<string, SamplingSettings> = {
  'top-p 0.8': { topP: 0.8 },
  'top-k 3': { topK: 3 },
  'min-p 0.2': { minP: 0.2 },
  'top-k 6, top-p 0.9 and min-p 0.05 together': { topK: 6, topP: 0.9, minP: 0.05 },
};

describe('sample with keepSupport', () => {
  for (const [name, settings] of Object.entries(TRUNCATIONS))
    for (const temperature of [1, 0.7, 1.4])
      test(`${name} at temperature ${temperature}: every ratio is 1 within 1e-5`, async () => {
        const model = policyOf();
        const rows = await sample({
          model,
          promptIds: PROMPTS,
          numCompletions: 8,
          maxNewTokens: 12,
          seed: 5,
          temperature,
          keepSupport: true,
          ...settings,
        });
        const lengths = new Set(rows.map((row) => row.tokenIds.length));
        assert.ok(lengths.size > 3, 'rows must leave the batch early for this to test anything');
        const logprobs = trained(model, rows, temperature, true);
        rows.forEach((row, index) => {
          assert.equal(row.supports?.length, row.tokenIds.length);
          row.logprobs.forEach((value, t) => {
            const difference = Math.abs(value - (logprobs[index]?.[t] ?? NaN));
            assert.ok(difference <= 1e-5, `row ${index}, token ${t}: ${difference}`);
          });
        });
      });

  test('without the supports the ratio of a token is the mass that was kept, 0.9 in the mean at top-p 0.8', async () => {
    const model = policyOf();
    const rows = await sample({
      model,
      promptIds: PROMPTS,
      numCompletions: 20,
      maxNewTokens: 12,
      topP: 0.8,
      keepSupport: true,
    });
    const plain = trained(model, rows, 1, false);
    const ratios = rows.flatMap((row, index) =>
      row.logprobs.map((value, t) => Math.exp((plain[index]?.[t] ?? NaN) - value)),
    );
    // The kept mass by the whole distribution, independently of any log-probability of a token that was drawn.
    const kept = rows.flatMap((row) => {
      const prompt = PROMPTS[row.promptIndex] ?? [];
      const inputIds = tensor([[...prompt, ...row.tokenIds]], { dtype: 'int64' });
      const distributions = noGrad(() =>
        tidy(() => model.forward({ inputIds }).logits.select(0, 0).softmax(-1).toArray()),
      ) as number[][];
      return (row.supports ?? []).map((ids, t) =>
        ids.reduce((sum, id) => sum + (distributions[prompt.length - 1 + t]?.[id] ?? NaN), 0),
      );
    });
    assert.equal(ratios.length, kept.length);
    ratios.forEach((ratio, index) => assert.ok(Math.abs(ratio - (kept[index] ?? NaN)) < 1e-5));
    for (const mass of kept) assert.ok(mass >= 0.8 - 1e-6 && mass <= 1 + 1e-6, String(mass));
    const mean = ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length;
    assert.ok(mean > 0.8 && mean < 0.95, String(mean));
  });

  test('keeping supports changes nothing that is drawn', async () => {
    const common = { model: policyOf(), promptIds: PROMPTS, maxNewTokens: 12, topP: 0.8 };
    const plain = await sample(common);
    const kept = await sample({ ...common, keepSupport: true });
    kept.forEach(({ supports, ...row }, index) => {
      assert.ok(supports);
      assert.deepEqual(row, plain[index]);
    });
  });

  test('there are none where nobody asked and where nothing is truncated', async () => {
    const common = { model: policyOf(), promptIds: PROMPTS, maxNewTokens: 3 };
    for (const options of [
      { topP: 0.8 },
      { keepSupport: true },
      { keepSupport: true, topK: VOCABULARY },
      { keepSupport: true, topP: 0.8, temperature: 0 },
    ])
      for (const row of await sample({ ...common, ...options })) assert.ok(!('supports' in row));
  });

  test('leaves no tensor behind', async () => {
    const model = policyOf();
    const before = memory().liveTensors;
    const promptIds = PROMPTS;
    await sample({ model, promptIds, maxNewTokens: 8, topK: 3, keepSupport: true });
    assert.equal(memory().liveTensors, before);
  });
});

describe('drawTokens with keepSupport', () => {
  const logits = tensor(
    [
      [0.1, 0.4, 0.2, 0.3],
      [0.97, 0.01, 0.01, 0.01],
    ].map((row) => row.map(Math.log)),
  );
  const supportsOf = (settings: SamplingSettings): number[][] | undefined =>
    drawTokens(logits, [0.5, 0.5], resolveSampling(settings), {
      keepSupport: true,
    }).supports?.map((ids) => [...ids]);

  test('by hand: ids ascending, rows of different size', () => {
    assert.deepEqual(supportsOf({ topP: 0.65 }), [[1, 3], [0]]);
    assert.deepEqual(supportsOf({ minP: 0.5 }), [[1, 2, 3], [0]]);
    // Three tokens are tied with the last of the two most likely ones and stay, as in the drawing.
    assert.deepEqual(supportsOf({ topK: 2 }), [
      [1, 3],
      [0, 1, 2, 3],
    ]);
    // Temperature 2 takes square roots: .1 is then half as likely as .4, and .1 is as .01 to .97.
    assert.deepEqual(supportsOf({ minP: 0.1, temperature: 2 }), [
      [0, 1, 2, 3],
      [0, 1, 2, 3],
    ]);
  });
  test('a token that has no probability to begin with is in no support', () => {
    const scores = tensor([[1, -Infinity, 0.5, 0]]);
    const settings = resolveSampling({ minP: 0.1 });
    const { supports } = drawTokens(scores, [0.5], settings, { keepSupport: true });
    assert.deepEqual(supports, [Int32Array.of(0, 2, 3)]);
  });
  test('none without a truncation, and none unless asked for', () => {
    assert.ok(!('supports' in drawTokens(logits, [0.5, 0.5], resolveSampling({ topP: 0.65 }))));
    assert.equal(supportsOf({}), undefined);
    assert.equal(supportsOf({ topK: 4 }), undefined);
    assert.equal(supportsOf({ topP: 0.65, temperature: 0 }), undefined);
  });
});
