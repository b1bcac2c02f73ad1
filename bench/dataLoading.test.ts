import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { format } from 'prettier';
import { readRows, storeRows } from '../src/data/index.js';
import { DATA_FORMATS, dataColumns, wordsOf, writeDataFile } from './dataFiles.js';
import { dataRows, dataTable, fastestTraining, type DataReport } from './dataLoading.js';
import { circumstances } from './machine.js';
import type { Row } from './results.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-bench-data-'));
after(() => rmSync(folder, { recursive: true }));

for (const kind of DATA_FORMATS)
  test(`${kind}: what is written is read again, in order and by place, over several row groups`, async () => {
    const texts = Array.from({ length: 2300 }, (_, row) => `é "${row}",\n${'x'.repeat(row % 300)}`);
    const columns = { prompt: texts, completion: texts.map((text) => `${text}!`) };
    const path = join(folder, `rows.${kind}`);
    writeDataFile(path, kind, columns);
    const expected = texts.map((prompt) => ({ prompt, completion: `${prompt}!` }));
    const rows = await readRows(path);
    assert.deepEqual(
      rows.map(({ values }) => values),
      expected,
    );
    const stored = await storeRows(path);
    const found = await stored.read([2299, 0, 1000]);
    assert.deepEqual(
      found.map(({ values }) => values),
      [expected[2299], expected[0], expected[1000]],
    );
  });

test('rows are as long as said, different, and the same in every run', () => {
  const words = ['and', 'of', 'seldom', 'rows'];
  const { prompt = [], completion = [] } = dataColumns('completion', 20, words);
  assert.deepEqual([...new Set(prompt.map(({ length }) => length))], [250]);
  assert.deepEqual([...new Set(completion.map(({ length }) => length))], [750]);
  assert.equal(new Set([...prompt, ...completion]).size, 40);
  assert.deepEqual(dataColumns('completion', 20, words), { prompt, completion });
});

test('words are the tokens that begin with a space and are letters, by rising id', () => {
  const vocab = { Ġrare: 900, Ġthe: 262, Ġ7: 767, ing: 278, ĠThe: 383, Ġa: 257 };
  assert.deepEqual(wordsOf(JSON.stringify({ model: { vocab } })), ['a', 'the', 'rare']);
});

const report = (seconds: number, mib: number, batches: DataReport['batches']): DataReport => ({
  read: { rows: 100, tokens: 20_000, seconds },
  batches,
  peakBytes: mib * 2 ** 20,
});

test('rates are medians over processes, and the peak is the largest', () => {
  const file = { format: 'csv', content: 'text' } as const;
  const reports = [report(1, 100, null), report(2, 300, null), report(4, 200, null)];
  assert.deepEqual(dataRows(file, reports, 1e6), [
    {
      ...{ ...file, stage: 'in memory', rowsPerSecond: 50, bytesPerSecond: 5e5 },
      ...{ tokensPerSecond: 10_000, peakRssMib: 300 },
    },
  ]);
});

test('streaming has two stages; bytes of its batches are the share of rows that they read', () => {
  const batches = { rows: 50, tokens: 9000, seconds: 0.5 };
  const file = { format: 'jsonl', content: 'pair' } as const;
  const [before, during] = dataRows(file, [report(1, 100, batches)], 1e6);
  assert.equal(before?.stage, 'streaming, before training');
  assert.equal(before.bytesPerSecond, 1e6);
  assert.equal(during?.stage, 'streaming, while training');
  assert.deepEqual(
    [during.rowsPerSecond, during.bytesPerSecond, during.tokensPerSecond],
    [100, 1e6, 18_000],
  );
});

test('training is the cell with most tokens per second, and no cells are refused', () => {
  const row = (name: string, value: number): Row => ({
    ...{ name, quantity: 'tokens/s', job: { kind: 'dispatch', rounds: 1, calls: 1 } },
    ours: {
      ...{ median: value, best: value, processes: [value], threads: 2, othersShare: null },
      peakRssMib: 1,
    },
  });
  const rows = [row('slow', 10), row('fast', 4000), row('middle', 300)];
  assert.deepEqual(fastestTraining({ rows }), { name: 'fast', tokensPerSecond: 4000 });
  assert.throws(() => fastestTraining({ rows: [] }), {
    message: 'bench: expected cells of tokens per second in sft.trl.json, received none.',
  });
});

test('the table holds how many times the training the rate is, in the form of prettier', async () => {
  const file = { format: 'parquet', content: 'text' } as const;
  const table = dataTable({
    ...{ case: 'data', circumstances: circumstances(), rowsPerFile: 20_000, processes: 1 },
    training: { name: 'tiny', tokensPerSecond: 4000 },
    rows: dataRows(file, [report(1, 100, null)], 1e6),
  });
  assert.match(table, /\| Parquet: text; in memory \|\s+100 \|\s+1\.0 \|\s+20,000 \|\s+5\.00 \|/);
  assert.equal(await format(table, { parser: 'markdown' }), `${table}\n`);
});
