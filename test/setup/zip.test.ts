import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { ZipScript } from './scripts.js';
import { loadScript, temporaryFolder } from './scripts.js';
import type { Entry } from './zipFile.js';
import { referenceCrc32, zipOf } from './zipFile.js';

const { unpackZip, crc32 } = await loadScript<ZipScript>('setup/zip.mjs');

const folder = temporaryFolder();
let count = 0;

/** Unpacks everything of an archive with these bytes into a new folder, and gives that folder. */
async function unpack(bytes: Buffer): Promise<string> {
  count += 1;
  const target = join(folder, `parent${count}`, 'target');
  mkdirSync(target, { recursive: true });
  const archive = join(folder, `archive${count}.zip`);
  writeFileSync(archive, bytes);
  await unpackZip(archive, target, (name) => name);
  return target;
}

/** Three mebibytes that do not compress to nothing: the path of the large libraries. */
const large = Buffer.from(
  Buffer.alloc(3 * 2 ** 20, 'libtorch ').map((byte, i) => byte ^ (i % 251)),
);

describe('unpackZip', () => {
  test('unpacks stored and deflated files, small and large, byte for byte', async () => {
    const entries: Entry[] = [
      { name: 'empty', content: '' },
      { name: 'a/stored', content: 'abc', stored: true },
      { name: 'a/b/deflated', content: 'x'.repeat(10_000) },
      { name: 'large', content: large },
      { name: 'large stored', content: large, stored: true },
    ];
    const target = await unpack(zipOf(entries));
    for (const { name, content } of entries)
      assert.ok(readFileSync(join(target, name)).equals(Buffer.from(content)), name);
  });

  test('keeps what makes a file executable and nothing else of its mode', async () => {
    const target = await unpack(
      zipOf([
        { name: 'library', content: 'x', mode: 0o104755 },
        { name: 'header', content: 'x', mode: 0o100644 },
      ]),
    );
    assert.equal(statSync(join(target, 'library')).mode & 0o7111, 0o111);
    assert.equal(statSync(join(target, 'header')).mode & 0o7111, 0);
  });

  test('unpacks only what is wanted, where it is wanted', async () => {
    const archive = join(folder, 'some.zip');
    writeFileSync(archive, zipOf(['a', 'b', 'c'].map((name) => ({ name, content: name }))));
    const target = join(folder, 'some');
    const result = await unpackZip(archive, target, (name) => (name === 'b' ? 'x/y' : undefined));
    assert.deepEqual(result, { files: 1, bytes: 1 });
    assert.deepEqual(readdirSync(target), ['x']);
    assert.equal(readFileSync(join(target, 'x/y'), 'utf8'), 'b');
  });

  describe('refuses', () => {
    for (const name of ['../out', 'a/../../out', '/out', 'a\\..\\out', 'C:/out', '..', '']) {
      test(`the name ${JSON.stringify(name)}, before anything is written`, async () => {
        const bytes = zipOf([
          { name: 'innocent', content: 'x' },
          { name, content: 'x' },
        ]);
        await assert.rejects(unpack(bytes), { message: /leads out of the archive/ });
        assert.deepEqual(readdirSync(join(folder, `parent${count}`)), ['target']);
        assert.deepEqual(readdirSync(join(folder, `parent${count}`, 'target')), []);
        assert.equal(existsSync('/out'), false);
      });
    }
    test('a symbolic link', async () => {
      const link: Entry = { name: 'link', content: '/etc', mode: 0o120777 };
      await assert.rejects(unpack(zipOf([link])), { message: /"link" leads out of the archive/ });
    });
    test('two files of one name', async () => {
      const twice = { name: 'a', content: 'x' };
      await assert.rejects(unpack(zipOf([twice, twice])), { code: 'EEXIST' });
    });
    for (const content of ['small', large]) {
      const kind = content === large ? 'large' : 'small';
      test(`a ${kind} file with a wrong checksum`, async () => {
        const bytes = zipOf([{ name: 'a', content, crc32: 1 }]);
        await assert.rejects(unpack(bytes), { message: /a has a wrong checksum/ });
      });
      test(`a ${kind} file that is longer or shorter than it says`, async () => {
        for (const off of [-1, 1]) {
          const bytes = zipOf([{ name: 'a', content, size: content.length + off }]);
          await assert.rejects(unpack(bytes), { message: /a has not the size it says/ });
        }
      });
      test(`a ${kind} file whose bytes were changed`, async () => {
        const bytes = zipOf([{ name: 'a', content }]);
        bytes.writeUInt8(bytes.readUInt8(33) ^ 0xff, 33);
        await assert.rejects(unpack(bytes), { message: /is not a sound zip archive: a / });
      });
    }
    test('an archive that was cut anywhere', async () => {
      const whole = zipOf([
        { name: 'a', content: 'x'.repeat(100) },
        { name: 'b', content: 'y' },
      ]);
      for (let length = 0; length < whole.length; length += 1)
        await assert.rejects(unpack(whole.subarray(0, length)), {
          message: /is not a sound zip archive/,
        });
    });
  });
});

describe('crc32', () => {
  test('gives the check value of the standard', () => {
    assert.equal(crc32(Buffer.from('123456789')), 0xcbf43926);
  });
  test('continues from the checksum of what came before', () => {
    const [first, second] = [large.subarray(0, 1000), large.subarray(1000, 5000)];
    const whole = referenceCrc32(large.subarray(0, 5000));
    assert.equal(crc32(second, crc32(first)), whole);
  });
});
