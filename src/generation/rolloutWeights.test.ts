import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { createModel, makeDecoderConfig, type Decoder } from '../models/index.js';
import { memory, noGrad, randn, tensor, tidy, type Tensor } from '../torch/index.js';
import { FrozenLinear, rolloutWeights } from './rolloutWeights.js';

const model = (modelType: 'llama' | 'qwen2' | 'qwen3' = 'qwen2'): Decoder =>
  createModel(
    makeDecoderConfig({
      modelType,
      vocabSize: 11,
      hiddenSize: 16,
      intermediateSize: 24,
      numLayers: 2,
      numHeads: 4,
      numKeyValueHeads: 2,
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
      const project = (name: 'qProj' | 'kProj' | 'vProj', heads: number): Tensor =>
        attention[name].forward(x).detach().view([3, heads, 4]);
      const [q, k, v] = [project('qProj', 4), project('kProj', 2), project('vProj', 2)];
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

  test('gate stands before up', () => {
    const policy = model();
    const weights = rolloutWeights(policy);
    tidy(() => {
      const x = randn([3, 16], { dtype: 'float64' });
      const mlp = policy.layers[0]?.mlp;
      const both = weights.layers[0]?.gateUp.apply(x);
      assert.ok(mlp && both);
      expectClose(both.narrow(1, 0, 24), mlp.gateProj.forward(x).detach(), { rtol: 1e-12 });
      expectClose(both.narrow(1, 24, 24), mlp.upProj.forward(x).detach(), { rtol: 1e-12 });
    });
    weights.dispose();
  });

  test('frees everything on dispose, of every family', () => {
    for (const family of ['llama', 'qwen2', 'qwen3'] as const) {
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
    policy.norm.weight.dispose(); // read after all layers
    const before = memory().liveTensors;
    assert.throws(() => rolloutWeights(policy), /freed|disposed/);
    assert.equal(memory().liveTensors, before);
  });
});
