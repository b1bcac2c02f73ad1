import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { Linear } from '../nn/index.js';
import { memory, noGrad, tensor, tidy, zeros, type Tensor } from '../torch/index.js';
import {
  createModel,
  createScalarHead,
  createScalarModel,
  makeDecoderConfig,
  sequenceScores,
  tokenLogprobs,
  tokenValues,
  type ScalarModel,
} from './index.js';

const config = makeDecoderConfig({
  modelType: 'qwen2',
  vocabSize: 31,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 2,
  numHeads: 4,
  numKeyValueHeads: 2,
  initializerRange: 0.3,
});
const modelOf = (): ScalarModel =>
  createScalarModel(createModel(config, { seed: 3, dtype: 'float64' }), { std: 0.5 });

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
const T = 4;

/** The head on the last state of a row that is computed alone, in plain numbers. */
function scoreAlone({ trunk, head }: ScalarModel, row: readonly number[]): number {
  const states = noGrad(() =>
    tidy(() => trunk.hiddenStates({ inputIds: ids([[...row]]) }).toArray()),
  ) as number[][][];
  const weight = (head.weight.toArray() as number[][])[0] ?? [];
  return (states[0]?.at(-1) ?? []).reduce((sum, x, d) => sum + x * (weight[d] ?? NaN), 0);
}

const exact = { rtol: 1e-10, atol: 1e-12 };

/** Every parameter's gradient agrees with a difference of the loss at one of its elements. */
function expectFiniteDifferences(model: ScalarModel, loss: () => Tensor): void {
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
    expectClose(difference, analytic, { rtol: 1e-5, atol: 1e-7 });
  }
}

describe('tokenValues', () => {
  test('is the head on everything before the token, and exactly 0 beyond a row', () => {
    const model = modelOf();
    const { values, mask } = tokenValues(model, input);
    const expected = rows.map((row, index) =>
      Array.from({ length: T }, (_, t) => {
        const position = (promptLengths[index] ?? 0) + t;
        return position < (lengths[index] ?? 0) ? scoreAlone(model, row.slice(0, position)) : 0;
      }),
    );
    expectClose(values, expected, exact);
    const zeros = (values.toArray() as number[][]).flatMap((row) => row.filter((v) => v === 0));
    assert.equal(zeros.length, 5);
    assert.deepEqual(mask.toArray(), [
      [1, 1, 1, 1],
      [1, 1, 1, 0],
      [0, 0, 0, 0],
    ]);
  });
  test('the value at t depends on the token before t and on none from t on', () => {
    const model = modelOf();
    const before = tokenValues(model, input).values.toArray() as number[][];
    for (let position = 3; position < 7; position++) {
      const changed = rows.map((row, index) =>
        row.map((id, at) => (index === 0 && at === position ? (id + 13) % 29 : id)),
      );
      const after = tokenValues(model, { ...input, inputIds: ids(changed) }).values;
      (after.toArray() as number[][])[0]?.forEach((value, t) => {
        const isEqual = value === before[0]?.[t];
        assert.equal(isEqual, t <= position - 3, `value ${t} when token ${position - 3} changes`);
      });
    }
  });
  test('what stands in padding, more of it, and the order of rows change nothing', () => {
    const model = modelOf();
    const { values } = tokenValues(model, input);
    const junk = ids(rows.map((row) => row.map((id) => (id === PAD ? 17 : id))));
    assert.ok(tokenValues(model, { ...input, inputIds: junk }).values.equal(values));
    const wider = tokenValues(model, {
      inputIds: ids(rows.map((row) => [...row, PAD, 3]).reverse()),
      promptLengths: promptLengths.toReversed(),
      lengths: lengths.toReversed(),
    });
    expectClose(wider.values.flip(0), values, exact);
  });
  test('gradients reach trunk and head, and agree with finite differences', () => {
    const model = modelOf();
    const weights = tensor([
      [1, -2, 3, 0.5],
      [2, 1, -1, 7],
      [5, 5, 5, 5],
    ]).to('float64');
    expectFiniteDifferences(model, () => tokenValues(model, input).values.sin().mul(weights).sum());
  });
  test('takes a policy and a head beside it, and is then what tokenLogprobs gives', () => {
    const policy = createModel(config, { seed: 3, dtype: 'float64' });
    const head = createScalarHead(policy, { std: 0.5 });
    const { values } = tokenValues({ trunk: policy, head }, input);
    assert.ok(tokenLogprobs(policy, { ...input, valueHead: head }).values?.equal(values));
  });
  test('a bias is added at tokens and nowhere else, and learns their number', () => {
    const { trunk, head } = modelOf();
    const biased = new Linear(head.weight, tensor([0.25], { dtype: 'float64' }));
    const { values } = tokenValues({ trunk, head: biased }, input);
    const plain = tokenValues({ trunk, head }, input);
    expectClose(values, plain.values.add(plain.mask.mul(0.25)), exact);
    values.sum().backward();
    assert.deepEqual(biased.bias?.grad?.toArray(), [7]);
  });
  test('no completion at all gives [B, 0]', () => {
    const { values } = tokenValues(modelOf(), { ...input, lengths: promptLengths });
    assert.deepEqual(values.shape, [3, 0]);
  });
  test('leaves no tensor behind', () => {
    const model = modelOf();
    const before = memory().liveTensors;
    noGrad(() => tidy(() => void tokenValues(model, input)));
    tidy(() => void sequenceScores(model, input));
    assert.equal(memory().liveTensors, before);
  });
  test('rejects lengths that do not fit and a head of another width', () => {
    const model = modelOf();
    assert.throws(() => tokenValues(model, { ...input, lengths: [7, 4] }), {
      message:
        'tokenValues: expected 3 promptLengths and lengths, one per row of inputIds, received 3 and 2.',
    });
    assert.throws(() => tokenValues(model, { ...input, promptLengths: [0, 1, 3] }), {
      message: 'tokenValues: expected 1 ≤ promptLengths[0] ≤ lengths[0] ≤ 7, received 0 and 7.',
    });
    const wide = createScalarHead({
      config: { ...config, hiddenSize: 8 },
      dtype: 'float64',
      device: 'cpu',
    });
    assert.throws(() => tokenValues({ trunk: model.trunk, head: wide }, input), {
      message: 'tokenValues: expected a head with weight [1, 16], received [1, 8].',
    });
    const two = new Linear(zeros([2, 16], { dtype: 'float64' }));
    assert.throws(() => tokenValues({ trunk: model.trunk, head: two }, input), {
      message: 'tokenValues: expected a head with weight [1, 16], received [2, 16].',
    });
  });
});

