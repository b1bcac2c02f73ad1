/** A value head on the policy's own trunk: values and their gradient beside those of the log-probabilities. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import type { Linear } from '../nn/index.js';
import { memory, noGrad, tensor, type Dtype, type Tensor } from '../torch/index.js';
import {
  backwardTokenLogprobs,
  createModel,
  createScalarHead,
  makeDecoderConfig,
  tokenLogprobs,
  type Decoder,
  type TokenLogprobs,
  type TokenLogprobsInput,
} from './index.js';

const config = makeDecoderConfig({
  vocabSize: 31,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 2,
  numHeads: 4,
  numKeyValueHeads: 2,
  initializerRange: 0.3,
});

interface Parts {
  readonly model: Decoder;
  readonly valueHead: Linear;
}

function partsOf(dtype: Dtype = 'float64'): Parts {
  const model = createModel(config, { seed: 3, dtype });
  return { model, valueHead: createScalarHead(model, { seed: 9, std: 0.5 }) };
}

const PAD = 30;
const rows = [
  [5, 9, 2, 7, 1, 4, 12],
  [8, 3, 11, 6, PAD, PAD, PAD],
  [10, 14, 13, PAD, PAD, PAD, PAD],
];
const promptLengths = [3, 1, 3];
const lengths = [7, 4, 3];
const ids = (values: number[][]): Tensor => tensor(values, { dtype: 'int64' });
const input = { inputIds: ids(rows), promptLengths, lengths, temperature: 0.7 };

const RETURNS = [
  [1, -2, 3, 0.5],
  [2, 1, -1, 1e4],
  [1e4, 1e4, 1e4, 1e4],
];

type Loss = (scored: TokenLogprobs) => { loss: Tensor };

const valueLoss: Loss = ({ values, mask }) => {
  assert.ok(values);
  const returns = tensor(RETURNS).to(values.dtype);
  return { loss: values.sub(returns).mul(mask).square().sum() };
};
const policyLoss: Loss = ({ logprobs, entropy }) => {
  const loss = logprobs.exp().mul(tensor(RETURNS).to(logprobs.dtype).clamp(-3, 3)).sum();
  return { loss: entropy ? loss.sub(entropy.square().sum().mul(0.1)) : loss };
};
const bothLosses: Loss = (scored) => ({
  loss: policyLoss(scored).loss.add(valueLoss(scored).loss.mul(0.5)),
});

function takeGradients({ model, valueHead }: Parts): (Tensor | null)[] {
  return [...model.parameters(), valueHead.weight].map((parameter) => {
    const copy = parameter.grad?.clone() ?? null;
    parameter.grad = null;
    return copy;
  });
}

function expectSame(actual: (Tensor | null)[], expected: (Tensor | null)[], factor = 1): void {
  actual.forEach((gradient, index) => {
    const wanted = expected[index] ?? null;
    assert.equal(gradient === null, wanted === null, `parameter ${index}`);
    if (gradient && wanted) expectClose(gradient, wanted.mul(factor), { rtol: 1e-9, atol: 1e-11 });
  });
}

/** Plain autograd: values from the whole model's states, token by token, beside the plain log-probabilities. */
function plainly({ model, valueHead }: Parts, settings: TokenLogprobsInput, loss: Loss): Tensor {
  const states = model.hiddenStates({ inputIds: settings.inputIds });
  const all = states.matmul(valueHead.weight.transpose(0, 1)).squeeze(-1); // [B, L]
  // Row 0 begins at 2, row 1 at 0, each before its first completion token; the mask removes the rest.
  const { logprobs, entropy, mask } = tokenLogprobs(model, settings);
  const index = ids([
    [2, 3, 4, 5],
    [0, 1, 2, 3],
    [2, 3, 4, 5],
  ]);
  const values = all.gather(1, index).mul(mask);
  return loss({ logprobs, mask, values, ...(entropy && { entropy }) }).loss;
}

describe('tokenLogprobs with a value head', () => {
  test('values come from the states that score the tokens, log-probabilities stay what they were', () => {
    const parts = partsOf();
    const { model, valueHead } = parts;
    const { values, logprobs } = tokenLogprobs(model, { ...input, valueHead });
    assert.ok(values && logprobs.equal(tokenLogprobs(model, input).logprobs));
    plainly(parts, input, (scored) => {
      expectClose(values, scored.values ?? [], { rtol: 1e-11, atol: 1e-13 });
      return { loss: scored.logprobs.sum() };
    });
    assert.deepEqual((values.toArray() as number[][])[2], [0, 0, 0, 0]);
    assert.ok(!('values' in tokenLogprobs(model, input)));
  });
  test('chunks without a record give the same values', () => {
    const { model, valueHead } = partsOf();
    const { values } = tokenLogprobs(model, { ...input, valueHead });
    assert.ok(values);
    const chunked = noGrad(() => tokenLogprobs(model, { ...input, valueHead, chunkTokens: 2 }));
    assert.ok(chunked.values?.equal(values));
  });
  test('what stands in padding changes no value and no gradient', () => {
    const parts = partsOf();
    const { model, valueHead } = parts;
    const junk = ids(rows.map((row) => row.map((id) => (id === PAD ? 17 : id))));
    const settings = { ...input, valueHead, chunkTokens: 3 };
    const clean = backwardTokenLogprobs(model, settings, bothLosses);
    const expected = takeGradients(parts);
    const dirty = backwardTokenLogprobs(model, { ...settings, inputIds: junk }, bothLosses);
    assert.ok(dirty.loss.equal(clean.loss));
    takeGradients(parts).forEach((gradient, index) => {
      assert.ok(gradient && expected[index]?.equal(gradient));
    });
  });
  test('a bfloat16 policy has float32 values', () => {
    const { model, valueHead } = partsOf('bfloat16');
    assert.equal(tokenLogprobs(model, { ...input, valueHead }).values?.dtype, 'float32');
    const scored = { ...input, valueHead, chunkTokens: 2 };
    backwardTokenLogprobs(model, scored, bothLosses);
    assert.equal(valueHead.weight.grad?.dtype, 'bfloat16');
  });
  test('rejects a head of another width', () => {
    const { model } = partsOf();
    const valueHead = createScalarHead({
      config: { ...config, hiddenSize: 8 },
      dtype: 'float64',
      device: 'cpu',
    });
    assert.throws(() => tokenLogprobs(model, { ...input, valueHead }), {
      message: 'tokenLogprobs: expected a head with weight [1, 16], received [1, 8].',
    });
  });
});

