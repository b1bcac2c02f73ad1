import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createModel, parseDecoderConfig } from '../models/index.js';
import { tinyModel } from '../../test/tinyRun.js';
import { microBatches, microBatchesByUse, promptNumbers } from './microBatches.js';
import type { TokenRow } from './tokenRows.js';

// Lengths of prompt and completion differ, and so do their orders: swapping them shows.
const ROWS: readonly TokenRow[] = [
  { promptIds: [3], completionIds: [4, 5, 6] },
  { promptIds: [7, 8, 3, 4], completionIds: [5] },
  { promptIds: [6, 7], completionIds: [8, 3] },
];

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

  test('as few groups as the budget allows, and then as even ones as their number allows', () => {
    const rows = Array.from({ length: 18 }, (_, prompt): TokenRow => ({
      promptIds: [prompt],
      completionIds: Array.from({ length: 9 }, () => 1),
    }));
    const sizes = (maxTokens: number) => microBatches(rows, maxTokens).map(({ length }) => length);
    assert.deepEqual(sizes(180), [18]);
    assert.deepEqual(sizes(160), [9, 9]);
    assert.deepEqual(sizes(80), [6, 6, 6]);
    // Five groups are needed; four of them hold four rows.
    assert.deepEqual(sizes(40), [4, 4, 4, 4, 2]);
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
      [4, 5],
      [0, 1, 6, 7],
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
      assert.deepEqual(microBatches(groups, 17), [[1, 3], [2], [0, 4]]);
      // 2·10 + 4 + 1 + 3 + 2 + 1 + 3·10/16
      assert.deepEqual(microBatches(groups, 32.875), [[1, 3, 2, 0, 4]]);
      assert.deepEqual(microBatches(groups, 32.8), microBatches(groups, 17.25));
    });

    test('prompts whose longest rows are equal stay apart', () => {
      const inTurn = [of(5, 10, 4), of(6, 10, 4), of(5, 10, 3), of(6, 10, 3)];
      assert.deepEqual(microBatches(inTurn, 100), [[0, 2, 1, 3]]);
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
      assert.deepEqual(microBatches(rows, 61.9), [
        [0, 1],
        [2, 3],
      ]);
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
