import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { memory, noGrad, tensor, tidy, type Dtype, type Tensor } from '../torch/index.js';
import {
  backwardTokenLogprobs,
  createModel,
  makeDecoderConfig,
  tokenLogprobs,
  type Decoder,
  type TokenLogprobs,
  type TokenSupport,
} from './index.js';

const V = 13;
const config = makeDecoderConfig({
  vocabSize: V,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 1,
  numHeads: 4,
  numKeyValueHeads: 2,
  initializerRange: 0.3,
});
const modelOf = (dtype: Dtype = 'float64'): Decoder => createModel(config, { seed: 3, dtype });

const PAD = 12;
const rows = [
  [5, 9, 2, 7, 1, 4],
  [8, 3, 11, PAD, PAD, PAD],
  [10, 6, 0, 2, PAD, PAD],
];
const promptLengths = [3, 1, 2];
const lengths = [6, 3, 4];
const ids = (values: number[][]): Tensor => tensor(values, { dtype: 'int64' });
const input = { inputIds: ids(rows), promptLengths, lengths };

// One token, several, the first and the last id of the vocabulary, all of it by null, a whole row by undefined.
const supports: (TokenSupport[] | undefined)[] = [
  [Int32Array.of(0, 7, 12), Int32Array.of(1), null],
  undefined,
  [Int32Array.of(0, 1, 2, 3), Int32Array.of(2, 12)],
];
const TEMPERATURE = 0.7;
const supported = { ...input, supports, temperature: TEMPERATURE, withEntropy: true };

interface Site {
  readonly row: number;
  readonly t: number;
  readonly token: number;
  readonly inside: readonly number[];
}

const sites: readonly Site[] = rows.flatMap((tokens, row) => {
  const prompt = promptLengths[row] ?? 0;
  return Array.from({ length: (lengths[row] ?? 0) - prompt }, (_, t) => ({
    row,
    t,
    token: tokens[prompt + t] ?? 0,
    inside: [...(supports[row]?.[t] ?? Array.from({ length: V }, (_unused, id) => id))],
  }));
});

/** Per site, the hidden state before the token and p = softmax over the support, written out in plain numbers. */
function byHand(
  model: Decoder,
): { state: number[]; p: number[]; logprob: number; entropy: number }[] {
  const weight = model.outputWeight().toArray() as number[][];
  const states = noGrad(() =>
    tidy(() => model.hiddenStates({ inputIds: input.inputIds }).toArray()),
  ) as number[][][];
  return sites.map(({ row, t, token, inside }) => {
    const state = states[row]?.[(promptLengths[row] ?? 0) + t - 1] ?? [];
    const exps = weight.map((column, id) =>
      inside.includes(id)
        ? Math.exp(column.reduce((sum, w, d) => sum + w * (state[d] ?? 0), 0) / TEMPERATURE)
        : 0,
    );
    const total = exps.reduce((sum, value) => sum + value, 0);
    const p = exps.map((value) => value / total);
    const entropy = -inside.reduce((sum, id) => sum + (p[id] ?? 0) * Math.log(p[id] ?? 1), 0);
    return { state, p, logprob: Math.log(p[token] ?? 0), entropy };
  });
}

const spread = (values: readonly number[]): number[][] => {
  const out = rows.map(() => [0, 0, 0]);
  sites.forEach(({ row, t }, index) => {
    const line = out[row];
    if (line) line[t] = values[index] ?? NaN;
  });
  return out;
};

const WEIGHTS = [
  [1, -2, 3],
  [0.5, 4, 9],
  [-1, 2.5, 9],
];
const ENTROPY_WEIGHT = 0.6;

function objective({ logprobs, entropy }: TokenLogprobs): { loss: Tensor } {
  const weights = tensor(WEIGHTS).to(logprobs.dtype);
  const loss = logprobs.mul(weights).sum();
  return { loss: entropy ? loss.add(entropy.mul(weights).sum().mul(ENTROPY_WEIGHT)) : loss };
}

function takeGradients(model: Decoder): Tensor[] {
  return model.parameters().map((parameter) => {
    assert.ok(parameter.grad);
    const copy = parameter.grad.clone();
    parameter.grad = null;
    return copy;
  });
}

