import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { tinyTokenizer } from '../../test/tinyRun.js';
import { tensor } from '../torch/index.js';
import { alternativesOf, topTokenRecord } from './alternatives.js';
import { UpdateRecord } from './updateRecord.js';

const rows = [2, 1, 3, 1].map((length, row) => ({
  promptIds: [1],
  completionIds: Array.from({ length }, (_, at) => 10 * row + at),
}));
const settings = { samplesPerStep: 1, sampleAlternatives: 2, groupSize: 2 };
const columns = (base: number) =>
  tensor([0, 1, 2].map((row) => [0, 1, 2].map((at) => base + 10 * row + at)));
/** Rows 0 and 2 of the pass are written down: two and three of its tokens. */
const top = {
  topIds: tensor(
    Int32Array.from({ length: 10 }, (_, at) => at),
    { shape: [5, 2], dtype: 'int64' },
  ),
  topLogprobs: tensor([-0.25, -0.5, -0.75, -1, -1.25, -Infinity, -1.75, -2, -2.25, -2.5]).view([
    5, 2,
  ]),
};

describe('UpdateRecord', () => {
  test('asks for the most likely tokens of the rows that are written down, and of no others', () => {
    const record = new UpdateRecord(rows, settings);
    const [first, second, third, fourth] = rows;
    assert.ok(first && second && third && fourth);
    assert.deepEqual(record.wanted([third, second, first]), {
      topTokens: { count: 2, rows: [1, 2] },
    });
    assert.deepEqual(record.wanted([third, fourth]), {});
    assert.deepEqual(
      new UpdateRecord(rows, { ...settings, sampleAlternatives: 0 }).wanted(rows),
      {},
    );
    assert.deepEqual(new UpdateRecord(rows, { ...settings, samplesPerStep: 0 }).wanted(rows), {});
  });

  test('keeps of the last pass what belongs to each row, in whatever order rows come', () => {
    const record = new UpdateRecord(rows, { ...settings, groupSize: 3 });
    const pass = [rows[2], rows[3], rows[0]].flatMap((row) => row ?? []);
    const scored = { logprobs: columns(0), entropy: columns(100), mask: columns(0) };
    record.note(pass, { ...scored, tokenWeights: columns(200) });
    const reversed = { topIds: top.topIds, topLogprobs: top.topLogprobs };
    // Now rows 0 and 2, with alternatives.
    const later = [rows[0], rows[3], rows[2]].flatMap((row) => row ?? []);
    record.note(later, { ...scored, ...reversed, tokenWeights: columns(300) });
    const [first, second, third] = record.map((_, update) => update);
    assert.deepEqual(first, {
      ...{ logprobs: [0, 1], entropy: [100, 101], tokenWeights: [300, 301] },
      alternatives: {
        ids: [
          [0, 1],
          [2, 3],
        ],
        logprobs: [
          [-0.25, -0.5],
          [-0.75, -1],
        ],
      },
    });
    assert.equal(second, undefined);
    assert.deepEqual(third?.logprobs, [20, 21, 22]);
    assert.deepEqual(third?.alternatives?.ids, [[4], [6, 7], [8, 9]]);
  });
});

describe('alternatives', () => {
  test('that a truncated sampler left out are none, and texts stand beside the ids', () => {
    const tokenizer = tinyTokenizer();
    const [found] =
      alternativesOf(
        { topIds: tensor([[3, 4]], { dtype: 'int64' }), topLogprobs: tensor([[-0.5, -Infinity]]) },
        [{ promptIds: [1], completionIds: [3] }],
      ) ?? [];
    assert.ok(found);
    assert.deepEqual(topTokenRecord(found, tokenizer), {
      ...{ ids: [[3]], tokens: [[tokenizer.tokenText(3)]], logprobs: [[-0.5]] },
    });
    assert.equal(alternativesOf({}, rows), undefined);
  });
});
