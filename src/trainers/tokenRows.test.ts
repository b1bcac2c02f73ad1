import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { tinyModel } from '../../test/tinyRun.js';
import { noGrad, tensor, tidy, zeros, type Tensor } from '../torch/index.js';
import {
  collate,
  completionMask,
  drawnTokens,
  logprobPass,
  lossWeights,
  perToken,
  rememberOldLogprobs,
  rowsOf,
  weightsOfRows,
  type ReductionSettings,
  type TokenRow,
} from './tokenRows.js';

// Lengths of prompt and completion differ, and so do their orders: swapping them shows.
const ROWS: readonly TokenRow[] = [
  { promptIds: [3], completionIds: [4, 5, 6] },
  { promptIds: [7, 8, 3, 4], completionIds: [5] },
  { promptIds: [6, 7], completionIds: [8, 3] },
];

describe('collate', () => {
  test('by hand: prompt and completion without a gap, zeros to the right', () => {
    const { inputIds, promptLengths, lengths, columns } = collate(ROWS, 'cpu');
    assert.equal(inputIds.dtype, 'int64');
    assert.deepEqual(inputIds.toArray(), [
      [3, 4, 5, 6, 0],
      [7, 8, 3, 4, 5],
      [6, 7, 8, 3, 0],
    ]);
    assert.deepEqual(promptLengths, [1, 4, 2]);
    assert.deepEqual(lengths, [4, 5, 4]);
    assert.equal(columns, 3);
    inputIds.dispose();
  });
});

describe('perToken', () => {
  test('by hand: numbers of each token, or one for all of a row’s tokens; 0 beyond its end', () => {
    tidy(() => {
      const like = zeros([3, 3], { dtype: 'float64' });
      const own = perToken(ROWS, like, ({ completionIds }) => completionIds.map((id) => id / 2));
      assert.deepEqual(own.toArray(), [
        [2, 2.5, 3],
        [2.5, 0, 0],
        [4, 1.5, 0],
      ]);
      assert.equal(own.dtype, 'float64');
      const spread = perToken(ROWS, like, ({ promptIds }) => promptIds.length);
      assert.deepEqual(spread.toArray(), [
        [1, 1, 1],
        [4, 0, 0],
        [2, 2, 0],
      ]);
    });
  });

  test('rowsOf is the way back', () => {
    tidy(() => {
      const values = [[0.5, 1, 2], [3], [4, 5]];
      const places = new Map(ROWS.map((row, index) => [row, values[index] ?? []]));
      const like = zeros([3, 3]);
      assert.deepEqual(
        rowsOf(
          perToken(ROWS, like, (row) => places.get(row) ?? []),
          ROWS,
        ),
        values,
      );
    });
  });
});

describe('lossWeights', () => {
  const options = { device: 'cpu', counts: () => true };
  const settings = { groupSize: 3, sampling: { maxNewTokens: 5 } };
  const weightsBy = (reduction: ReductionSettings['reduction'], groupSize = 3): Tensor =>
    lossWeights(ROWS, { ...settings, groupSize, reduction }, options);

  test('by hand: 1/(B·L) of every row, 1/ΣL of all, 1/(P·ΣL of the prompt)', () => {
    tidy(() => {
      const third = 1 / 3;
      expectClose(weightsBy({ kind: 'sequenceMean' }), [
        [third / 3, third / 3, third / 3],
        [third, 0, 0],
        [third / 2, third / 2, 0],
      ]);
      const sixth = [
        [1 / 6, 1 / 6, 1 / 6],
        [1 / 6, 0, 0],
        [1 / 6, 1 / 6, 0],
      ];
      expectClose(weightsBy({ kind: 'tokenMean' }), sixth);
      expectClose(weightsBy({ kind: 'promptMean' }), sixth);
      expectClose(weightsBy({ kind: 'promptMean' }, 1).sum(1), [third, third, third]);
    });
  });

  test('a constant divisor is the one set, or else the most that may be drawn', () => {
    tidy(() => {
      for (const [budget, divisor] of [
        [null, 5],
        [4, 4],
      ] as const) {
        const weight = 1 / (3 * divisor);
        expectClose(weightsBy({ kind: 'constant', budget }), [
          [weight, weight, weight],
          [weight, 0, 0],
          [weight, weight, 0],
        ]);
      }
    });
  });

  test('a row that does not count weighs nothing and still counts as a row', () => {
    tidy(() => {
      const counts = (row: TokenRow): boolean => row !== ROWS[0];
      const sequenceMean = { ...settings, reduction: { kind: 'sequenceMean' } } as const;
      const weights = lossWeights(ROWS, sequenceMean, { ...options, counts });
      expectClose(weights, [
        [0, 0, 0],
        [1 / 3, 0, 0],
        [1 / 6, 1 / 6, 0],
      ]);
    });
  });
});

