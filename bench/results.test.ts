import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { check, format, resolveConfig } from 'prettier';
import { circumstances, ROOT } from './machine.js';
import { ratioPlot } from './ratioPlot.js';
import { markdownTable, readResults, writeResults, type Results } from './results.js';

const side = {
  median: 1234.4,
  best: 1300,
  processes: [1234.4, 1200, 1250],
  threads: 2,
  othersShare: 0,
};
const results: Results = {
  case: 'generate',
  against: 'torch',
  circumstances: { ...circumstances(), cpuCapability: 'AVX512' },
  versions: { node: '20.0.0' },
  rows: [
    {
      name: 'tiny, batch 1',
      quantity: 'tokens/s',
      job: { kind: 'dispatch', rounds: 3, calls: 1000 },
      ours: { ...side, peakRssMib: 200 },
      against: { ...side, median: 99.94, peakRssMib: 1300 },
      ratio: { median: 12.351, lowest: 11, highest: 13.5 },
    },
  ],
};

test('a results file is read as it was written, and prettier leaves it alone', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-bench-'));
  try {
    const path = join(folder, 'results.json');
    writeResults(results, path);
    assert.deepEqual(readResults(path), results);
    const style = await resolveConfig(join(ROOT, 'package.json'));
    assert.ok(await check(readFileSync(path, 'utf8'), { ...style, parser: 'json' }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('a results file names no folder of the machine', () => {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-bench-'));
  try {
    const path = join(folder, 'results.json');
    const model = join(ROOT, 'build', 'bench', 'models', 'tiny');
    const [row] = results.rows;
    const job = { kind: 'generate', model } as unknown as Results['rows'][number]['job'];
    writeResults({ ...results, rows: row ? [{ ...row, job }] : [] }, path);
    const text = readFileSync(path, 'utf8');
    assert.ok(text.includes('"build/bench/models/tiny"'), text);
    assert.ok(!text.includes(ROOT));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('the table holds both sides, the ratio and its spread, in the form of prettier', async () => {
  const table = markdownTable(results);
  assert.match(table, /\| tiny, batch 1 \|\s+1,234 \|\s+99.9 \|\s+12.35 \|\s+11.00–13.50 \|/);
  assert.equal(await format(table, { parser: 'markdown' }), `${table}\n`);
});

test('the picture has a line and a point for each ratio, on a scale where 2 is half way from 1 to 4', () => {
  const [row] = results.rows;
  assert.ok(row);
  const ratios = [1, 2, 4].map((value) => ({ lowest: value, median: value, highest: value }));
  const svg = ratioPlot([{ ...results, rows: ratios.map((ratio) => ({ ...row, ratio })) }]);
  const places = [...svg.matchAll(/circle cx="([\d.]+)"/g)].map(([, x]) => Number(x));
  assert.equal(places.length, 3);
  const [one = NaN, two = NaN, four = NaN] = places;
  assert.ok(one < two && Math.abs(two - one - (four - two)) < 0.2);
  assert.equal(ratioPlot([{ ...results, rows: [] }]).includes('circle'), false);
});

test('columns that no row fills are left out: steps, shares, and a side that is not there', () => {
  const { against: _, ratio: __, ...alone } = results.rows[0] ?? assert.fail('no row');
  const table = markdownTable({ ...results, against: null, rows: [alone] });
  assert.deepEqual(
    table
      .split('\n')[0]
      ?.split('|')
      .map((title) => title.trim()),
    ['', '', 'posttrain, tokens/s', 'peak MiB', ''],
  );
});
