import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { IoError, NumericsError } from '../errors/index.js';
import { asIoError, cutLines, LineFile, replaceFile } from './files.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-files-'));
after(() => rmSync(folder, { recursive: true }));

describe('LineFile', () => {
  test('a full disk is an IoError with advice', () => {
    const file = new LineFile('/dev/full');
    assert.throws(
      () => file.append('line\n'),
      (error: unknown) => {
        assert.ok(error instanceof IoError);
        assert.equal(error.message, 'Writing /dev/full: the disk is full.');
        assert.equal(error.hint, 'Free some space on the disk, then go on with --resume.');
        return true;
      },
    );
    file.close();
    file.close();
  });
});

describe('cutLines', () => {
  const cut = (text: string): [number, string] => {
    const path = join(folder, 'lines');
    writeFileSync(path, text);
    return [cutLines(path, (line) => line.startsWith('x')), readFileSync(path, 'utf8')];
  };
  test('cuts before the first surplus line, whatever follows it', () => {
    assert.deepEqual(cut('a\nx\nb\n'), [2, 'a\n']);
    assert.deepEqual(cut('x\n'), [1, '']);
    assert.deepEqual(cut('a\nb\n'), [0, 'a\nb\n']);
  });
  test('cuts a last line that was not finished', () => {
    assert.deepEqual(cut('ä\nb'), [1, 'ä\n']);
  });
  test('counts lines across the pieces it reads', () => {
    const long = `${'ö'.repeat(400_000)}\n`;
    assert.deepEqual(cut(`${long}${long}${long}x\n`), [1, long.repeat(3)]);
  });
  test('a file that is not there has nothing to cut', () => {
    assert.equal(
      cutLines(join(folder, 'none'), () => true),
      0,
    );
  });
});

describe('replaceFile', () => {
  test('leaves the old file, and no other, when it fails', () => {
    const path = join(folder, 'taken');
    writeFileSync(path, 'old');
    assert.throws(() => replaceFile(join(path, 'below'), 'new'), IoError);
    assert.equal(readFileSync(path, 'utf8'), 'old');
    replaceFile(path, 'new');
    assert.equal(readFileSync(path, 'utf8'), 'new');
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.includes('tmp')),
      [],
    );
  });
});

describe('asIoError', () => {
  test('leaves errors of posttrain, and bugs, as they are', () => {
    const own = new NumericsError('nan');
    const bug = new TypeError('x is not a function');
    assert.equal(asIoError(own, 'Saving'), own);
    assert.equal(asIoError(bug, 'Saving'), bug);
  });
});