describe('tokenLogprobs with supports', () => {
  test('is the softmax over the support, and so is the entropy', () => {
    const model = modelOf();
    const expected = byHand(model);
    const actual = tokenLogprobs(model, supported);
    const logprobs = spread(expected.map(({ logprob }) => logprob));
    expectClose(actual.logprobs, logprobs, { rtol: 1e-12, atol: 1e-13 });
    assert.ok(actual.entropy);
    const entropy = spread(expected.map((site) => site.entropy));
    expectClose(actual.entropy, entropy, { rtol: 1e-12, atol: 1e-13 });
  });
  test('a support of one token gives log-probability and entropy 0', () => {
    const { logprobs, entropy } = tokenLogprobs(modelOf('float32'), supported);
    assert.ok(entropy);
    for (const values of [logprobs, entropy])
      assert.equal(values.abs().select(0, 0).select(0, 1).item(), 0);
  });
  test('the gradient of the output layer is the one written out', () => {
    // d/dz_v Σ w (log p_y + c·H) = w·(1[v = y] − p_v − c·p_v (log p_v + H)) / τ inside the support, 0 outside.
    const model = modelOf();
    const gradient = Array.from({ length: V }, () => Array<number>(config.hiddenSize).fill(0));
    byHand(model).forEach(({ state, p, entropy }, index) => {
      const { row, t, token, inside } = sites[index] ?? { row: 0, t: 0, token: 0, inside: [] };
      for (const id of inside) {
        const probability = p[id] ?? 0;
        const ofEntropy = -probability * (Math.log(probability) + entropy);
        const ofLogit =
          ((WEIGHTS[row]?.[t] ?? NaN) *
            ((id === token ? 1 : 0) - probability + ENTROPY_WEIGHT * ofEntropy)) /
          TEMPERATURE;
        gradient[id]?.forEach((value, d, line) => (line[d] = value + ofLogit * (state[d] ?? 0)));
      }
    });
    objective(tokenLogprobs(model, supported)).loss.backward();
    assert.ok(model.outputWeight().grad);
    expectClose(model.outputWeight().grad ?? [], gradient, { rtol: 1e-10, atol: 1e-12 });
  });
  test('the gradient of everything below agrees with finite differences', () => {
    const model = modelOf();
    const loss = (): Tensor => objective(tokenLogprobs(model, supported)).loss;
    loss().backward();
    const step = 1e-5;
    for (const [name, parameter] of model.namedParameters()) {
      const middle = Math.floor(parameter.numel / 2);
      const element = parameter.detach().view([-1]).narrow(0, middle, 1);
      const analytic = parameter.grad?.flatten().narrow(0, middle, 1).item();
      const difference = noGrad(() =>
        tidy(() => {
          element.add_(step);
          const above = loss().item();
          element.add_(-2 * step);
          const below = loss().item();
          element.add_(step);
          return (above - below) / (2 * step);
        }),
      );
      assert.ok(analytic !== undefined, name);
      expectClose(difference, analytic, { rtol: 1e-5, atol: 1e-8 });
    }
  });
  test('chunks give the same values', () => {
    const model = modelOf();
    const whole = tokenLogprobs(model, supported);
    for (const chunkTokens of [1, 2, 3, 100]) {
      const chunked = noGrad(() => tokenLogprobs(model, { ...supported, chunkTokens }));
      expectClose(chunked.logprobs, whole.logprobs, { rtol: 1e-13 });
      assert.ok(chunked.entropy && whole.entropy);
      expectClose(chunked.entropy, whole.entropy, { rtol: 1e-13 });
    }
  });
  for (const withEntropy of [false, true])
    for (const chunkTokens of [1, 2, 5, 100])
      test(`chunks of ${chunkTokens} ${withEntropy ? 'with' : 'without'} entropy give the gradient of the whole`, () => {
        const model = modelOf();
        const settings = { ...supported, withEntropy };
        const whole = objective(tokenLogprobs(model, settings));
        whole.loss.backward();
        const expected = takeGradients(model);
        const result = backwardTokenLogprobs(model, { ...settings, chunkTokens }, objective);
        expectClose(result.loss, whole.loss, { rtol: 1e-12 });
        takeGradients(model).forEach((gradient, index) => {
          expectClose(gradient, expected[index] ?? [], { rtol: 1e-9, atol: 1e-12 });
        });
      });
  test('null everywhere, undefined everywhere and every id are the whole vocabulary', () => {
    const model = modelOf();
    const { logprobs, entropy } = tokenLogprobs(model, { ...supported, supports: undefined });
    assert.ok(entropy);
    const all = Int32Array.from({ length: V }, (_, id) => id);
    for (const entry of [null, all]) {
      const everywhere = supports.map((_, row) =>
        Array<TokenSupport>((lengths[row] ?? 0) - (promptLengths[row] ?? 0)).fill(entry),
      );
      const actual = tokenLogprobs(model, { ...supported, supports: everywhere });
      assert.ok(actual.logprobs.equal(logprobs));
      assert.ok(actual.entropy?.equal(entropy));
    }
    const actual = tokenLogprobs(model, { ...supported, supports: rows.map(() => undefined) });
    assert.ok(actual.logprobs.equal(logprobs));
  });
  test('padding, what stands in it, and the order of rows change nothing', () => {
    const model = modelOf();
    const wider = rows.map((row) => [...row.map((id) => (id === PAD ? 4 : id)), 1, 1]).reverse();
    const actual = tokenLogprobs(model, {
      ...supported,
      inputIds: ids(wider),
      promptLengths: promptLengths.toReversed(),
      lengths: lengths.toReversed(),
      supports: supports.toReversed(),
    });
    const expected = tokenLogprobs(model, supported);
    expectClose(actual.logprobs.flip(0), expected.logprobs, { rtol: 1e-12 });
    assert.ok(actual.entropy && expected.entropy);
    expectClose(actual.entropy.flip(0), expected.entropy, { rtol: 1e-12 });
  });
  test('the support of a token does not depend on the order of its ids', () => {
    const model = modelOf();
    const shuffled = supports.map((row) => row?.map((entry) => entry?.toReversed() ?? null));
    const actual = tokenLogprobs(model, { ...supported, supports: shuffled });
    assert.ok(actual.logprobs.equal(tokenLogprobs(model, supported).logprobs));
  });
  test('logits far apart stay finite inside and outside, forward and backward', () => {
    const model = modelOf('float32');
    noGrad(() => model.outputWeight().mul_(1000));
    const { logprobs, entropy } = tokenLogprobs(model, supported);
    assert.ok(logprobs.isfinite().all().item());
    assert.ok(entropy);
    assert.ok(entropy.isfinite().all().item());
    logprobs.sum().add(entropy.sum()).backward();
    for (const [name, { grad }] of model.namedParameters())
      assert.ok(grad?.isfinite().all().item(), name);
  });
  test('a bfloat16 model is scored in float32', () => {
    const { logprobs } = tokenLogprobs(modelOf('bfloat16'), supported);
    assert.equal(logprobs.dtype, 'float32');
  });
  test('leaves no tensor behind', () => {
    const model = modelOf();
    const before = memory().liveTensors;
    noGrad(() => tidy(() => void tokenLogprobs(model, supported)));
    tidy(() => objective(tokenLogprobs(model, supported)).loss.backward());
    tidy(() => void backwardTokenLogprobs(model, { ...supported, chunkTokens: 2 }, objective));
    for (const parameter of model.parameters()) parameter.grad = null;
    assert.equal(memory().liveTensors, before);
  });
  test('refuses supports that do not fit', () => {
    const model = modelOf();
    const refused = (changed: (TokenSupport[] | undefined)[], message: string): void => {
      assert.throws(() => tokenLogprobs(model, { ...input, supports: changed }), { message });
    };
    refused([undefined], 'tokenLogprobs: expected supports for 3 rows, received 1.');
    refused(
      [undefined, [null], undefined],
      'tokenLogprobs: expected supports[1] to have 2 entries, one per token of the completion, received 1.',
    );
    refused(
      [undefined, undefined, [null, null, null]],
      'tokenLogprobs: expected supports[2] to have 2 entries, one per token of the completion, received 3.',
    );
    refused(
      [undefined, undefined, [null, Int32Array.of(0, 1)]],
      'tokenLogprobs: expected supports[2][1] to hold the token 2 that was drawn, it holds 2 others.',
    );
    refused(
      [undefined, [Int32Array.of(), null], undefined],
      'tokenLogprobs: expected supports[1][0] to hold the token 3 that was drawn, it holds 0 others.',
    );
    for (const wrong of [13, -1])
      refused(
        [undefined, [Int32Array.of(3, wrong), null], undefined],
        `tokenLogprobs: expected ids from 0 to 12 in supports[1][0], received ${wrong}.`,
      );
  });
});
