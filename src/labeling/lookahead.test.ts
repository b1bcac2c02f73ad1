import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NumericsError } from '../errors/index.js';
import { comparisonOf, type Comparison } from './comparison.js';
import { Lookahead } from './lookahead.js';

const comparisonAt = (row: number, text = 'x'): Comparison =>
  comparisonOf(row, [{ text: `${text}${row}`, finishReason: 'eos', tokens: 1 }], 0);

/** A lookahead whose batches end when they are told to. */
function slow(prompts: number, ahead: number) {
  const batches: { rows: readonly number[]; end: (error?: Error) => void }[] = [];
  const lookahead = new Lookahead({
    prompts,
    ahead,
    compare: (rows) =>
      new Promise((resolve, reject) => {
        const end = (error?: Error): void =>
          error ? reject(error) : resolve(rows.map((row) => comparisonAt(row)));
        batches.push({ rows, end });
      }),
  });
  const tick = () => new Promise((resolve) => setImmediate(resolve));
  return { lookahead, batches, tick };
}

describe('Lookahead', () => {
  test('the first prompt is sampled alone, the next ones together while a person reads', async () => {
    const { lookahead, batches, tick } = slow(9, 4);
    const first = lookahead.get(0);
    await tick();
    assert.deepEqual(
      batches.map(({ rows }) => rows),
      [[0]],
      'one batch at a time',
    );
    batches[0]?.end();
    assert.deepEqual(await first, comparisonAt(0));
    await tick();
    assert.deepEqual(batches[1]?.rows, [1, 2, 3, 4]);
    batches[1]?.end();
    assert.deepEqual(await lookahead.get(1), comparisonAt(1));
    await tick();
    assert.equal(batches.length, 2, 'one missing prompt is not worth a batch');
    assert.deepEqual(await lookahead.get(2), comparisonAt(2));
    await tick();
    assert.deepEqual(batches[2]?.rows, [5, 6]);
    assert.deepEqual(await lookahead.get(3), comparisonAt(3), 'nobody waits for what is behind');
  });
  test('samples every prompt once, and none behind the last', async () => {
    for (const [prompts, ahead] of [
      [1, 4],
      [7, 4],
      [6, 1],
      [5, 0],
    ] as const) {
      const rows: number[] = [];
      const sizes: number[] = [];
      const compare = (batch: readonly number[]) => {
        sizes.push(batch.length);
        rows.push(...batch);
        return Promise.resolve(batch.map((row) => comparisonAt(row)));
      };
      const lookahead = new Lookahead({ prompts, ahead, compare });
      for (let row = 0; row < prompts; row++)
        assert.deepEqual(await lookahead.get(row), comparisonAt(row));
      await lookahead.settled();
      assert.deepEqual(
        rows,
        Array.from({ length: prompts }, (_, row) => row),
      );
      assert.ok(
        sizes.every((size) => size > 0),
        'no empty batch',
      );
    }
  });
  test('what is put back is not sampled again', async () => {
    const sampled: number[] = [];
    const compare = (rows: readonly number[]) => {
      sampled.push(...rows);
      return Promise.resolve(rows.map((row) => comparisonAt(row)));
    };
    const lookahead = new Lookahead({ prompts: 6, ahead: 1, compare });
    await lookahead.get(3);
    lookahead.put(comparisonAt(1, 'kept'));
    lookahead.put(comparisonAt(2, 'kept'));
    assert.deepEqual(await lookahead.get(1), comparisonAt(1, 'kept'));
    assert.deepEqual(await lookahead.get(2), comparisonAt(2, 'kept'));
    assert.deepEqual(await lookahead.get(3), comparisonAt(3));
    await lookahead.settled();
    assert.deepEqual(sampled, [3, 4]);
  });
  test('a failure is told to who asks, and breaks nothing for who does not', async () => {
    const { lookahead, batches, tick } = slow(9, 2);
    const first = lookahead.get(0);
    await tick();
    batches[0]?.end();
    await first;
    await tick();
    batches[1]?.end(new NumericsError('no finite distribution'));
    await lookahead.settled();
    await assert.rejects(lookahead.get(1), { message: 'no finite distribution' });
  });
});
