import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  EXACT,
  f64,
  goldenCases,
  gradientOf,
  JUNK,
  leaf,
} from '../../test/golden/algorithms/golden.js';
import { testObjectiveProperties } from '../../test/golden/algorithms/objectiveProperties.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import { entropyBonus, topEntropyMask, type EntropyBonusInputs } from './index.js';

interface Golden {
  logits: number[][][];
  entropy: number[][];
  mask: number[][];
  tokenWeights: number[][];
  coef: number;
  masks: { quantile: number; expected: number[][] }[];
  expected: { loss: number; entropy: number; gradient: number[][][] };
}
const golden = goldenCases<Golden>('entropy.json')[0];
assert.ok(golden);

describe('entropyBonus', () => {
  describe('matches the reference implementation', () => {
    test('from logits: loss, entropy and gradient', () => {
      const logits = leaf(golden.logits);
      const { loss, stats } = entropyBonus({
        logits,
        tokenWeights: f64(golden.tokenWeights),
        coef: golden.coef,
      });
      loss.backward();
      expectClose(loss, golden.expected.loss, EXACT);
      expectClose(stats.entropy, golden.expected.entropy, EXACT);
      expectClose(gradientOf(logits), golden.expected.gradient, EXACT);
    });
    test('from entropies: loss, entropy and gradient', () => {
      const entropy = leaf(golden.entropy);
      const { loss, stats } = entropyBonus({
        entropy,
        tokenWeights: f64(golden.tokenWeights),
        coef: golden.coef,
      });
      loss.backward();
      expectClose(loss, golden.expected.loss, EXACT);
      expectClose(stats.entropy, golden.expected.entropy, EXACT);
      const gradient = golden.tokenWeights.map((row) => row.map((w) => -golden.coef * w));
      expectClose(gradientOf(entropy), gradient, EXACT);
    });
  });

  describe('by hand', () => {
    const tokenWeights = f64([[1]]);
    test('a uniform choice of 4 has log 4 nats, and no gradient', () => {
      const logits = leaf([[[5, 5, 5, 5]]]);
      const { loss } = entropyBonus({ logits, tokenWeights, coef: 0.5 });
      loss.backward();
      expectClose(loss, -0.5 * Math.log(4), EXACT);
      expectClose(gradientOf(logits), [[[0, 0, 0, 0]]], EXACT);
    });
    test('a certain choice has none', () => {
      expectClose(entropyBonus({ logits: f64([[[0, -1e4]]]), tokenWeights, coef: 1 }).loss, 0);
    });
    test('tokens outside of the sampling support, with a logit of −∞, add nothing', () => {
      const logits = leaf([[[1, -Infinity, 1, -Infinity]]]);
      const { loss } = entropyBonus({ logits, tokenWeights, coef: 1 });
      loss.backward();
      expectClose(loss, -Math.log(2), EXACT);
      expectClose(gradientOf(logits), [[[0, 0, 0, 0]]], EXACT);
    });
    test('coef 0 gives the statistic alone', () => {
      const { loss, stats } = entropyBonus({ entropy: f64([[0.7]]), tokenWeights, coef: 0 });
      expectClose([Math.abs(loss.item()), stats.entropy.item()], [0, 0.7], EXACT);
    });
    test('minimising it raises the entropy', () => {
      // p = (σ(1), 1 − σ(1)): the likelier token must lose probability, so its logit has a positive gradient.
      const logits = leaf([[[1, 0]]]);
      entropyBonus({ logits, tokenWeights, coef: 1 }).loss.backward();
      const [[[likelier]]] = gradientOf(logits).toArray() as [[[number]]];
      assert.ok(likelier > 0.1);
    });
  });

  describe('properties', () => {
    testObjectiveProperties({
      inputs: {
        entropy: [
          [1, 2, 0.5],
          [0.1, 0.4, 1.5],
        ],
        tokenWeights: [
          [0.5, 0, 0.25],
          [0, 0.75, 0],
        ],
      },
      live: 'entropy',
      call: (tensors) => entropyBonus({ ...(tensors as unknown as EntropyBonusInputs), coef: 0.3 }),
    });
    for (const junk of JUNK) {
      test(`never reads logits of ${junk} at weight 0, forward or backward`, () => {
        const logits = leaf([
          [
            [1, 0],
            [junk, junk],
          ],
        ]);
        const { loss } = entropyBonus({ logits, tokenWeights: f64([[1, 0]]), coef: 1 });
        loss.backward();
        const clean = entropyBonus({ logits: f64([[[1, 0]]]), tokenWeights: f64([[1]]), coef: 1 });
        assert.equal(loss.item(), clean.loss.item());
        const [[, untouched]] = gradientOf(logits).toArray() as [number[][]];
        assert.deepEqual(untouched?.map(Math.abs), [0, 0]);
      });
    }
  });

  describe('rejects', () => {
    const tokenWeights = f64([[1]]);
    test('both or neither of logits and entropy', () => {
      assert.throws(
        () => entropyBonus({ tokenWeights, coef: 1 }),
        new ValueRangeError('entropyBonus: expected either logits or entropy, received neither.'),
      );
      assert.throws(
        () => entropyBonus({ logits: f64([[[1]]]), entropy: f64([[1]]), tokenWeights, coef: 1 }),
        new ValueRangeError('entropyBonus: expected either logits or entropy, received both.'),
      );
    });
    test('shapes that do not fit', () => {
      assert.throws(
        () => entropyBonus({ entropy: f64([[1, 2]]), tokenWeights, coef: 1 }),
        new ShapeError(
          'entropyBonus: expected entropy to have shape [B, T] = [1, 1] like tokenWeights, received [1, 2].',
        ),
      );
      assert.throws(
        () => entropyBonus({ logits: f64([[1, 2]]), tokenWeights, coef: 1 }),
        new ShapeError('entropyBonus: expected logits to have shape [B, T, V], received [1, 2].'),
      );
      assert.throws(
        () => entropyBonus({ logits: f64([[[1], [2]]]), tokenWeights, coef: 1 }),
        new ShapeError(
          'entropyBonus: expected logits to have shape [B, T, V] with [B, T] = [1, 1] like tokenWeights, received [1, 2, 1].',
        ),
      );
    });
    test('a coefficient that is not finite', () => {
      assert.throws(
        () => entropyBonus({ entropy: f64([[1]]), tokenWeights, coef: NaN }),
        new ValueRangeError('entropyBonus: expected coef to be finite, received NaN.'),
      );
    });
  });
});