describe('sequenceScores', () => {
  test('is the head on the last token of each row', () => {
    const model = modelOf();
    const expected = rows.map((row, index) => scoreAlone(model, row.slice(0, lengths[index])));
    expectClose(sequenceScores(model, input), expected, exact);
  });
  test('a padding token that also ends the text is read, because rows end by length', () => {
    const model = modelOf();
    // Row 0 ends with two tokens that look like padding; row 1 is as long and really padded once.
    const inputIds = ids([
      [5, PAD, 9, PAD, PAD],
      [5, PAD, 9, PAD, PAD],
    ]);
    const scores = sequenceScores(model, { inputIds, lengths: [5, 4] });
    const expected = [
      scoreAlone(model, [5, PAD, 9, PAD, PAD]),
      scoreAlone(model, [5, PAD, 9, PAD]),
    ];
    expectClose(scores, expected, exact);
    assert.notEqual(expected[0], expected[1]);
  });
  test('what stands in padding and more of it change nothing', () => {
    const model = modelOf();
    const scores = sequenceScores(model, input);
    const junk = ids(rows.map((row) => [...row.map((id) => (id === PAD ? 17 : id)), 4, 4]));
    assert.ok(sequenceScores(model, { inputIds: junk, lengths }).equal(scores));
  });
  test('is the value that would stand before one token more', () => {
    const model = modelOf();
    const scores = sequenceScores(model, input).toArray() as number[];
    const longer = tokenValues(model, {
      inputIds: ids(rows.map((row) => [...row, PAD])),
      promptLengths: lengths,
      lengths: lengths.map((length) => length + 1),
    });
    expectClose(longer.values.squeeze(1), scores, exact);
  });
  test('gradients reach trunk and head, and agree with finite differences', () => {
    const model = modelOf();
    const weights = tensor([1, -2, 0.5]).to('float64');
    expectFiniteDifferences(model, () => sequenceScores(model, input).sin().mul(weights).sum());
  });
  test('rejects lengths that do not fit', () => {
    const model = modelOf();
    const refused = (changed: number[], message: string): void => {
      assert.throws(() => sequenceScores(model, { ...input, lengths: changed }), { message });
    };
    refused([7, 4], 'sequenceScores: expected 3 lengths, one per row of inputIds, received 2.');
    refused([7, 0, 3], 'sequenceScores: expected 1 ≤ lengths[1] ≤ 7, received 0.');
    refused([8, 4, 3], 'sequenceScores: expected 1 ≤ lengths[0] ≤ 7, received 8.');
    refused([7, 4, 2.5], 'sequenceScores: expected 1 ≤ lengths[2] ≤ 7, received 2.5.');
    const most = model.trunk.config.maxPositionEmbeddings;
    const long = { inputIds: zeros([1, most + 1], { dtype: 'int64' }), lengths: [most + 1] };
    assert.throws(() => sequenceScores(model, long), {
      message: `sequenceScores: expected rows of at most ${most} tokens, the model's positions, received ${most + 1} in row 0.`,
    });
    assert.throws(() => sequenceScores(model, { inputIds: tensor([1, 2]), lengths: [1] }), {
      message: 'sequenceScores: expected inputIds to have shape [B, L], received [2].',
    });
  });
});
