import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { LineTail } from './lineTail.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-tail-'));
after(() => rmSync(folder, { recursive: true }));

let files = 0;
/** A file, what follows it, and what it has told: lines, `reset` and `long`. */
function followed(text: string, maxLineBytes = 1 << 22) {
  const path = join(folder, `file-${files++}`);
  writeFileSync(path, text);
  const told: string[] = [];
  const tail = new LineTail({
    open: async () => {
      try {
        return await open(path, 'r');
      } catch {
        return undefined;
      }
    },
    maxLineBytes,
    listener: {
      onReset: () => told.push('reset'),
      onLine: (line, offset) => told.push(`${offset}:${line.toString()}`),
      onLongLine: (offset) => told.push(`${offset}:long`),
    },
  });
  return { path, told, tail };
}

describe('LineTail', () => {
  test('lines are told once, with their places', async () => {
    const { path, told, tail } = followed('a\nbb\n');
    assert.equal(await tail.poll(), true);
    assert.equal(await tail.poll(), false);
    appendFileSync(path, 'c\n');
    assert.equal(await tail.poll(), true);
    assert.deepEqual(told, ['0:a', '2:bb', '5:c']);
  });

  test('a torn last line waits until it is whole', async () => {
    const { path, told, tail } = followed('a\nhal');
    await tail.poll();
    assert.deepEqual(told, ['0:a']);
    appendFileSync(path, 'f\n');
    await tail.poll();
    assert.deepEqual(told, ['0:a', '2:half']);
  });

  test('a file that was cut begins anew', async () => {
    const { path, told, tail } = followed('a\nb\nc\n');
    await tail.poll();
    truncateSync(path, 2);
    await tail.poll();
    assert.deepEqual(told, ['0:a', '2:b', '4:c', 'reset', '0:a']);
  });

  test('a file that was cut and has grown beyond where it was begins anew', async () => {
    const { path, told, tail } = followed('a\nb\n');
    await tail.poll();
    truncateSync(path, 2);
    appendFileSync(path, 'x\ny\nz\n');
    await tail.poll();
    assert.deepEqual(told.slice(2), ['reset', '0:a', '2:x', '4:y', '6:z']);
  });

  test('a file that is gone is void; one that comes back is read', async () => {
    const { path, told, tail } = followed('a\n');
    await tail.poll();
    rmSync(path);
    assert.equal(await tail.poll(), true);
    assert.equal(await tail.poll(), false);
    writeFileSync(path, 'b\n');
    await tail.poll();
    assert.deepEqual(told, ['0:a', 'reset', '0:b']);
  });

  test('a line that is too long is passed over, also while it grows', async () => {
    const { path, told, tail } = followed(`a\n${'x'.repeat(100)}`, 10);
    await tail.poll();
    appendFileSync(path, 'x'.repeat(100));
    await tail.poll();
    appendFileSync(path, 'x\nb\n');
    await tail.poll();
    assert.deepEqual(told, ['0:a', '2:long', '204:b']);
  });

  test('lines that cross the pieces that are read are whole', async () => {
    const lines = Array.from({ length: 40 }, (_, at) => String(at).padEnd(70_000 + at, '.'));
    const { told, tail } = followed(`${lines.join('\n')}\n`);
    await tail.poll();
    assert.deepEqual(
      told.map((each) => each.slice(each.indexOf(':') + 1)),
      lines,
    );
  });

  test('a long file is told in parts, each line once, whatever happens to it in between', async () => {
    const lines = Array.from({ length: 40 }, (_, at) => String(at).padEnd(200_000, '.'));
    const { path, told, tail } = followed(`${lines.join('\n')}\n`);
    await tail.poll(1);
    const first = told.length;
    assert.ok(first > 0 && first < 40 && !tail.isAtEnd);
    appendFileSync(path, 'end\n');
    while (!tail.isAtEnd) await tail.poll(1 << 20);
    assert.deepEqual(
      told.map((each) => each.slice(each.indexOf(':') + 1)),
      [...lines, 'end'],
    );
    assert.equal(await tail.poll(1), false);
  });

  test('a line longer than a part does not hold the rest up', async () => {
    const { told, tail } = followed(`${'x'.repeat(3 << 20)}\nb\n`);
    await tail.poll(10);
    await tail.poll(10);
    assert.equal(tail.isAtEnd, true);
    assert.deepEqual(
      told.map((each) => each.length),
      [2 + (3 << 20), `${(3 << 20) + 1}:b`.length],
    );
  });
});
