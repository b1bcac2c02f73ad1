import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ShapeError } from '../src/errors/index.js';
import { CASES } from './cells.js';
import type { Cell } from './jobs.js';
import type { Options } from './options.js';
import { requireSameTokens } from './runCase.js';
import type { Measurement } from './statistics.js';

const options: Options = {
  resume: false,
  fresh: false,
  profile: false,
  quiet: false,
  json: false,
  help: false,
};

test('no two cells of a case have the same name, which results files are kept by', () => {
  for (const [name, { cells }] of Object.entries(CASES)) {
    const names = cells(options).map((cell) => cell.name);
    assert.deepEqual([...new Set(names)], names, name);
    assert.ok(names.length > 0, name);
  }
});

test('every row of a training cell has as many characters as its tokens, the end token that is appended left out', () => {
  const rowsOf = (method: string): Record<string, string>[] => {
    const [cell] = CASES[method]?.cells({ ...options, shape: 'tiny' }) ?? [];
    assert.ok(cell?.job.kind === 'train');
    const lines = readFileSync(cell.job.data, 'utf8').trimEnd().split('\n');
    assert.equal(lines.length, cell.job.rows * (cell.job.warmUpSteps + cell.job.rounds));
    return lines.map((line) => JSON.parse(line) as Record<string, string>);
  };
  const lengths = (rows: Record<string, string>[]): string[] => [
    ...new Set(
      rows.map((row) =>
        Object.entries(row)
          .map(([name, text]) => `${name} ${Array.from(text).length}`)
          .join(', '),
      ),
    ),
  ];
  assert.deepEqual(lengths(rowsOf('sft')), ['text 255']);
  assert.deepEqual(lengths(rowsOf('dpo')), ['prompt 64, chosen 191, rejected 191']);
  assert.deepEqual(lengths(rowsOf('grpo')), ['prompt 64']);
});

test('two sides whose steps have other numbers of tokens are an error that names both', () => {
  const cell = { name: 'tiny', quantity: 'tokens/s' } as Cell;
  const side = (tokens: readonly number[]): Measurement => ({
    ...{ rounds: { 'tokens per step': tokens }, peakRssBytes: 1, cpuSeconds: 1, othersShare: 0 },
    ...{ threads: 2, versions: {}, cpuCapability: '' },
  });
  requireSameTokens(cell, side([8192, 8192]), side([8192, 8192]));
  assert.throws(
    () => requireSameTokens(cell, side([8192, 8151]), side([8192, 8192])),
    (error) => error instanceof ShapeError && /8192, 8151 and 8192, 8192/.test(error.message),
  );
});
