import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { freemem, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { availableMemory } from './availableMemory.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-cgroup-'));
after(() => rmSync(root, { recursive: true }));
let machines = 0;

/** A machine whose /proc and /sys hold these files. */
function machine(files: Readonly<Record<string, string | number>>): string {
  const folder = join(root, String(machines++));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), `${text}\n`);
  }
  return folder;
}

const MB = 1e6;
/** A limit of control groups 2 small enough to be below what any machine has. */
const small = {
  'proc/self/cgroup': '0::/job/step',
  'sys/fs/cgroup/job/step/memory.max': 'max',
  'sys/fs/cgroup/job/memory.max': 100 * MB,
};

describe('availableMemory', () => {
  test('without control groups it is what is free and what this process has already', () => {
    const { bytes, boundBy } = availableMemory(machine({}));
    assert.equal(boundBy, 'the machine');
    assert.ok(bytes <= totalmem(), `${bytes} of ${totalmem()}`);
    const own = process.memoryUsage.rss();
    assert.ok(Math.abs(bytes - freemem() - own) < 1e9, `${bytes} against ${freemem()} + ${own}`);
  });
  test('the limit of a group above counts, when the nearest one has none', () => {
    assert.deepEqual(availableMemory(machine(small)), {
      bytes: 100 * MB,
      boundBy: 'the control group',
    });
  });
  test('what others in the group hold is taken off, files that nobody uses are not, nor is what this process holds', () => {
    const own = process.memoryUsage.rss();
    const used = own + 70 * MB;
    const files = {
      ...small,
      'sys/fs/cgroup/job/memory.current': used,
      'sys/fs/cgroup/job/memory.stat': `anon 1\ninactive_file ${20 * MB}\nactive_file ${5 * MB}`,
    };
    const { bytes } = availableMemory(machine(files));
    // 100 − (70 + own − 20 − own) = 50; the process may have grown a little in between.
    assert.ok(Math.abs(bytes - 50 * MB) < 20 * MB, `${bytes}`);
  });
  test('a group that is full leaves nothing, not less', () => {
    const files = { ...small, 'sys/fs/cgroup/job/memory.current': 1e12 };
    assert.equal(availableMemory(machine(files)).bytes, 0);
  });
  test('in a container, whose path is not there, the base has the limit', () => {
    const files = { 'proc/self/cgroup': '0::/far/away', 'sys/fs/cgroup/memory.max': 64 * MB };
    assert.equal(availableMemory(machine(files)).bytes, 64 * MB);
  });
  test('control groups 1 have other names', () => {
    const files = {
      'proc/self/cgroup': '9:name=systemd:/\n4:cpu,memory:/job\n1:cpuset:/',
      'sys/fs/cgroup/memory/job/memory.limit_in_bytes': 48 * MB,
      'sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712',
    };
    assert.equal(availableMemory(machine(files)).bytes, 48 * MB);
  });
  test('of several limits the tightest counts', () => {
    const files = { ...small, 'sys/fs/cgroup/job/step/memory.max': 30 * MB };
    assert.equal(availableMemory(machine(files)).bytes, 30 * MB);
  });
});
