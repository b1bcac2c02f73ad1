import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { createModel, parseDecoderConfig } from '../models/index.js';
import { tinyModel } from '../../test/tinyRun.js';
import { noGrad, tensor, tidy, zeros, type Tensor } from '../torch/index.js';
import {
  collate,
  completionMask,
  drawnTokens,
  logprobPass,
  lossWeights,
  microBatches,
  microBatchesByUse,
  promptNumbers,
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

describe('microBatches', () => {
  test('every row once, and none larger than the budget unless it is a single row', () => {
    for (const maxTokens of [1, 4, 9, 10, 100]) {
      const batches = microBatches(ROWS, maxTokens);
      assert.deepEqual(
        batches.flat().sort((a, b) => a - b),
        [0, 1, 2],
      );
      for (const batch of batches) {
        const longest = Math.max(
          ...batch.map(
            (at) => (ROWS[at]?.promptIds.length ?? 0) + (ROWS[at]?.completionIds.length ?? 0),
          ),
        );
        assert.ok(batch.length === 1 || batch.length * longest <= maxTokens);
      }
    }
    assert.deepEqual(microBatches(ROWS, 15), [[1, 0, 2]]);
  });

  // Units of two rows, whose longest have 4, 9, 5 and 3 tokens.
  const pairs: readonly TokenRow[] = [4, 2, 1, 9, 5, 5, 3, 2].map((length, row) => ({
    promptIds: [3 + row],
    completionIds: Array.from({ length: length - 1 }, () => 4),
  }));

  test('units stay together and in order', () => {
    for (const maxTokens of [1, 8, 16, 20, 100]) {
      const batches = microBatches(pairs, maxTokens, { unitSize: 2 });
      assert.deepEqual(
        batches.flat().toSorted((a, b) => a - b),
        [...pairs.keys()],
      );
      for (const batch of batches) {
        batch.forEach((at, place) => {
          if (place % 2 === 1) assert.equal(at, (batch[place - 1] ?? NaN) + 1);
        });
        // Padding is not computed where rows differ much.
        const tokens = batch.reduce(
          (sum, at) => sum + (pairs[at]?.completionIds.length ?? NaN) + 1,
          0,
        );
        assert.ok(batch.length === 2 || tokens <= maxTokens);
      }
    }
    assert.deepEqual(microBatches(pairs, 100, { unitSize: 2 }), [[2, 3, 4, 5, 0, 1, 6, 7]]);
    assert.deepEqual(microBatches(pairs, 17, { unitSize: 2 }), [
      [2, 3],
      [4, 5, 0, 1],
      [6, 7],
    ]);
  });

  describe('of rows that share a prompt', () => {
    const of = (prompt: number, promptLength: number, drawn: number): TokenRow => ({
      promptIds: Array.from({ length: promptLength }, () => prompt),
      completionIds: Array.from({ length: drawn }, () => 1),
    });
    // Two prompts of 10 tokens, in turn.
    const groups = [of(5, 10, 2), of(6, 10, 4), of(5, 10, 3), of(6, 10, 1), of(5, 10, 1)];

    test('the prompt counts once: rows of the longest prompt first, its longest row first', () => {
      assert.deepEqual(microBatches(groups, 100), [[1, 3, 2, 0, 4]]);
      // A prompt, its completions, and a sixteenth of the prompt for each that continues it with more than one token:
      // 10 + 4 + 1 + 10/16, and 10 + 3 + 2 + 1 + 2·10/16.
      assert.deepEqual(microBatches(groups, 17.25), [
        [1, 3],
        [2, 0, 4],
      ]);
      assert.deepEqual(microBatches(groups, 17), [[1, 3], [2, 0], [4]]);
      // 2·10 + 4 + 1 + 3 + 2 + 1 + 3·10/16
      assert.deepEqual(microBatches(groups, 32.875), [[1, 3, 2, 0, 4]]);
      assert.deepEqual(microBatches(groups, 32.8), [[1, 3, 2, 0], [4]]);
    });

    test('short prompts do not make a rectangle larger than it is', () => {
      const rows = [of(5, 1, 8), of(6, 1, 8), of(7, 1, 8)];
      assert.deepEqual(microBatches(rows, 27), [[0, 1, 2]]);
    });

    test('a unit’s prompt counts once too', () => {
      const pairs = [of(5, 10, 2), of(5, 10, 3), of(6, 10, 2), of(6, 10, 2)];
      // 2·10 + 3 + 3·2 + 4·10/16
      assert.deepEqual(microBatches(pairs, 31.5, { unitSize: 2 }), [[0, 1, 2, 3]]);
      assert.deepEqual(microBatches(pairs, 31, { unitSize: 2 }), [
        [0, 1],
        [2, 3],
      ]);
    });

    test('counts the padding of completions of nearly the same length', () => {
      // A prompt of 20 tokens, a part of 3 × 10 and one of 7, and four copies of the prompt at a sixteenth.
      const rows = [of(5, 20, 10), of(5, 20, 9), of(5, 20, 8), of(5, 20, 7)];
      assert.deepEqual(microBatches(rows, 62), [[0, 1, 2, 3]]);
      assert.deepEqual(microBatches(rows, 61.9), [[0, 1, 2], [3]]);
    });

    test('counts the rectangle where sharing saves too little to be done', () => {
      // 1 + 10·100 + 9/16 tokens with the prompt once; 10·101 as a rectangle.
      const rows = [of(5, 1, 100), ...Array.from({ length: 9 }, () => of(5, 1, 80))];
      assert.deepEqual(microBatches(rows, 1009).length, 2);
      assert.deepEqual(microBatches(rows, 1010).length, 1);
    });

    test('counts it with every row where no prompt is shared: whole rows, frequencies that depend on length', () => {
      const dynamic = createModel(
        parseDecoderConfig({
          ...{ model_type: 'llama', vocab_size: 8, hidden_size: 8, intermediate_size: 8 },
          ...{ num_hidden_layers: 1, num_attention_heads: 1, max_position_embeddings: 8 },
          rope_scaling: { rope_type: 'dynamic', factor: 2 },
        }),
        { seed: 1 },
      );
      const plain = tinyModel({ dtype: 'float32' });
      const rows = [of(5, 10, 2), of(5, 10, 2), of(5, 10, 2)];
      for (const through of [false, [dynamic], [plain, dynamic]] as const) {
        assert.deepEqual(microBatches(rows, 35, { through }), [[0, 1], [2]]);
        assert.deepEqual(microBatches(rows, 36, { through }), [[0, 1, 2]]);
      }
      for (const through of [[], [plain, null]] as const)
        assert.deepEqual(microBatches(rows, 18, { through }), [[0, 1, 2]]);
      dynamic.dispose();
      plain.dispose();
    });

    test('equal prompts are one, whether rows hold the same array or not', () => {
      const shared = [1, 2];
      const rows = [[3], shared, [1, 2], shared, [12]].map((promptIds) => ({ promptIds }));
      assert.deepEqual(promptNumbers(rows), [0, 1, 1, 1, 4]);
      assert.deepEqual(promptNumbers([{ promptIds: [1, 2] }, { promptIds: [12] }]), [0, 1]);
    });
  });

  test('by use: a unit moves the policy where one of its rows does', () => {
    const moving = new Set([pairs[1], pairs[4]]);
    const parts = microBatchesByUse(pairs, 100, (row) => moving.has(row), { unitSize: 2 });
    assert.deepEqual(parts, [
      { indices: [4, 5, 0, 1], moves: true },
      { indices: [2, 3, 6, 7], moves: false },
    ]);
  });

  test('by use: rows that cannot move the policy are apart and marked', () => {
    const parts = microBatchesByUse(ROWS, 100, (row) => row !== ROWS[1]);
    assert.deepEqual(parts, [
      { indices: [0, 2], moves: true },
      { indices: [1], moves: false },
    ]);
  });

  test('by use: where no row can move it, all are treated alike', () => {
    const parts = microBatchesByUse(ROWS, 100, () => false);
    assert.deepEqual(parts, [{ indices: [1, 0, 2], moves: true }]);
  });

  test('by use: where all can, it is one set', () => {
    const parts = microBatchesByUse(ROWS, 5, () => true);
    assert.deepEqual(
      parts.map(({ indices }) => indices),
      [[1], [0], [2]],
    );
    assert.ok(parts.every(({ moves }) => moves));
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
