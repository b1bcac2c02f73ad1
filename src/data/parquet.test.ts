import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { after, describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { DataError } from '../errors/index.js';
import { openParquet } from './parquet.js';
import { SeededRandom } from './random.js';
import { readRows } from './readRows.js';

const golden = (name: string): string => join(ROOT, 'test/golden/data', name);
const { rows: expected } = JSON.parse(readFileSync(golden('rows.json'), 'utf8')) as {
  rows: Record<string, unknown>[];
};
const folder = mkdtempSync(join(tmpdir(), 'posttrain-parquet-'));
after(() => rmSync(folder, { recursive: true }));

/** Writes a file and gives its path. */
function damaged(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

describe('openParquet', () => {
  for (const name of ['snappy', 'gzip', 'zstd', 'plain']) {
    test(`${name}: nested messages, integers, decimals and dates are what pyarrow wrote`, async () => {
      const rows = await readRows(golden(`${name}.parquet`));
      assert.deepEqual(
        rows.map(({ values }) => values),
        expected,
      );
      assert.deepEqual(
        rows.map(({ line }) => line),
        expected.map((_, index) => index + 1),
      );
    });
  }
  test('row groups are read one by one', async () => {
    const file = await openParquet(golden('snappy.parquet'));
    assert.deepEqual(
      file.groups.map(({ start, rowCount }) => [start, rowCount]),
      [
        [0, 16],
        [16, 16],
        [32, 8],
      ],
    );
    const ends = file.groups.map(({ end }) => end);
    assert.deepEqual(
      ends,
      ends.toSorted((a, b) => a - b),
    );
    assert.ok(new Set(ends).size === 3 && (ends[2] ?? 0) < statSync(golden('snappy.parquet')).size);
    const [, second] = file.groups;
    assert.ok(second, 'there is no second group');
    assert.deepEqual(await file.read(second), expected.slice(16, 32));
  });
  test('what a number does not hold exactly is refused, with row and column', async () => {
    for (const [name, message] of [
      [
        'longInteger',
        ':2: expected an integer that a number holds exactly (below 2^53) in column "answer", received 9007199254740993.',
      ],
      [
        'longDecimal',
        ':2: expected a decimal that a number holds exactly (below 2^53 without its point) in column "answer", received 12345678901234568.',
      ],
    ] as const) {
      const path = golden(`${name}.parquet`);
      await assert.rejects(readRows(path), { code: 'E_DATA', message: `${path}${message}` });
    }
  });
  test('text that is not UTF-8 is refused', async () => {
    await assert.rejects(readRows(golden('badText.parquet')), {
      code: 'E_DATA',
      message: /badText\.parquet: expected a Parquet file, but it cannot be read: .*valid.*\.$/,
    });
  });
  test('a file that is cut, or whose footer says what the file does not hold, is one clear error', async () => {
    const whole = readFileSync(golden('plain.parquet'));
    const withLength = (length: number): Uint8Array => {
      const bytes = Uint8Array.from(whole);
      new DataView(bytes.buffer).setUint32(bytes.length - 8, length, true);
      return bytes;
    };
    const footer = whole.subarray(whole.length - 8 - whole.readUInt32LE(whole.length - 8));
    for (const [name, bytes, message] of [
      ['cut.parquet', whole.subarray(0, whole.length / 2), /footer != PAR1/],
      ['short.parquet', whole.subarray(0, 7), /it has 7 bytes/],
      ['empty.parquet', new Uint8Array(0), /it has 0 bytes/],
      ['long.parquet', withLength(0x7fffffff), /metadata length 2147483647 exceeds/],
      ['zero.parquet', withLength(0), /cannot be read/],
      // The footer alone, without the columns that it speaks of.
      [
        'footer.parquet',
        Buffer.concat([Buffer.from('PAR1'), footer]),
        /expected a column up to byte \d+ as the file's footer says, received a file of \d+ bytes/,
      ],
    ] as const) {
      const path = damaged(name, bytes);
      await assert.rejects(
        readRows(path),
        (error) =>
          error instanceof DataError &&
          error.message.startsWith(`${path}: expected `) &&
          message.test(error.message),
        name,
      );
    }
  });
  test('a column of an unknown name after columns that are damaged is one error, and nothing comes after it', async () => {
    const bytes = Buffer.from(readFileSync(golden('plain.parquet')));
    const footer = bytes.length - 8 - bytes.readUInt32LE(bytes.length - 8);
    bytes.fill(0xff, 4, footer);
    const inSchema = bytes.indexOf('none', footer);
    bytes.write('x', bytes.indexOf('none', inSchema + 1)); // In the first row group.
    const path = damaged('unknown.parquet', bytes);
    await assert.rejects(readRows(path), { code: 'E_DATA', message: /cannot be read/ });
    await setTimeout(50); // An error that nobody handles would fail the test.
  });
  test('damage anywhere gives rows or an error of the data, and never anything else', async () => {
    const random = new SeededRandom(11);
    let refused = 0;
    for (const name of ['snappy', 'gzip', 'zstd', 'plain']) {
      const whole = readFileSync(golden(`${name}.parquet`));
      for (let round = 0; round < 40; round++) {
        const bytes = Uint8Array.from(whole);
        // The footer is the last part: half of the damage goes there.
        const from = round % 2 === 0 ? 0 : bytes.length - 4000;
        for (let flips = 0; flips < 3; flips++)
          bytes[from + random.nextInt(bytes.length - from)] = random.nextInt(256);
        const path = damaged('fuzz.parquet', bytes);
        try {
          await readRows(path);
        } catch (error) {
          assert.ok(error instanceof DataError, `${name}, round ${round}: ${String(error)}`);
          assert.ok(error.message.startsWith(path), error.message);
          refused++;
        }
      }
    }
    assert.ok(refused > 40, `${refused} were refused`);
  });
});
