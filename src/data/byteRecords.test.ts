import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, mock, test } from 'node:test';
import { byteRecords } from './byteRecords.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-byte-records-'));
after(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'text');

async function recordsOf(kind: 'lines' | 'csv', mostBytes?: number) {
  const found: { length: number; start: number; line: number }[] = [];
  for await (const { records } of byteRecords(path, kind, mostBytes))
    for (const { bytes, start, line } of records) found.push({ length: bytes.length, start, line });
  return found;
}

describe('byteRecords', () => {
  test('of a line of 64 MB every byte is copied once', async () => {
    const size = 64 * 2 ** 20;
    for (const [kind, quote] of [
      ['lines', ''],
      ['csv', '"'],
    ] as const) {
      writeFileSync(path, `ab\n${quote}${'y\n'.repeat(kind === 'csv' ? 5 : 0)}`);
      const head = kind === 'csv' ? 11 : 0;
      writeFileSync(path, Buffer.alloc(size - head, 'y'), { flag: 'a' });
      writeFileSync(path, `${quote}\nc`, { flag: 'a' });
      let copied = 0;
      const concat = Buffer.concat.bind(Buffer);
      const counted = mock.method(Buffer, 'concat', (parts: readonly Uint8Array[]) => {
        const whole = concat(parts);
        copied += whole.length;
        return whole;
      });
      const found = await recordsOf(kind);
      counted.mock.restore();
      const length = size + (kind === 'csv' ? 1 : 0);
      assert.deepEqual(found, [
        { length: 2, start: 0, line: 1 },
        { length, start: 3, line: 2 },
        { length: 1, start: 4 + length, line: kind === 'csv' ? 8 : 3 },
      ]);
      assert.equal(copied, length);
    }
  });
  test('a record of more bytes than a text may have is refused with its line', async () => {
    writeFileSync(path, 'abcd\n"ab\ncd"\nabcde');
    assert.equal((await recordsOf('csv', 7)).length, 3);
    await assert.rejects(recordsOf('csv', 6), {
      code: 'E_DATA',
      message: `${path}:2:1: expected a record of at most 6 bytes, received a longer one.`,
      hint: /double quote that is not closed/,
    });
    assert.equal((await recordsOf('lines', 5)).length, 4);
    await assert.rejects(recordsOf('lines', 4), {
      code: 'E_DATA',
      message: `${path}:4:1: expected a line of at most 4 bytes, received a longer one.`,
      hint: /a line of its own/,
    });
  });
});