describe('what the model drew', () => {
  const talked: readonly TokenRow[] = [
    { promptIds: [3], completionIds: [4, 5, 6], completionMask: [1, 0, 1] },
    { promptIds: [3], completionIds: [4] },
  ];

  test('is counted, without what an environment wrote', () => {
    assert.deepEqual(talked.map(drawnTokens), [2, 1]);
  });

  test('is 1 in the mask, of rows that count', () => {
    tidy(() => {
      assert.deepEqual(completionMask(talked, 4, () => true).toArray(), [
        [1, 0, 1, 0],
        [1, 0, 0, 0],
      ]);
      const mask = completionMask(talked, 3, (row) => row !== talked[0]);
      assert.deepEqual(mask.toArray(), [
        [0, 0, 0],
        [1, 0, 0],
      ]);
      assert.equal(mask.dtype, 'float64');
    });
  });

  test('alone has a weight', () => {
    tidy(() => {
      const weights = lossWeights(
        talked,
        { groupSize: 1, sampling: { maxNewTokens: 5 }, reduction: { kind: 'tokenMean' } },
        { device: 'cpu', counts: () => true },
      );
      expectClose(weights, [
        [1 / 3, 0, 1 / 3],
        [1 / 3, 0, 0],
      ]);
    });
  });

  test('may have been drawn among some tokens only: collate keeps which', () => {
    const supports = [Int32Array.of(4, 7), null, Int32Array.of(6)];
    const [first, second] = talked as [TokenRow, TokenRow];
    const { inputIds, ...with_ } = collate([{ ...first, supports }, second], 'cpu');
    assert.deepEqual(with_.supports, [supports, undefined]);
    inputIds.dispose();
    const without = collate(talked, 'cpu');
    assert.equal('supports' in without, false);
    without.inputIds.dispose();
  });
});

describe('weightsOfRows', () => {
  test('by hand: some rows of the step’s weights, as wide as their log-probabilities', () => {
    tidy(() => {
      const weights = tensor(
        [
          [1, 2, 3],
          [4, 5, 0],
          [6, 7, 0],
        ],
        { dtype: 'float64' },
      );
      const part = weightsOfRows(weights, [2, 1], zeros([2, 2]));
      assert.deepEqual(part.toArray(), [
        [6, 7],
        [4, 5],
      ]);
      assert.equal(part.dtype, 'float32');
    });
  });
});

describe('logprobPass', () => {
  test('is row by row what whole forward passes give, whatever the micro-batches, and leaves no gradient', () => {
    const model = tinyModel({ dtype: 'float64' });
    const temperature = 0.6;
    const expected = ROWS.map(({ promptIds, completionIds }) =>
      noGrad(() =>
        tidy(() => {
          const ids = [...promptIds, ...completionIds];
          const { logits } = model.forward({ inputIds: tensor([ids], { dtype: 'int64' }) });
          const all = logits.select(0, 0).div(temperature).logSoftmax(-1).toArray() as number[][];
          return completionIds.map((id, at) => all[promptIds.length + at - 1]?.[id] ?? NaN);
        }),
      ),
    );
    for (const maxTokens of [1, 10, 100]) {
      const actual = logprobPass(model, ROWS, { temperature, maxTokens });
      actual.forEach((row, index) => expectClose(row, expected[index] ?? [], { rtol: 1e-12 }));
    }
    assert.ok(model.parameters().every(({ grad }) => grad === null));
  });
});

describe('rememberOldLogprobs', () => {
  const logprobs = tensor([
    [-1, -2, -3],
    [-4, 0, 0],
    [-5, -6, 0],
  ]);

  test('fills in what is not known', () => {
    const rows = ROWS.map((row) => ({ ...row, oldLogprobs: [] as readonly number[] }));
    rememberOldLogprobs(rows, logprobs);
    assert.deepEqual(
      rows.map(({ oldLogprobs }) => oldLogprobs),
      [[-1, -2, -3], [-4], [-5, -6]],
    );
  });

  test('keeps what is known', () => {
    const rows = ROWS.map((row) => ({ ...row, oldLogprobs: row.completionIds.map(() => -9) }));
    rememberOldLogprobs(rows, logprobs);
    assert.deepEqual(
      rows.map(({ oldLogprobs }) => oldLogprobs),
      [[-9, -9, -9], [-9], [-9, -9]],
    );
  });
});
