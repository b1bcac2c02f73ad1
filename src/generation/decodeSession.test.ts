import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createModel, makeDecoderConfig, type Decoder, type ModelType } from '../models/index.js';
import { memory, noGrad, tensor, tidy } from '../torch/index.js';
import { DecodeSession } from './decodeSession.js';
import { rolloutWeights } from './rolloutWeights.js';

function model(modelType: ModelType = 'llama'): Decoder {
  const config = makeDecoderConfig({
    modelType,
    vocabSize: 24,
    hiddenSize: 32,
    intermediateSize: 48,
    numLayers: 2,
    numHeads: 4,
    numKeyValueHeads: 2,
    maxPositionEmbeddings: 64,
    initializerRange: 0.4, // far from uniform, so that mistakes are seen
  });
  return createModel(config, { seed: 1 });
}

function worst(a: readonly number[], b: readonly number[]): number {
  assert.equal(a.length, b.length);
  return Math.max(...a.map((value, index) => Math.abs(value - (b[index] ?? NaN))));
}

const RAGGED = [[5], [6, 7, 8, 9, 10], [11, 12, 13]];

describe('DecodeSession', () => {
  type Step = readonly number[];

  /** Logits after the prompts and after each step, row by row. */
  function logitsOf(
    policy: Decoder,
    prompts: readonly Step[],
    steps: readonly { keep?: readonly number[]; ids: Step }[],
    copies = 1,
  ): number[][][] {
    const weights = rolloutWeights(policy);
    const { session, logits } = DecodeSession.start(weights, policy.config, prompts, {
      copies,
      capacity: 16,
    });
    const result = [logits.toArray() as number[][]];
    logits.dispose();
    for (const { keep, ids } of steps) {
      if (keep) session.keepRows(keep);
      assert.equal(session.rows, ids.length);
      const next = session.step(ids);
      result.push(next.toArray() as number[][]);
      next.dispose();
    }
    session.dispose();
    weights.dispose();
    return result;
  }

  /** Logits after the last token of each sequence, by a whole forward pass. */
  function whole(policy: Decoder, sequences: readonly Step[]): number[][] {
    return sequences.map((ids) =>
      noGrad(() =>
        tidy(() => {
          const { logits } = policy.forward({ inputIds: tensor([[...ids]], { dtype: 'int64' }) });
          return logits
            .select(0, 0)
            .select(0, ids.length - 1)
            .toArray() as number[];
        }),
      ),
    );
  }

  const expectRows = (actual: number[][] | undefined, expected: number[][]): void => {
    assert.equal(actual?.length, expected.length);
    expected.forEach((row, index) => {
      const difference = worst(row, actual[index] ?? []);
      assert.ok(difference < 1e-5, `row ${index}: ${difference}`);
    });
  };

  for (const modelType of ['llama', 'qwen2', 'qwen3'] as const) {
    test(`${modelType}: prompts of different length, then tokens, give what whole forward passes give`, () => {
      const policy = model(modelType);
      const [first, second, third] = logitsOf(policy, RAGGED, [
        { ids: [9, 8, 7] },
        { ids: [4, 5, 6] },
      ]);
      expectRows(first, whole(policy, RAGGED));
      const longer = RAGGED.map((prompt, row) => [...prompt, 9 - row]);
      expectRows(second, whole(policy, longer));
      expectRows(
        third,
        whole(
          policy,
          longer.map((ids, row) => [...ids, 4 + row]),
        ),
      );
    });
  }

  test('rows are kept in the order that is asked for, with their own past', () => {
    const policy = model();
    const [, second, third] = logitsOf(policy, RAGGED, [
      { keep: [2, 0], ids: [9, 8] },
      { keep: [1], ids: [4] },
    ]);
    expectRows(
      second,
      whole(policy, [
        [11, 12, 13, 9],
        [5, 8],
      ]),
    );
    expectRows(third, whole(policy, [[5, 8, 4]]));
  });

  test('copies of a prompt stand side by side and go on by themselves', () => {
    const policy = model();
    const [first, second] = logitsOf(policy, RAGGED.slice(0, 2), [{ ids: [1, 2, 3, 4] }], 2);
    expectRows(first, whole(policy, RAGGED.slice(0, 2)));
    const [a = [], b = []] = RAGGED;
    expectRows(
      second,
      whole(policy, [
        [...a, 1],
        [...a, 2],
        [...b, 3],
        [...b, 4],
      ]),
    );
  });

  test('many rows, padded or not, take another path of attention and give the same', () => {
    const policy = model('qwen2');
    for (const short of [[5], [5, 6, 7]]) {
      const prompts = Array.from({ length: 20 }, (_, row) => (row % 2 === 0 ? [1, 2, 4] : short));
      const [, second] = logitsOf(policy, prompts, [{ ids: prompts.map((_, row) => row) }]);
      expectRows(
        second,
        whole(
          policy,
          prompts.map((prompt, row) => [...prompt, row]),
        ),
      );
    }
  });

  test('frees everything', () => {
    const policy = model();
    const before = memory().liveTensors;
    logitsOf(policy, RAGGED, [{ keep: [0, 2], ids: [9, 8] }], 1);
    assert.equal(memory().liveTensors, before);
  });
});
