import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { createModel, makeDecoderConfig, MODEL_TYPES, type Decoder } from '../models/index.js';
import { arange, tidy, useWidenedProducts, type Dtype } from '../torch/index.js';
import { DecodeSession } from './decodeSession.js';
import { rolloutWeights } from './rolloutWeights.js';

/** Logits of steps after ragged prompts, with kernels or operator by operator. */
function logitsOf(
  model: Decoder,
  rows: number,
  packing: boolean,
): { logits: number[]; fused: number } {
  const weights = rolloutWeights(model, { rows, packing });
  const prompts = Array.from({ length: rows }, (_, row) =>
    Array.from({ length: 9 + (row % 3) }, (_each, at) => (at * 7 + row * 5 + 1) % 60),
  );
  const { session, logits: first } = DecodeSession.start(weights, model.config, prompts, {
    copies: 1,
    capacity: 30,
  });
  first.dispose();
  const found: number[] = [];
  for (let step = 0; step < 8; step++) {
    const logits = session.step(prompts.map((_, row) => (step * 11 + row * 3 + 2) % 60));
    found.push(...tidy(() => Array.from(logits.to('float32').toTypedArray())));
    logits.dispose();
  }
  session.dispose();
  const fused = weights.layers.filter((layer) => layer.fused !== null).length;
  weights.dispose();
  return { logits: found, fused };
}

describe('a token of a row is the same by kernels as operator by operator', () => {
  /** Families that normalise otherwise, or in which layers have experts. */
  const without: ReadonlySet<string> = new Set(['gpt2', 'qwen3_moe']);
  for (const modelType of MODEL_TYPES) {
    const config = makeDecoderConfig({
      modelType,
      vocabSize: 64,
      hiddenSize: 32,
      intermediateSize: 48,
      numLayers: 3,
      numHeads: 4,
      numKeyValueHeads: modelType === 'gpt2' ? 4 : 2,
      maxPositionEmbeddings: 64,
      initializerRange: 0.3,
      ...(modelType.startsWith('gemma') || modelType === 'mistral' ? { slidingWindow: 6 } : {}),
    });
    const make = (dtype: Dtype): Decoder => {
      const model = createModel(config, { seed: 2, dtype }).freeze();
      // Biases of zeros would hide one that is left out.
      tidy(() => {
        for (const [name, parameter] of model.namedParameters())
          if (name.endsWith('bias')) parameter.copy_(arange(parameter.numel).sin());
      });
      return model;
    };
    for (const rows of [1, 3, 9])
      test(`${modelType}, ${rows} rows, float32: within 1e-6 of the largest logit`, () => {
        const model = make('float32');
        const [kernels, plain] = [logitsOf(model, rows, true), logitsOf(model, rows, false)];
        assert.equal(kernels.fused, without.has(modelType) ? 0 : 3);
        assert.equal(plain.fused, 0);
        const largest = Math.max(...plain.logits.map(Math.abs));
        expectClose(kernels.logits, plain.logits, {
          rtol: 0,
          atol: Math.min(1e-2, 1e-6 * largest),
        });
        model.dispose();
      });
    // Beyond four rows weights are packed, in panels where factors are widened.
    for (const [rows, widening] of [
      [2, false],
      [9, false],
      [9, true],
    ] as const)
      test(`${modelType}, ${rows} rows, bfloat16${widening ? ', widened' : ''}: as close to float32 as operators are`, () => {
        const [half, whole] = [make('bfloat16'), make('float32')];
        const exact = logitsOf(whole, rows, false).logits;
        const errorOf = (packing: boolean): number => {
          const set = useWidenedProducts(widening && packing);
          let logits: number[];
          try {
            ({ logits } = logitsOf(half, rows, packing));
          } finally {
            useWidenedProducts(set);
          }
          const squares = logits.map((value, index) => (value - (exact[index] ?? NaN)) ** 2);
          return Math.sqrt(squares.reduce((sum, value) => sum + value, 0) / squares.length);
        };
        const [kernels, plain] = [errorOf(true), errorOf(false)];
        assert.ok(kernels < 1.3 * plain, `${kernels} and ${plain}`);
        half.dispose();
        whole.dispose();
      });
  }
});
