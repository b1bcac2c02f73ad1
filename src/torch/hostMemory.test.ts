import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { hostMemory, ones, releaseHostMemory, tidy, zeros } from './index.js';

const MIB = 2 ** 20;

/** Makes and frees a float32 tensor of so many MiB. */
function use(mebibytes: number): void {
  tidy(() => {
    assert.equal(
      ones([mebibytes * 2 ** 18])
        .sum()
        .item(),
      mebibytes * 2 ** 18,
    );
  });
}

describe('memory of tensors on the CPU', () => {
  beforeEach(releaseHostMemory);
  afterEach(releaseHostMemory);

  test('a large block that is freed is kept, and the next tensor of its size takes it', () => {
    const before = hostMemory().bytesInUse;
    use(8);
    assert.equal(hostMemory().bytesKept, 8 * MIB);
    tidy(() => {
      zeros([8 * 2 ** 18]);
      assert.deepEqual([hostMemory().bytesInUse - before, hostMemory().bytesKept], [8 * MIB, 0]);
    });
    assert.equal(hostMemory().bytesKept, 8 * MIB);
  });

  test('tensors of nearly the same size share a block; of another size they do not', () => {
    use(8);
    tidy(() => {
      zeros([8 * 2 ** 18 - 1000]);
      assert.equal(hostMemory().bytesKept, 0);
    });
    tidy(() => {
      zeros([6 * 2 ** 18]);
      assert.equal(hostMemory().bytesKept, 8 * MIB);
    });
  });

  test('what a reused block held is not seen: zeros are zeros', () => {
    use(4);
    tidy(() =>
      assert.equal(
        zeros([4 * 2 ** 18])
          .sum()
          .item(),
        0,
      ),
    );
  });

  test('kept and used blocks take at most a quarter and 64 MiB more than was in use at once', () => {
    const before = hostMemory().bytesInUse;
    for (let mebibytes = 20; mebibytes < 80; mebibytes++) use(mebibytes);
    const { bytesInUse, bytesKept, mostBytesInUse } = hostMemory();
    assert.ok(mostBytesInUse >= before + 79 * MIB);
    assert.ok(bytesInUse + bytesKept <= 1.25 * mostBytesInUse + 64 * MIB);
    assert.ok(bytesKept > 64 * MIB, 'the youngest are still here');
  });

  test('small tensors are left to malloc', () => {
    const before = hostMemory();
    tidy(() => {
      zeros([1000]);
      assert.deepEqual(hostMemory(), before);
    });
  });

  test('all of it can be given back', () => {
    use(8);
    releaseHostMemory();
    const { bytesInUse, bytesKept, mostBytesInUse } = hostMemory();
    assert.deepEqual([bytesKept, mostBytesInUse], [0, bytesInUse]);
  });

  test('what does not fit anywhere is refused, and what was kept is still served', () => {
    use(8);
    assert.throws(() => zeros([2 ** 46]), /can't allocate memory/);
    use(8);
  });
});
