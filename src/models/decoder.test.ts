import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { memory, noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import {
  createModel,
  makeDecoderConfig,
  MODEL_TYPES,
  parameterShapes,
  type Decoder,
} from './index.js';

const SIZES = {
  vocabSize: 23,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 2,
  numHeads: 4,
  initializerRange: 0.3,
};
const config = makeDecoderConfig({ ...SIZES, modelType: 'qwen3', numKeyValueHeads: 2 });
const modelOf = (): Decoder => createModel(config, { seed: 8, dtype: 'float64' });
const ids = (rows: number[][]): Tensor => tensor(rows, { dtype: 'int64' });
const logitsOf = (model: Decoder, rows: number[][], mask?: number[][]): Tensor =>
  model.forward({ inputIds: ids(rows), ...(mask && { attentionMask: ids(mask) }) }).logits;

const PAD = 0;

describe('Decoder', () => {
  test('parameters have the names, shapes and order that parameterShapes says', () => {
    const model = modelOf();
    assert.deepEqual(
      [...model.namedParameters()].map(([name, { shape }]) => [name, shape]),
      [...parameterShapes(config)].map(([name, { shape }]) => [name, shape]),
    );
  });
  test('padding at either side does not change the logits of a token', () => {
    const model = modelOf();
    const row = [4, 9, 2, 17];
    const plain = logitsOf(model, [row]).select(0, 0);
    const left = logitsOf(model, [[PAD, PAD, PAD, ...row]], [[0, 0, 0, 1, 1, 1, 1]]);
    const right = logitsOf(model, [[...row, PAD, PAD]], [[1, 1, 1, 1, 0, 0]]);
    expectClose(left.select(0, 0).narrow(0, 3, 4), plain, { rtol: 1e-10, atol: 1e-12 });
    expectClose(right.select(0, 0).narrow(0, 0, 4), plain, { rtol: 1e-10, atol: 1e-12 });
  });
  test('no token looks to its right', () => {
    const model = modelOf();
    const first = logitsOf(model, [[4, 9, 2, 17]]).narrow(1, 0, 3);
    const second = logitsOf(model, [[4, 9, 2, 5]]).narrow(1, 0, 3);
    assert.ok(first.equal(second));
  });
  test('a row of padding only is finite, forward and backward', () => {
    const model = modelOf();
    const mask = [
      [0, 0, 0],
      [0, 1, 1],
    ];
    const logits = logitsOf(
      model,
      [
        [PAD, PAD, PAD],
        [PAD, 3, 4],
      ],
      mask,
    );
    assert.ok(logits.isfinite().all().item());
    logits.sum().backward();
    for (const [name, { grad }] of model.namedParameters())
      assert.ok(grad?.isfinite().all().item(), name);
  });
  test('padding looks at itself and at nothing else', () => {
    const model = modelOf();
    const alone = logitsOf(model, [[PAD]]);
    const padding = logitsOf(model, [[PAD, PAD]], [[0, 0]]);
    expectClose(padding, alone.expand([1, 2, -1]), { rtol: 1e-10, atol: 1e-12 });
  });
  test('sequences in one line see nothing of each other, wherever they stand', () => {
    const model = modelOf();
    const [a, b] = [
      [4, 9, 2, 17],
      [1, 8, 3],
    ];
    const packed = model.forward({
      inputIds: ids([
        [...a, ...b, PAD],
        [PAD, ...b, ...a],
      ]),
      sequenceIds: ids([
        [1, 1, 1, 1, 2, 2, 2, 0],
        [0, 7, 7, 7, 3, 3, 3, 3],
      ]),
    }).logits;
    const part = (line: number, start: number, length: number): Tensor =>
      packed.select(0, line).narrow(0, start, length);
    const close = { rtol: 1e-10, atol: 1e-12 };
    expectClose(part(0, 0, 4), logitsOf(model, [a]).select(0, 0), close);
    expectClose(part(0, 4, 3), logitsOf(model, [b]).select(0, 0), close);
    expectClose(part(1, 1, 3), logitsOf(model, [b]).select(0, 0), close);
    expectClose(part(1, 4, 4), logitsOf(model, [a]).select(0, 0), close);
    assert.ok(packed.isfinite().all().item(), 'padding is not finite');
  });
  test('padding of a packed line may be longer than the learned positions', () => {
    const sizes = { vocabSize: 9, hiddenSize: 8, intermediateSize: 16, numLayers: 1, numHeads: 2 };
    const config = makeDecoderConfig({ ...sizes, modelType: 'gpt2', maxPositionEmbeddings: 3 });
    const model = createModel(config, { seed: 1, dtype: 'float64' });
    const packed = (line: number[], sequences: number[]): Tensor =>
      model.forward({ inputIds: ids([line]), sequenceIds: ids([sequences]) }).logits;
    const { logits } = model.forward({ inputIds: ids([[1, 2, 3]]) });
    const padded = packed([1, 2, 3, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]);
    expectClose(padded.narrow(1, 0, 3), logits, { rtol: 1e-10, atol: 1e-12 });
    assert.throws(() => packed([1, 2, 3, 4], [1, 1, 1, 1]), {
      message:
        "Decoder: expected rows of at most 3 tokens, the model's learned positions, received 4.",
    });
  });
  test('sequenceIds of another shape, or beside a mask, are refused', () => {
    const model = modelOf();
    const inputIds = ids([[1, 2]]);
    assert.throws(() => model.forward({ inputIds, sequenceIds: ids([[1]]) }), {
      message: 'Decoder: expected sequenceIds [1, 2] like inputIds, received [1, 1].',
    });
    const both = { inputIds, sequenceIds: ids([[1, 1]]), attentionMask: ids([[1, 1]]) };
    assert.throws(() => model.forward(both), {
      message:
        'Decoder: expected attentionMask or sequenceIds, received both: 0 in sequenceIds is padding already.',
    });
  });
  test('a mask of booleans or floats means the same', () => {
    const model = modelOf();
    const inputIds = ids([[PAD, 3, 4]]);
    const mask = ids([[0, 1, 1]]);
    const expected = model.forward({ inputIds, attentionMask: mask }).logits;
    for (const attentionMask of [mask.to('bool'), mask.to('float32')])
      assert.ok(model.forward({ inputIds, attentionMask }).logits.equal(expected));
  });
  for (const modelType of MODEL_TYPES)
    test(`${modelType}: every parameter has a gradient that agrees with finite differences`, () => {
      const model = createModel(
        makeDecoderConfig({
          ...SIZES,
          modelType,
          numKeyValueHeads: modelType === 'gpt2' ? 4 : 2,
          slidingWindow: 3,
        }),
        { seed: 8, dtype: 'float64' },
      );
      const rows = [
        [4, 9, 2, 17],
        [1, 1, 8, 3],
      ];
      const mask = [
        [1, 1, 1, 1],
        [0, 1, 1, 1],
      ];
      const loss = (): Tensor => logitsOf(model, rows, mask).narrow(1, 1, 3).sin().sum();
      loss().backward();
      const step = 1e-5;
      for (const [name, parameter] of model.namedParameters()) {
        const last = parameter.numel - 1;
        const flat = parameter
          .detach()
          .view([-1])
          .narrow(0, Math.floor(last / 2), 1);
        const analytic = parameter.grad
          ?.flatten()
          .narrow(0, Math.floor(last / 2), 1)
          .item();
        const difference = noGrad(() =>
          tidy(() => {
            flat.add_(step);
            const above = loss().item();
            flat.add_(-2 * step);
            const below = loss().item();
            flat.add_(step);
            return (above - below) / (2 * step);
          }),
        );
        assert.ok(analytic !== undefined, name);
        expectClose(difference, analytic, { rtol: 1e-5, atol: 1e-7 });
      }
    });
  test('forward and backward leave no tensor behind', () => {
    const model = modelOf();
    tidy(() =>
      logitsOf(model, [[1, 2, 3]])
        .sum()
        .backward(),
    );
    const before = memory().liveTensors;
    for (let step = 0; step < 5; step++)
      tidy(() =>
        logitsOf(model, [[1, 2, 3]], [[0, 1, 1]])
          .sum()
          .backward(),
      );
    assert.equal(memory().liveTensors, before);
    model.dispose();
  });
  test('rejects ids and masks that do not fit', () => {
    const model = modelOf();
    assert.throws(() => model.forward({ inputIds: tensor([1, 2], { dtype: 'int64' }) }), {
      message: 'Decoder: expected inputIds [B, L] with at least one token, received [2].',
    });
    assert.throws(() => model.forward({ inputIds: tensor([[1, 2]]) }), {
      message: 'Decoder: expected inputIds of int64, received float32.',
    });
    assert.throws(() => logitsOf(model, [[1, 2]], [[1]]), {
      message: 'Decoder: expected attentionMask [1, 2] like inputIds, received [1, 1].',
    });
    assert.throws(() => logitsOf(model, [[1, 23]]), {
      message: 'Embedding: expected ids from 0 to 22, received 23.',
    });
  });
});
