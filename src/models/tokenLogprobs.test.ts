import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose, type Nested } from '../../test/expect.js';
import {
  hostMemory,
  memory,
  noGrad,
  releaseHostMemory,
  tensor,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import {
  backwardTokenLogprobs,
  createModel,
  makeDecoderConfig,
  tokenLogprobs,
  type Decoder,
  type TokenLogprobs,
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
const modelOf = (dtype: Dtype = 'float64'): Decoder => createModel(config, { seed: 3, dtype });

const PAD = 30;
// Prompt ⊕ completion of different lengths; row 2 has an empty completion.
const rows = [
  [5, 9, 2, 7, 1, 4, 12],
  [8, 3, 11, 6, PAD, PAD, PAD],
  [10, 14, 13, PAD, PAD, PAD, PAD],
];
const promptLengths = [3, 1, 3];
const lengths = [7, 4, 3];
const ids = (values: number[][]): Tensor => tensor(values, { dtype: 'int64' });
const input = { inputIds: ids(rows), promptLengths, lengths };

/** The definition, row by row and token by token, from the whole model's logits. */
function byHand(
  model: Decoder,
  temperature: number,
): { logprobs: number[][]; entropy: number[][] } {
  const logprobs: number[][] = [];
  const entropy: number[][] = [];
  rows.forEach((row, index) => {
    const [prompt, length] = [promptLengths[index] ?? 0, lengths[index] ?? 0];
    const logits = tidy(() =>
      model.forward({ inputIds: ids([row.slice(0, length)]) }).logits.toArray(),
    ) as number[][][];
    const scores = [0, 0, 0, 0];
    const spreads = [0, 0, 0, 0];
    for (let t = 0; prompt + t < length; t++) {
      const scaled = (logits[0]?.[prompt + t - 1] ?? []).map((logit) => logit / temperature);
      const total = scaled.reduce((sum, logit) => sum + Math.exp(logit), 0);
      const logs = scaled.map((logit) => logit - Math.log(total));
      scores[t] = logs[row[prompt + t] ?? 0] ?? NaN;
      spreads[t] = -logs.reduce((sum, log) => sum + Math.exp(log) * log, 0);
    }
    logprobs.push(scores);
    entropy.push(spreads);
  });
  return { logprobs, entropy };
}

describe('tokenLogprobs', () => {
  for (const temperature of [1, 0.7])
    test(`the logits before a token score it, at temperature ${temperature}`, () => {
      const model = modelOf();
      const expected = byHand(model, temperature);
      const actual = tokenLogprobs(model, { ...input, temperature, withEntropy: true });
      expectClose(actual.logprobs, expected.logprobs, { rtol: 1e-12, atol: 1e-13 });
      assert.ok(actual.entropy);
      expectClose(actual.entropy, expected.entropy, { rtol: 1e-12, atol: 1e-13 });
      assert.deepEqual(actual.mask.toArray(), [
        [1, 1, 1, 1],
        [1, 1, 1, 0],
        [0, 0, 0, 0],
      ]);
      model.dispose();
    });
  test('positions beyond a completion are exactly 0', () => {
    const { logprobs } = tokenLogprobs(modelOf('float32'), input);
    const values = logprobs.toArray() as number[][];
    assert.equal(values[1]?.[3], 0);
    assert.deepEqual(values[2], [0, 0, 0, 0]);
  });
  test('what stands at padding changes nothing', () => {
    const model = modelOf();
    const junk = rows.map((row) => row.map((id) => (id === PAD ? 17 : id)));
    const actual = tokenLogprobs(model, { ...input, inputIds: ids(junk) });
    assert.ok(actual.logprobs.equal(tokenLogprobs(model, input).logprobs));
  });
  test('neither do more padding and the row it stands in', () => {
    const model = modelOf();
    const wider = rows.map((row) => [...row, PAD, PAD]).reverse();
    const actual = tokenLogprobs(model, {
      inputIds: ids(wider),
      promptLengths: promptLengths.toReversed(),
      lengths: lengths.toReversed(),
    });
    expectClose(actual.logprobs.flip(0), tokenLogprobs(model, input).logprobs, { rtol: 1e-13 });
  });
  test('rows side by side in one line have the values and gradients that they have alone', () => {
    // Row 1 stands before row 0 in the first line, row 2 alone in the second one.
    const packed = {
      sequenceIds: ids([
        [2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1],
        [0, 5, 5, 5, 0, 0, 0, 0, 0, 0, 0],
      ]),
      places: [
        { line: 0, start: 4 },
        { line: 0, start: 0 },
        { line: 1, start: 1 },
      ],
    };
    const inputIds = ids([
      [8, 3, 11, 6, 5, 9, 2, 7, 1, 4, 12],
      [17, 10, 14, 13, 17, 17, 17, 17, 17, 17, 17],
    ]);
    const side = { inputIds, promptLengths, lengths, packed };
    const close = { rtol: 1e-11, atol: 1e-13 };
    for (const chunkTokens of [100, 2]) {
      const [alone, together] = [modelOf(), modelOf()];
      const scores: Nested[] = [];
      const lossOf = ({ logprobs }: TokenLogprobs): { loss: Tensor } => {
        scores.push(logprobs.detach().toArray());
        return { loss: logprobs.sin().sum() };
      };
      backwardTokenLogprobs(alone, { ...input, chunkTokens }, lossOf);
      backwardTokenLogprobs(together, { ...side, chunkTokens }, lossOf);
      expectClose(scores[1] ?? [], scores[0] ?? [], close);
      const expected = alone.namedParameters();
      for (const [name, { grad }] of together.namedParameters())
        expectClose(grad ?? [], expected.get(name)?.grad ?? [], close);
    }
  });
  test('places of packed rows that are not in the lines are refused', () => {
    const model = modelOf();
    const sequenceIds = ids([[1, 1, 1]]);
    const at = (line: number, start: number, rowLengths = [2]): (() => unknown) => {
      const packed = { sequenceIds, places: [{ line, start }] };
      const inputIds = ids([[1, 2, 3]]);
      return () =>
        tokenLogprobs(model, { inputIds, promptLengths: [1], lengths: rowLengths, packed });
    };
    for (const [line, start] of [
      [1, 0],
      [0, 3],
      [-1, 0],
      [0, -1],
      [0, 0.5],
    ] as const) {
      assert.throws(at(line, start), {
        message: `tokenLogprobs: expected packed.places[0] in 1 lines of 3 tokens, received line ${line}, start ${start}.`,
      });
    }
    assert.throws(at(0, 2), {
      message: 'tokenLogprobs: expected 1 ≤ promptLengths[0] ≤ lengths[0] ≤ 1, received 1 and 2.',
    });
    assert.throws(at(0, 0, [2, 2]), {
      message:
        'tokenLogprobs: expected 1 promptLengths and lengths, one per packed row, received 1 and 2.',
    });
  });
  test('chunks give the same values, entropy included', () => {
    const model = modelOf();
    const whole = tokenLogprobs(model, { ...input, withEntropy: true });
    for (const chunkTokens of [1, 2, 5, 100]) {
      const chunked = noGrad(() =>
        tokenLogprobs(model, { ...input, withEntropy: true, chunkTokens }),
      );
      expectClose(chunked.logprobs, whole.logprobs, { rtol: 1e-13 });
      assert.ok(chunked.entropy && whole.entropy);
      expectClose(chunked.entropy, whole.entropy, { rtol: 1e-13 });
    }
  });
  test('the gradient of a sum is that of the sum by hand', () => {
    const model = modelOf();
    const weight = model.outputWeight();
    tokenLogprobs(model, { ...input, temperature: 0.7 })
      .logprobs.sum()
      .backward();
    const actual = weight.grad?.clone();
    weight.grad = null;
    for (const [row, tokens] of rows.entries()) {
      const [prompt = 0, length = 0] = [promptLengths[row], lengths[row]];
      for (let position = prompt; position < length; position++)
        model
          .forward({ inputIds: ids([tokens.slice(0, position)]) })
          .logits.select(1, -1)
          .div(0.7)
          .logSoftmax(-1)
          .select(1, tokens[position] ?? 0)
          .sum()
          .backward();
    }
    assert.ok(actual && weight.grad);
    expectClose(actual, weight.grad, { rtol: 1e-9, atol: 1e-12 });
  });
  test('logits of a bfloat16 model stand once, in bfloat16', () => {
    const [vocabSize, tokens] = [8192, 255];
    const model = createModel({ ...config, vocabSize }, { seed: 3, dtype: 'bfloat16' });
    const wide = {
      inputIds: zeros([1, tokens + 1], { dtype: 'int64' }),
      promptLengths: [1],
      lengths: [tokens + 1],
    };
    for (const compute of [
      () => noGrad(() => tidy(() => void tokenLogprobs(model, wide))),
      () => {
        const topTokens = { count: 3, rows: [0] };
        noGrad(() => tidy(() => void tokenLogprobs(model, { ...wide, topTokens })));
      },
      () =>
        tidy(() => {
          backwardTokenLogprobs(model, wide, ({ logprobs }) => ({ loss: logprobs.sum() }));
        }),
    ]) {
      releaseHostMemory();
      const before = hostMemory().bytesInUse;
      compute();
      const most = hostMemory().mostBytesInUse - before;
      assert.ok(most < 1.5 * 2 * tokens * vocabSize, `${most} bytes`);
    }
    model.dispose();
  });
  test('a bfloat16 model is scored in float32', () => {
    const { logprobs } = tokenLogprobs(modelOf('bfloat16'), input);
    assert.equal(logprobs.dtype, 'float32');
    const values = logprobs.toTypedArray();
    assert.ok(
      values.some((value) => Math.abs(value - Math.fround(Math.round(value * 256) / 256)) > 0),
    );
  });
  test('no completion at all gives [B, 0]', () => {
    const { logprobs } = tokenLogprobs(modelOf(), { ...input, lengths: promptLengths });
    assert.deepEqual(logprobs.shape, [3, 0]);
  });
  test('leaves no tensor behind', () => {
    const model = modelOf();
    const before = memory().liveTensors;
    noGrad(() => tidy(() => void tokenLogprobs(model, { ...input, withEntropy: true })));
    tidy(() => tokenLogprobs(model, input).logprobs.sum().backward());
    assert.equal(memory().liveTensors, before);
  });
  test('refuses lengths that do not fit', () => {
    const model = modelOf();
    assert.throws(() => tokenLogprobs(model, { ...input, promptLengths: [3, 1] }), {
      message:
        'tokenLogprobs: expected 3 promptLengths and lengths, one per row of inputIds, received 2 and 3.',
    });
    assert.throws(() => tokenLogprobs(model, { ...input, promptLengths: [3, 0, 3] }), {
      message: 'tokenLogprobs: expected 1 ≤ promptLengths[1] ≤ lengths[1] ≤ 7, received 0 and 4.',
    });
    assert.throws(() => tokenLogprobs(model, { ...input, lengths: [8, 4, 3] }), {
      message: 'tokenLogprobs: expected 1 ≤ promptLengths[0] ≤ lengths[0] ≤ 7, received 3 and 8.',
    });
    assert.throws(() => tokenLogprobs(model, { ...input, temperature: 0 }), {
      message: 'tokenLogprobs: expected temperature to be a positive number, received 0.',
    });
  });
});

describe('backwardTokenLogprobs', () => {
  /** Not linear, different for every token, and with a statistic beside the loss. */
  const objective = ({
    logprobs,
    entropy,
    mask,
  }: TokenLogprobs): { loss: Tensor; count: Tensor } => {
    const weights = tensor([
      [1, -2, 3, 0.5],
      [2, 1, -1, 7],
      [5, 5, 5, 5],
    ]).to(logprobs.dtype);
    const loss = logprobs.mul(weights).exp().mul(mask).sum();
    return {
      loss: entropy ? loss.sub(entropy.square().sum().mul(0.1)) : loss,
      count: mask.sum(),
    };
  };

  function gradientsOf(model: Decoder): Tensor[] {
    return model.parameters().map((parameter) => {
      assert.ok(parameter.grad);
      const copy = parameter.grad.clone();
      parameter.grad = null;
      return copy;
    });
  }

  for (const withEntropy of [false, true])
    for (const chunkTokens of [1, 3, 7, 100])
      test(`chunks of ${chunkTokens} ${withEntropy ? 'with' : 'without'} entropy give the gradient of the whole`, () => {
        const model = modelOf();
        const settings = { ...input, temperature: 0.7, withEntropy };
        const whole = objective(tokenLogprobs(model, settings));
        whole.loss.backward();
        const expected = gradientsOf(model);
        const result = backwardTokenLogprobs(model, { ...settings, chunkTokens }, objective);
        expectClose(result.loss, whole.loss, { rtol: 1e-12 });
        assert.equal(result.count.item(), 7);
        gradientsOf(model).forEach((gradient, index) => {
          expectClose(gradient, expected[index] ?? [], { rtol: 1e-9, atol: 1e-12 });
        });
      });
  test('gradients of several batches add up, inside noGrad too', () => {
    const model = modelOf();
    const settings = { ...input, chunkTokens: 2 };
    backwardTokenLogprobs(model, settings, objective);
    const once = gradientsOf(model);
    noGrad(() => {
      backwardTokenLogprobs(model, settings, objective);
      backwardTokenLogprobs(model, settings, objective);
    });
    gradientsOf(model).forEach((gradient, index) => {
      expectClose(gradient, once[index]?.mul(2) ?? [], { rtol: 1e-9, atol: 1e-12 });
    });
  });
  test('parameters that are frozen get no gradient, the others theirs', () => {
    const model = modelOf();
    model.freeze();
    model.outputWeight().requiresGrad = true;
    backwardTokenLogprobs(model, { ...input, chunkTokens: 2 }, objective);
    for (const parameter of model.parameters())
      assert.equal(parameter.grad !== null, parameter === model.outputWeight());
  });
  test('leaves the gradients and the result, and nothing else', () => {
    const model = modelOf();
    const before = memory().liveTensors;
    for (const chunkTokens of [2, 100]) {
      const result = backwardTokenLogprobs(model, { ...input, chunkTokens }, objective);
      assert.equal(memory().liveTensors, before + 2);
      result.loss.dispose();
      result.count.dispose();
    }
  });
});
