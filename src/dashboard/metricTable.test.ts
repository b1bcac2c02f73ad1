import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MetricTable } from './metricTable.js';
import type { Series } from './protocol.js';
import { continued } from './view/curves.js';

function tableOf(lines: readonly object[]): MetricTable {
  const table = new MetricTable();
  for (const line of lines) table.add(JSON.stringify(line));
  return table;
}

describe('MetricTable', () => {
  test('a metric that only some lines have is null in the others', () => {
    const table = tableOf([
      { step: 1, loss: 3 },
      { step: 2, loss: 2, 'eval/loss': 5 },
      { step: 3, loss: 1 },
    ]);
    const { values, exact, buckets } = table.series({ points: 10 });
    assert.equal(exact, true);
    assert.deepEqual(buckets.step, [1, 2, 3]);
    assert.deepEqual(values['eval/loss']?.mean, [null, 5, null]);
    assert.deepEqual(values['loss']?.mean, [3, 2, 1]);
  });

  test('a bucket has the smallest, largest and mean value of its lines', () => {
    const table = tableOf([4, 1, 7, 2, 9, 10].map((loss, at) => ({ step: at + 1, loss })));
    const { values, exact, buckets } = table.series({ points: 2, keys: ['loss'] });
    assert.equal(exact, false);
    assert.deepEqual(buckets.step, [4, 6]);
    assert.deepEqual(values['loss'], { min: [1, 9], max: [7, 10], mean: [3.5, 9.5] });
  });

  test('there are never more buckets than points, of a whole run or a part of it', () => {
    const table = tableOf(Array.from({ length: 1000 }, (_, at) => ({ step: at + 1, loss: at })));
    for (const points of [1, 2, 3, 7, 100, 999, 1000]) {
      for (const [from, to] of [[], [1, 1000], [64, 65], [33, 97], [128, 255]]) {
        const { buckets, values } = table.series({ points, from, to });
        const lines = (to ?? 1000) - (from ?? 1) + 1;
        const fewest = lines <= points ? lines : points / 2 - 1;
        assert.ok(buckets.step.length <= points && buckets.step.length >= fewest);
        assert.equal(buckets.step.length, values['loss']?.mean.length);
        assert.equal(buckets.step.at(-1), to ?? 1000);
        if (values['loss']?.min) assert.equal(values['loss'].min[0], (from ?? 1) - 1);
      }
    }
  });

  test('what is new since an answer, put behind it, is the whole answer of now', () => {
    const table = new MetricTable();
    let known: Series | undefined;
    let sent = 0;
    for (let step = 1; step <= 700; step++) {
      const late = step > 300 && { late: step, tokens: 2 };
      table.add(JSON.stringify({ step, loss: Math.sin(step), ...late }));
      if (step % 3 !== 0) continue;
      const facts = { run: 'r', revision: 1 };
      const answer = { ...facts, ...table.series({ points: 50, since: known?.cursor }) };
      sent += answer.buckets.step.length;
      known = continued(known, answer);
      assert.deepEqual(known, { ...facts, ...table.series({ points: 50 }) });
    }
    // 233 answers of some 40 buckets each, were they whole.
    assert.ok(sent < 1000, `${sent} buckets`);
  });

  test('a cursor of another table, of other buckets or of nonsense gives everything', () => {
    const lines = Array.from({ length: 10 }, (_, at) => ({ step: at + 1, loss: at }));
    const [table, other] = [tableOf(lines), tableOf(lines)];
    const all = table.series({ points: 20 });
    const [id] = all.cursor.split('.');
    const cursors = [other.series({ points: 20 }).cursor, `${id}.2.10`, `${id}.1.-4`, `${id}.1.x`];
    for (const since of [...cursors, '', '...', 'x'])
      assert.deepEqual(table.series({ points: 20, since }), all, since);
    assert.equal(table.series({ points: 20, since: `${id}.1.99` }).first, 10);
  });

  test('a range of steps has both of its ends, and may lie between lines', () => {
    const table = tableOf([10, 20, 30, 40].map((step) => ({ step, loss: step })));
    assert.deepEqual(table.series({ points: 9, from: 20, to: 30 }).buckets.step, [20, 30]);
    assert.deepEqual(table.series({ points: 9, from: 21, to: 29 }).buckets.step, []);
  });

  test('what is not finite counts, and does not spoil the extremes', () => {
    const column = tableOf([
      { step: 1, loss: 3 },
      { step: 2, loss: null },
      { step: 3, loss: 1 },
    ]).column('loss');
    assert.deepEqual(
      [column?.count, column?.notFinite, column?.min, column?.max, column?.last],
      [2, 1, 1, 3, 2],
    );
  });

  test('seconds are those in steps: a pause between two processes is none', () => {
    const table = tableOf([
      { step: 1, time: '2026-01-01T00:00:00Z', stepSeconds: 2, tokens: 10 },
      { step: 2, time: '2026-01-09T00:00:00Z', stepSeconds: 3, tokens: 5 },
    ]);
    const { buckets } = table.series({ points: 5 });
    assert.deepEqual(buckets.seconds, [2, 5]);
    assert.deepEqual(buckets.tokens, [10, 15]);
  });

  test('lines that are no metrics, and steps that come again, are passed over', () => {
    const table = new MetricTable();
    for (const line of [
      '{"step":1,"loss":1}',
      '[]',
      '',
      '{"step":"x"}',
      '{"step":1,"loss":9}',
      '\0',
    ])
      table.add(line);
    assert.deepEqual([table.lines, table.skipped], [1, 5]);
    assert.equal(table.latest('loss'), 1);
  });

  test('names of prototypes are names like others', () => {
    const table = new MetricTable();
    table.add('{"step":1,"__proto__":1,"constructor":2,"toString":3}');
    const { values } = table.series({ points: 5 });
    assert.deepEqual(Object.keys(values), ['constructor', 'toString']);
    assert.equal(Object.getPrototypeOf(values), Object.prototype);
    assert.deepEqual(values['constructor'], {
      mean: [2],
    });
  });

  test('ever new names do not fill the memory', () => {
    const table = new MetricTable();
    for (let step = 1; step <= 1100; step++) table.add(JSON.stringify({ step, [`k${step}`]: 1 }));
    assert.equal(table.keys.length, 1000);
  });
});
