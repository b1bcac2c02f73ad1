import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { crc32c, encodeEvent, encodeRecord, EventWriter } from './tensorboard.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-events-'));
after(() => rmSync(folder, { recursive: true }));

describe('crc32c', () => {
  // RFC 3720, appendix B.4.
  const cases: [string, Uint8Array, number][] = [
    ['32 zeros', new Uint8Array(32), 0x8a9136aa],
    ['32 ones', new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ['counting up', Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ['counting down', Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
  ];
  for (const [name, bytes, expected] of cases) {
    test(`of ${name} is that of RFC 3720`, () => assert.equal(crc32c(bytes), expected));
  }
});

describe('encodeEvent', () => {
  test('writes the fields of tensorflow.Event by hand', () => {
    // 09 wall_time 1.0; 10 step 300 = ac 02; 2a summary { 0a value { 0a tag "a", 15 simple_value 1.5 } }
    assert.equal(
      encodeEvent({ wallSeconds: 1, step: 300, values: { a: 1.5 } }).toString('hex'),
      '09000000000000f03f' + '10ac02' + '2a0a' + '0a08' + '0a0161' + '150000c03f',
    );
  });
  test('steps beyond 32 bits keep their digits', () => {
    assert.equal(
      encodeEvent({ wallSeconds: 0, step: 2 ** 40 })
        .toString('hex')
        .slice(18),
      '10808080808020',
    );
  });
});

describe('EventWriter', () => {
  test('writes the records that TensorBoard read back when this test was made', () => {
    const now = new Date(1_700_000_000_000);
    const writer = new EventWriter(folder, 3, now);
    writer.scalars(3, { loss: 0.25, 'reward/exact-match': Number.NaN }, now);
    writer.close();
    assert.equal(
      basename(writer.path),
      `events.out.tfevents.1700000000.${hostname()}.${process.pid}`,
    );
    assert.equal(readFileSync(writer.path).toString('hex'), GOLDEN);
  });
  test('a record is its length, its data and both checksums', () => {
    const record = encodeRecord(Buffer.from('ab'));
    assert.equal(record.length, 8 + 4 + 2 + 4);
    assert.equal(record.readBigUInt64LE(0), 2n);
    assert.equal(record.subarray(12, 14).toString(), 'ab');
  });
});

/**
 * Read back by TensorBoard 2.21's event loader (tools/golden/readEvents.py): a version, a restart at step 3, and loss
 * 0.25 and NaN at step 3.
 */
const GOLDEN = [
  '1a00000000000000129bd82d0900000040fc54d94110001a0d627261696e2e4576656e743a32e6773e1a',
  '0f000000000000006d532b090900000040fc54d94110033a020801c78f2cbc',
  '3500000000000000d6c55de60900000040fc54d94110032a280a0b0a046c6f7373150000803e0a190a127265776172642f65786163742d6d61746368150000c07f1d979ac5',
].join('');
