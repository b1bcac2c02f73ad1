import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { makeFolder } from './index.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-folders-'));
after(() => rmSync(folder, { recursive: true }));

describe('makeFolder', () => {
  test('makes what is missing, and leaves what is there', () => {
    const path = join(folder, 'made', 'deeper');
    makeFolder(path);
    writeFileSync(join(path, 'file'), 'x');
    makeFolder(path);
    assert.equal(readFileSync(join(path, 'file'), 'utf8'), 'x');
  });
  test('refuses at once where none can be made', () => {
    writeFileSync(join(folder, 'plain'), '');
    assert.throws(() => makeFolder(join(folder, 'plain', 'below')), { code: 'ENOTDIR' });
    // Elsewhere than on Linux the folder of processes may be missing.
    const processes = existsSync('/proc/self') ? '/proc' : join(folder, 'plain');
    assert.throws(() => makeFolder(`${processes}/posttrain/run`), /ENOENT|ENOTDIR/);
  });
});
