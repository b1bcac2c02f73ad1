import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { format } from 'prettier';
import { folderBytes, installTable, stagesOf } from './install.js';
import { circumstances } from './machine.js';

test('stages are read from what the set-up prints; one that it left out is left out', () => {
  const output = [
    '[setup] npm packages: installing',
    '[setup] npm packages: installed (12.5 s)',
    '[setup] libtorch: 2.13.0 for the CPU from cache, /somewhere (1 s) else',
    '[setup] addon: compiling 30 of 30 files with g++ (Debian)',
    '[setup] addon: built /somewhere/posttrain.node (274.0 s)',
    '[setup] TypeScript: compiled 881 files (44.5 s)',
    '',
  ].join('\n');
  assert.deepEqual(stagesOf(output), [
    { stage: 'npm packages', seconds: 12.5 },
    { stage: 'addon: compiling', seconds: 274 },
    { stage: 'TypeScript', seconds: 44.5 },
  ]);
});

test('the bytes of a folder are those of all files below it, and links are not followed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-bench-install-'));
  try {
    mkdirSync(join(folder, 'below'));
    writeFileSync(join(folder, 'one'), 'x'.repeat(1000));
    writeFileSync(join(folder, 'below', 'two'), 'x'.repeat(234));
    assert.equal(folderBytes(folder), 1234);
    symlinkSync('one', join(folder, 'link'));
    assert.equal(folderBytes(folder), 1237);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('the tables hold sizes, the sum of all stages, and where libtorch came from', async () => {
  const table = installTable({
    ...{ case: 'install', circumstances: circumstances(), libtorch: 'cached' },
    sizes: [
      { part: 'packed', bytes: 1.5 * 2 ** 20 },
      { part: 'libtorch', bytes: 2000 * 2 ** 20 },
    ],
    stages: [
      { stage: 'git clone', seconds: 1.25 },
      { stage: 'addon', seconds: 60.5 },
    ],
  });
  assert.match(table, /\| packed\s+\|\s+1\.5 \|\n\| libtorch\s+\|\s+2,000 \|/);
  assert.match(table, /\| all of them\s+\|\s+61\.8 \|/);
  assert.match(table, /libtorch was in the cache/);
  assert.equal(await format(table, { parser: 'markdown' }), `${table}\n`);
});
