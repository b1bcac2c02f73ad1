import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases } from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor, type Dtype } from '../torch/index.js';
import { tokenWeights, type BatchTotals, type LossReduction } from './index.js';

interface GoldenCase {
  name: string;
  mask: number[][];
  reduction: LossReduction;
  totals?: BatchTotals;
  expected: number[][];
}

const REDUCTIONS: LossReduction[] = [
  { kind: 'sequenceMean' },
  { kind: 'tokenMean' },
  { kind: 'constant', budget: 4 },
  { kind: 'sequenceSum' },
  { kind: 'promptMean', groupSize: 2 },
];
const RAGGED = [
  [1, 1, 1],
  [0, 1, 0],
  [0, 0, 0],
  [1, 1, 0],
];

describe('tokenWeights', () => {
  describe('matches the reference implementation', () => {
    for (const { name, mask, reduction, totals, expected } of goldenCases<GoldenCase>(
      'token_weights.json',
    )) {
      test(name, () => expectClose(tokenWeights(f64(mask), reduction, totals), expected, EXACT));
    }
  });

  describe('by hand', () => {
    // L = 3, 1, 0, 2; B = 4; two prompts with 4 and 2 tokens.
    const weightsOf = (reduction: LossReduction) => tokenWeights(f64(RAGGED), reduction);
    test('sequenceMean is 1/(B·L)', () => {
      expectClose(weightsOf({ kind: 'sequenceMean' }), [
        [1 / 12, 1 / 12, 1 / 12],
        [0, 1 / 4, 0],
        [0, 0, 0],
        [1 / 8, 1 / 8, 0],
      ]);
    });
    test('tokenMean is 1/ΣL, and constant 1/(B·budget), and sequenceSum 1/B', () => {
      expectClose(weightsOf({ kind: 'tokenMean' }).amax(), 1 / 6);
      expectClose(weightsOf({ kind: 'constant', budget: 5 }).amax(), 1 / 20);
      expectClose(weightsOf({ kind: 'sequenceSum' }).amax(), 1 / 4);
    });
    test('promptMean is 1/(P · tokens of the prompt), rows of one prompt being neighbours', () => {
      expectClose(weightsOf({ kind: 'promptMean', groupSize: 2 }), [
        [1 / 8, 1 / 8, 1 / 8],
        [0, 1 / 8, 0],
        [0, 0, 0],
        [1 / 4, 1 / 4, 0],
      ]);
    });
    test('a prompt without any counted token has weight 0 and still counts in P', () => {
      const mask = [[1], [1], [0], [0]];
      const weights = tokenWeights(f64(mask), { kind: 'promptMean', groupSize: 2 });
      expectClose(weights, [[1 / 4], [1 / 4], [0], [0]]);
    });
  });

  describe('properties', () => {
    test('the means sum to 1 when every row has a counted token', () => {
      const mask = f64([
        [1, 1, 1],
        [1, 0, 0],
      ]);
      for (const kind of ['sequenceMean', 'tokenMean'] as const)
        expectClose(tokenWeights(mask, { kind }).sum(), 1, EXACT);
      expectClose(tokenWeights(mask, { kind: 'promptMean', groupSize: 2 }).sum(), 1, EXACT);
    });

    test('promptMean over one prompt is tokenMean, and with groups of one it is sequenceMean', () => {
      const whole = tokenWeights(f64(RAGGED), { kind: 'promptMean', groupSize: 4 });
      expectClose(whole, tokenWeights(f64(RAGGED), { kind: 'tokenMean' }), EXACT);
      const single = tokenWeights(f64(RAGGED), { kind: 'promptMean', groupSize: 1 });
      expectClose(single, tokenWeights(f64(RAGGED), { kind: 'sequenceMean' }), EXACT);
    });

    for (const reduction of REDUCTIONS) {
      test(`parts with the totals of the whole have the weights of the whole (${reduction.kind})`, () => {
        const totals = { sequences: 4, tokens: 6, prompts: 2 };
        const parts = [RAGGED.slice(0, 2), RAGGED.slice(2)].map((mask) =>
          tokenWeights(f64(mask), reduction, totals).toArray(),
        );
        expectClose(parts.flat(), tokenWeights(f64(RAGGED), reduction), EXACT);
      });

      test(`padding at the right changes no weight (${reduction.kind})`, () => {
        const padded = RAGGED.map((row) => [...row, 0, 0]);
        const narrow = tokenWeights(f64(padded), reduction).slice(1, 0, 3);
        expectClose(narrow, tokenWeights(f64(RAGGED), reduction), EXACT);
      });
    }

    test('a part without a counted token is all zero where the totals say that others have some', () => {
      const totals = { sequences: 4, tokens: 6, prompts: 2 };
      for (const reduction of REDUCTIONS)
        expectClose(tokenWeights(f64([[0], [0]]), reduction, totals), [[0], [0]]);
    });

    for (const dtype of ['bool', 'uint8', 'int32', 'int64'] as const) {
      test(`a mask of ${dtype} gives float32`, () => {
        const weights = tokenWeights(tensor(RAGGED, { dtype }), { kind: 'sequenceMean' });
        assert.equal(weights.dtype, 'float32');
        expectClose(weights, tokenWeights(f64(RAGGED), { kind: 'sequenceMean' }));
      });
    }
    for (const dtype of ['float64', 'float32', 'bfloat16', 'float16'] satisfies Dtype[]) {
      test(`a mask of ${dtype} keeps its dtype, and 257 tokens are counted exactly`, () => {
        const mask = tensor([Array<number>(257).fill(1)], { dtype });
        const weights = tokenWeights(mask, { kind: 'constant', budget: 1 });
        assert.equal(weights.dtype, dtype);
        const expected = tensor([1 / 257], { dtype }).toArray();
        expectClose(tokenWeights(mask, { kind: 'tokenMean' }).select(1, 256), expected);
      });
    }

    test('any value above 0 counts as one token, whatever its size; NaN does not count', () => {
      const weights = tokenWeights(f64([[0.5, 3, -1, NaN]]), { kind: 'tokenMean' });
      expectClose(weights, [[0.5, 0.5, 0, 0]]);
    });

    test('is a constant', () => {
      const mask = tensor(RAGGED, { dtype: 'float64', requiresGrad: true });
      assert.equal(tokenWeights(mask, { kind: 'tokenMean' }).requiresGrad, false);
    });
  });

  describe('rejects', () => {
    const mask = f64([[1], [1], [1]]);
    test('a batch without any counted token', () => {
      for (const reduction of REDUCTIONS) {
        assert.throws(
          () => tokenWeights(f64([[0], [0]]), reduction),
          new ValueRangeError(
            'tokenWeights: expected at least one counted token in the batch, received none.',
            { hint: 'Every completion was masked. Leave such a batch out of the update.' },
          ),
        );
      }
    });
    test('a mask that is not [B, T]', () => {
      assert.throws(
        () => tokenWeights(f64([1, 1]), { kind: 'tokenMean' }),
        new ShapeError('tokenWeights: expected completionMask to have shape [B, T], received [2].'),
      );
    });
    test('rows that do not fill the groups', () => {
      assert.throws(
        () => tokenWeights(mask, { kind: 'promptMean', groupSize: 2 }),
        new ShapeError(
          'tokenWeights: expected B to be a multiple of groupSize 2, received 3 rows.',
        ),
      );
    });
    test('a group size, budget or total that is not positive', () => {
      assert.throws(
        () => tokenWeights(mask, { kind: 'promptMean', groupSize: 0 }),
        new ValueRangeError(
          'tokenWeights: expected groupSize to be an integer of at least 1, received 0.',
        ),
      );
      assert.throws(
        () => tokenWeights(mask, { kind: 'constant', budget: 0 }),
        new ValueRangeError('tokenWeights: expected budget to be a positive number, received 0.'),
      );
      assert.throws(
        () => tokenWeights(mask, { kind: 'sequenceSum' }, { sequences: 0, tokens: 3, prompts: 1 }),
        new ValueRangeError(
          'tokenWeights: expected totals.sequences to be a positive number, received 0.',
        ),
      );
    });
    test('a reduction that does not exist', () => {
      const reduction = { kind: 'mean' } as unknown as LossReduction;
      assert.throws(
        () => tokenWeights(mask, reduction),
        new ValueRangeError(
          'tokenWeights: expected reduction.kind to be sequenceMean, tokenMean, constant, sequenceSum or promptMean, received "mean".',
        ),
      );
    });
  });
});
