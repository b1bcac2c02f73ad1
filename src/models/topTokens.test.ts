import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { noGrad, tensor, tidy } from '../torch/index.js';
import {
  backwardTokenLogprobs,
  createModel,
  makeDecoderConfig,
  tokenLogprobs,
  type Decoder,
  type TokenLogprobsInput,
} from './index.js';

const V = 13;
const model: Decoder = createModel(
  makeDecoderConfig({
    vocabSize: V,
    hiddenSize: 16,
    intermediateSize: 24,
    numLayers: 1,
    numHeads: 2,
    initializerRange: 0.3,
  }),
  { seed: 3, dtype: 'float64' },
);
const rows = [
  [5, 9, 2, 7, 1, 4],
  [8, 3, 11, 0, 0, 0],
  [10, 6, 0, 2, 0, 0],
];
const promptLengths = [3, 1, 2];
const lengths = [6, 3, 4];
const temperature = 0.7;
const input = {
  inputIds: tensor(rows, { dtype: 'int64' }),
  ...{ promptLengths, lengths, temperature },
};

/** All tokens of one place, most likely first, from the whole model's logits; of the ids that are allowed. */
function ranked(row: number, t: number, allowed: readonly number[]): [number, number][] {
  const ids = (rows[row] ?? []).slice(0, lengths[row]);
  const logits = tidy(() =>
    model.forward({ inputIds: tensor([ids], { dtype: 'int64' }) }).logits.toArray(),
  ) as number[][][];
  const scaled = (logits[0]?.[(promptLengths[row] ?? 0) + t - 1] ?? []).map(
    (logit) => logit / temperature,
  );
  const total = allowed.reduce((sum, id) => sum + Math.exp(scaled[id] ?? NaN), 0);
  return allowed
    .map((id): [number, number] => [id, (scaled[id] ?? NaN) - Math.log(total)])
    .sort((a, b) => b[1] - a[1]);
}

const everything = Array.from({ length: V }, (_, id) => id);
/** Rows 2 and 0 in this order: two and three tokens. */
const places = [
  [2, 0],
  [2, 1],
  [0, 0],
  [0, 1],
  [0, 2],
] as const;

function found(extra: Partial<TokenLogprobsInput>): { ids: number[][]; logprobs: number[][] } {
  return tidy(() => {
    const { topIds, topLogprobs } = noGrad(() => tokenLogprobs(model, { ...input, ...extra }));
    assert.ok(topIds && topLogprobs);
    return { ids: topIds.toArray() as number[][], logprobs: topLogprobs.toArray() as number[][] };
  });
}

describe('the most likely tokens', () => {
  test('are those of the distribution that scores the token, of the rows that were asked for, in their order', () => {
    for (const chunkTokens of [1, 2, 100]) {
      const { ids, logprobs } = found({ topTokens: { count: 4, rows: [2, 0] }, chunkTokens });
      const expected = places.map(([row, t]) => ranked(row, t, everything).slice(0, 4));
      assert.deepEqual(
        ids.map((each) => each.map(Number)),
        expected.map((each) => each.map(([id]) => id)),
      );
      expectClose(
        logprobs,
        expected.map((each) => each.map(([, logprob]) => logprob)),
        { atol: 1e-12 },
      );
    }
  });

  test('are all of a vocabulary that is smaller than k, and of no row none', () => {
    assert.equal(found({ topTokens: { count: 50, rows: [1] } }).ids[0]?.length, V);
    assert.deepEqual(found({ topTokens: { count: 3, rows: [] } }).ids, []);
  });

  test('are renormalised on the support that a token was drawn among', () => {
    const support = [0, 2, 7, 9];
    const supports = [[null, Int32Array.from(support.with(3, 1)), null], undefined, undefined];
    const { ids, logprobs } = found({ topTokens: { count: 6, rows: [0] }, supports });
    const expected = ranked(0, 1, [0, 2, 7, 1]);
    assert.deepEqual(
      ids[1]?.slice(0, 4).map(Number),
      expected.map(([id]) => id),
    );
    expectClose(
      logprobs[1]?.slice(0, 4) ?? [],
      expected.map(([, logprob]) => logprob),
      { atol: 1e-12 },
    );
    assert.deepEqual(logprobs[1]?.slice(4), [-Infinity, -Infinity]);
  });

  test('are there during a backward pass and change no gradient', () => {
    const gradientOf = (extra: Partial<TokenLogprobsInput>): number[] => {
      tidy(() =>
        backwardTokenLogprobs(model, { ...input, ...extra }, ({ logprobs, topLogprobs }) => {
          assert.notEqual(topLogprobs?.requiresGrad, true);
          return { loss: logprobs.mul(logprobs).sum() };
        }),
      );
      const [weight] = model.parameters();
      const gradient = Array.from(weight?.grad?.toTypedArray() ?? [], Number);
      for (const parameter of model.parameters()) parameter.grad = null;
      return gradient;
    };
    for (const chunkTokens of [2, 100]) {
      const plain = gradientOf({ chunkTokens });
      const withTop = gradientOf({ chunkTokens, topTokens: { count: 2, rows: [0, 1] } });
      assert.ok(plain.some((value) => value !== 0));
      assert.deepEqual(withTop, plain);
    }
  });

  test('of a row that is not there, or none at a place, are refused', () => {
    assert.throws(
      () => found({ topTokens: { count: 2, rows: [3] } }),
      /tokenLogprobs: expected topTokens\.rows from 0 to 2, received 3/,
    );
    assert.throws(() => found({ topTokens: { count: 0, rows: [0] } }), /topTokens\.count/);
  });
});