describe('topEntropyMask', () => {
  for (const { quantile, expected } of golden.masks) {
    test(`matches torch.quantile at ${quantile}`, () => {
      const mask = topEntropyMask({
        entropy: f64(golden.entropy),
        mask: f64(golden.mask),
        quantile,
      });
      assert.deepEqual(mask.toArray(), expected);
    });
  }
  test('by hand: the default keeps the upper fifth, with linear interpolation', () => {
    // Of 0 … 9 the 0.8-quantile is 7.2: 8 and 9 are above.
    const entropy = f64([[3, 9, 1, 0, 8, 2, 7, 6, 5, 4]]);
    const mask = topEntropyMask({ entropy, mask: entropy.ge(0) });
    assert.deepEqual(mask.toArray(), [[0, 1, 0, 0, 1, 0, 0, 0, 0, 0]]);
  });
  test('a token at the quantile is kept', () => {
    const entropy = f64([[1, 2, 3]]);
    const mask = topEntropyMask({ entropy, mask: entropy, quantile: 0.5 });
    assert.deepEqual(mask.toArray(), [[0, 1, 1]]);
  });
  test('never reads an uncounted token, and never keeps one', () => {
    for (const junk of JUNK) {
      for (const dtype of ['bool', 'int32', 'float32'] as const) {
        const entropy = f64([[1, junk, 3]]);
        const mask = topEntropyMask({
          entropy,
          mask: tensor([[1, 0, 1]], { dtype }),
          quantile: 0.9,
        });
        assert.deepEqual(mask.toArray(), [[0, 0, 1]]);
        assert.equal(mask.dtype, 'float64');
      }
    }
  });
  test('is all 0 where nothing counts', () => {
    const mask = topEntropyMask({ entropy: f64([[1, 2]]), mask: f64([[0, 0]]) });
    assert.deepEqual(mask.toArray(), [[0, 0]]);
  });
  test('is a constant', () => {
    assert.equal(topEntropyMask({ entropy: leaf([[1]]), mask: f64([[1]]) }).requiresGrad, false);
  });
  test('rejects shapes that differ and a quantile outside of [0, 1]', () => {
    assert.throws(
      () => topEntropyMask({ entropy: f64([[1]]), mask: f64([1]) }),
      new ShapeError(
        'topEntropyMask: expected mask to have shape [B, T] = [1, 1] like entropy, received [1].',
      ),
    );
    assert.throws(
      () => topEntropyMask({ entropy: f64([[1]]), mask: f64([[1]]), quantile: 20 }),
      new ValueRangeError(
        'topEntropyMask: expected quantile to be a number from 0 to 1, received 20.',
      ),
    );
  });
});
