import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  createModel,
  makeDecoderConfig,
  MODEL_TYPES,
  type Decoder,
  type ModelType,
} from '../models/index.js';
import { memory, noGrad, randn, tensor, tidy, type Tensor } from '../torch/index.js';
import { FrozenLinear, rolloutWeights } from './rolloutWeights.js';

const model = (modelType: ModelType = 'qwen2'): Decoder =>
  createModel(
    makeDecoderConfig({
      modelType,
      vocabSize: 11,
      hiddenSize: 16,
      intermediateSize: 24,
      numLayers: 2,
      numHeads: 4,
      numKeyValueHeads: modelType === 'gpt2' ? 4 : 2,
      initializerRange: 0.5,
    }),
    { seed: 3, dtype: 'float64' },
  );

describe('FrozenLinear', () => {
  // 600·600 elements are above the size from which only the packed form is kept, 8·6 below.
  for (const [out, inner] of [
    [600, 600],
    [8, 6],
  ] as const) {
    for (const rows of [1, 2, 70]) {
      for (const packing of [true, false]) {
        test(`[${out}, ${inner}] times ${rows} rows, ${packing ? 'packed' : 'plain'}, is x·Wᵀ + b`, () => {
          tidy(() => {
            const weight = randn([out, inner]);
            const bias = randn([out]);
            const x = randn([rows, inner]);
            const expected = x.to('float64').mm(weight.to('float64').transpose(0, 1)).add(bias);
            const linear = new FrozenLinear(weight, bias, packing);
            expectClose(linear.apply(x), expected, { rtol: 1e-4, atol: 1e-3 });
            linear.dispose();
          });
        });
      }
    }
  }

  for (const rows of [1, 2, 70])
    for (const withBias of [true, false])
      test(`of bfloat16, times ${rows} rows${withBias ? ', with a bias' : ''}, is rounded once`, () => {
        tidy(() => {
          const weight = randn([600, 600]).to('bfloat16');
          const bias = withBias ? randn([600]).to('bfloat16') : null;
          const x = randn([rows, 600]).to('bfloat16');
          const product = x.to('float64').linear(weight.to('float64'), bias?.to('float64'));
          const linear = new FrozenLinear(weight, bias, true);
          const found = linear.apply(x);
          assert.equal(found.dtype, 'bfloat16');
          expectClose(found.to('float64'), product, { rtol: 2 ** -8, atol: 1e-4 });
          linear.dispose();
        });
      });

  test('frees its copies and leaves the weight alone', () => {
    const weight = randn([8, 6]);
    const before = memory().liveTensors;
    new FrozenLinear(weight, null, true).dispose();
    assert.equal(memory().liveTensors, before);
    assert.equal(weight.sum().isfinite().item(), 1);
    weight.dispose();
  });
});

describe('rolloutWeights', () => {
  test('one product gives q and k in pair order, and v, of the model’s own projections', () => {
    const policy = model();
    // A bias of zeros would hide one that is left out or put elsewhere.
    noGrad(() =>
      tidy(() => {
        for (const [name, parameter] of policy.namedParameters())
          if (name.endsWith('bias')) parameter.copy_(randn(parameter.shape, { dtype: 'float64' }));
      }),
    );
    const weights = rolloutWeights(policy);
    tidy(() => {
      const x = randn([3, 16], { dtype: 'float64' });
      const attention = policy.layers[1]?.attention;
      assert.ok(attention);
      const [q, k, v] = attention.projections.map((layer): Tensor =>
        layer.forward(x).detach().view([3, -1, 4]),
      );
      assert.ok(q && k && v, 'three projections');
      const all = weights.layers[1]?.queryKeyValue.apply(x).view([3, 8, 4]);
      assert.ok(all);
      // Half-split order 0 1 | 2 3 becomes pairs 0 2, 1 3.
      const paired = tensor([0, 2, 1, 3], { dtype: 'int64' });
      expectClose(all.narrow(1, 0, 4), q.indexSelect(2, paired), { rtol: 1e-12, atol: 1e-12 });
      expectClose(all.narrow(1, 4, 2), k.indexSelect(2, paired), { rtol: 1e-12, atol: 1e-12 });
      expectClose(all.narrow(1, 6, 2), v, { rtol: 1e-12, atol: 1e-12 });
    });
    weights.dispose();
  });

  test('the feed-forward layer of every family computes what the model’s own does', () => {
    for (const family of MODEL_TYPES) {
      const policy = model(family);
      const weights = rolloutWeights(policy);
      tidy(() => {
        const x = randn([3, 16], { dtype: 'float64' });
        const actual = weights.layers[0]?.feedForward(x);
        const expected = policy.layers[0]?.mlp.forward(x).detach();
        assert.ok(actual && expected, family);
        expectClose(actual, expected, { rtol: 1e-12, atol: 1e-12 });
      });
      weights.dispose();
      policy.dispose();
    }
  });

  test('frees everything on dispose, of every family', () => {
    for (const family of MODEL_TYPES) {
      const policy = model(family);
      const before = memory().liveTensors;
      const weights = rolloutWeights(policy);
      assert.ok(memory().liveTensors > before);
      weights.dispose();
      assert.equal(memory().liveTensors, before);
      policy.dispose();
    }
  });

  test('frees what it made when it fails in the middle', () => {
    const policy = model();
    policy.untiedHead?.weight.dispose(); // read after all layers
    const before = memory().liveTensors;
    assert.throws(() => rolloutWeights(policy), /freed|disposed/);
    assert.equal(memory().liveTensors, before);
  });
});