describe('backwardTokenLogprobs with a value head', () => {
  const losses = { 'policy and value': bothLosses, 'value alone': valueLoss };
  for (const [name, loss] of Object.entries(losses))
    for (const withEntropy of [false, true])
      for (const chunkTokens of [1, 3, 7, 100])
        test(`${name}, ${withEntropy ? 'with' : 'without'} entropy: chunks of ${chunkTokens} give the gradient of plain autograd`, () => {
          const parts = partsOf();
          const settings = { ...input, withEntropy };
          const whole = plainly(parts, settings, loss);
          whole.backward();
          const expected = takeGradients(parts);
          const { model, valueHead } = parts;
          const scored = { ...settings, valueHead, chunkTokens };
          const result = backwardTokenLogprobs(model, scored, loss);
          expectClose(result.loss, whole, { rtol: 1e-12 });
          const output = parts.model.parameters().indexOf(model.outputWeight());
          assert.equal(expected[output] === null, loss === valueLoss);
          expectSame(takeGradients(parts), expected);
        });
  test('a loss that leaves the values out gives the gradient it gives without a head', () => {
    const parts = partsOf();
    const { model, valueHead } = parts;
    backwardTokenLogprobs(model, { ...input, chunkTokens: 2 }, policyLoss);
    const expected = takeGradients(parts);
    backwardTokenLogprobs(model, { ...input, valueHead, chunkTokens: 2 }, policyLoss);
    expectSame(takeGradients(parts), expected);
    assert.equal(expected.at(-1), null);
  });
  test('micro-batches add up', () => {
    const parts = partsOf();
    const { model, valueHead } = parts;
    const whole = backwardTokenLogprobs(model, { ...input, valueHead, chunkTokens: 3 }, bothLosses);
    const expected = takeGradients(parts);
    let sum = 0;
    rows.forEach((row, index) => {
      const [prompt = 0, length = 0] = [promptLengths[index], lengths[index]];
      const part: Loss = ({ logprobs, values, mask }) => {
        assert.ok(values);
        const ofRow = tensor([(RETURNS[index] ?? []).slice(0, length - prompt)]).to('float64');
        const policy = logprobs.exp().mul(ofRow.clamp(-3, 3)).sum();
        return { loss: policy.add(values.sub(ofRow).mul(mask).square().sum().mul(0.5)) };
      };
      if (length === prompt) return;
      const microBatch = {
        ...input,
        inputIds: ids([row]),
        promptLengths: [prompt],
        lengths: [length],
        valueHead,
        chunkTokens: 2,
      };
      sum += backwardTokenLogprobs(model, microBatch, part).loss.item();
    });
    // Places without a token, one in row 1 and four in row 2, add a constant to the whole: exp(0) times the weight 3.
    const padded = 5 * 3;
    expectClose(sum + padded, whole.loss.item(), { rtol: 1e-9 });
    expectSame(takeGradients(parts), expected);
  });
  test('two passes double the gradient, inside noGrad too', () => {
    const parts = partsOf();
    const { model, valueHead } = parts;
    const settings = { ...input, valueHead, chunkTokens: 2 };
    backwardTokenLogprobs(model, settings, bothLosses);
    const once = takeGradients(parts);
    noGrad(() => {
      backwardTokenLogprobs(model, settings, bothLosses);
      backwardTokenLogprobs(model, settings, bothLosses);
    });
    expectSame(takeGradients(parts), once, 2);
  });
  for (const chunkTokens of [2, 100]) {
    test(`a frozen policy lets its head learn, in chunks of ${chunkTokens}`, () => {
      const parts = partsOf();
      const { model, valueHead } = parts;
      plainly(parts, input, valueLoss).backward();
      const expected = takeGradients(parts).at(-1);
      model.freeze();
      backwardTokenLogprobs(model, { ...input, valueHead, chunkTokens }, valueLoss);
      const [ofHead, ...others] = takeGradients(parts).reverse();
      assert.ok(ofHead && expected);
      expectClose(ofHead, expected, { rtol: 1e-9 });
      assert.ok(others.every((gradient) => gradient === null));
    });
    test(`a frozen head passes its gradient on and has none, in chunks of ${chunkTokens}`, () => {
      const parts = partsOf();
      const { model, valueHead } = parts;
      plainly(parts, input, bothLosses).backward();
      const expected = takeGradients(parts).slice(0, -1);
      valueHead.freeze();
      backwardTokenLogprobs(model, { ...input, valueHead, chunkTokens }, bothLosses);
      assert.equal(valueHead.weight.grad, null);
      expectSame(takeGradients(parts).slice(0, -1), expected);
    });
    test(`leaves the gradients and the result, and nothing else, in chunks of ${chunkTokens}`, () => {
      const { model, valueHead } = partsOf();
      const before = memory().liveTensors;
      const settings = { ...input, valueHead, chunkTokens };
      backwardTokenLogprobs(model, settings, bothLosses).loss.dispose();
      assert.equal(memory().liveTensors, before);
    });
  }
});
