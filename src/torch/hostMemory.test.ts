import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import {
  empty,
  full,
  hostMemory,
  ones,
  giveBackHostMemory,
  releaseHostMemory,
  tidy,
  zeros,
  type Tensor,
} from './index.js';

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

  test('a tensor takes the front of a larger block, and the whole of one that is hardly larger', () => {
    use(8);
    tidy(() => {
      zeros([6 * 2 ** 18]);
      assert.equal(hostMemory().bytesKept, 2 * MIB);
      zeros([2 ** 18]);
      assert.equal(hostMemory().bytesKept, MIB);
      zeros([2 ** 18 - 1000]);
      assert.equal(hostMemory().bytesKept, 0);
    });
    assert.equal(hostMemory().bytesKept, 8 * MIB);
  });

  test('the smallest block that is large enough is taken', () => {
    tidy(() => {
      const [large, , small] = [8, 1, 4, 1].map((mebibytes) => zeros([mebibytes * 2 ** 18]));
      large?.dispose();
      small?.dispose();
      zeros([4 * 2 ** 18]);
      assert.equal(hostMemory().bytesKept, 8 * MIB);
      // Had it been the front of the large one, this would need new memory.
      zeros([8 * 2 ** 18]);
      assert.equal(hostMemory().bytesKept, 0);
    });
  });

  for (const order of [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ])
    test(`blocks that were freed side by side are one, freed in the order ${order.join(', ')}`, () => {
      use(12);
      tidy(() => {
        const parts = [3, 4, 5].map((mebibytes) => zeros([mebibytes * 2 ** 18]));
        assert.equal(hostMemory().bytesKept, 0);
        for (const part of order) parts[part]?.dispose();
        assert.equal(hostMemory().bytesKept, 12 * MIB);
        zeros([12 * 2 ** 18]);
        assert.equal(hostMemory().bytesKept, 0);
      });
    });

  test('a tensor that no block is large enough for takes pages of those that wait apart', () => {
    tidy(() => {
      const parts = Array.from({ length: 24 }, () => zeros([4 * 2 ** 18]));
      for (const [index, part] of parts.entries()) if (index % 2 === 0) part.dispose();
      const before = hostMemory();
      assert.equal(before.bytesKept, 48 * MIB);
      const whole = full([44 * 2 ** 18], 3);
      const after = hostMemory();
      assert.equal(after.mostBytesInUse, before.mostBytesInUse);
      assert.ok(after.bytesInUse + after.bytesKept <= after.mostBytesInUse + 16 * MIB);
      assert.equal(whole.to('float64').sum().item(), 3 * 44 * 2 ** 18);
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

  test('kept and used blocks take at most 16 MiB more than was in use at once', () => {
    const before = hostMemory().bytesInUse;
    for (let mebibytes = 20; mebibytes < 80; mebibytes++) use(mebibytes);
    const { bytesInUse, bytesKept, mostBytesInUse } = hostMemory();
    assert.ok(mostBytesInUse >= before + 79 * MIB);
    assert.ok(bytesInUse + bytesKept <= mostBytesInUse + 16 * MIB);
    assert.ok(bytesKept > 16 * MIB, 'what was used before is still here');
  });

  test('tensors keep their numbers while pages of freed ones of other sizes become new tensors', () => {
    let state = 7;
    const upTo = (end: number): number => {
      state = (state * 48271) % 2147483647;
      return state % end;
    };
    const held: { tensor: Tensor; value: number; count: number }[] = [];
    const check = ({ tensor, value, count }: (typeof held)[number]): void =>
      tidy(() => {
        // The ends of every block, and its sum, which integers below 2^24 have exactly in float64.
        assert.equal(tensor.to('float64').sum().item(), value * count);
        assert.deepEqual(
          [tensor.narrow(0, 0, 1).item(), tensor.narrow(0, count - 1, 1).item()],
          [value, value],
        );
      });
    for (let turn = 0; turn < 400; turn++) {
      if (held.length > 12) {
        const [one] = held.splice(upTo(held.length), 1);
        if (one) {
          check(one);
          one.tensor.dispose();
        }
        continue;
      }
      const count = 2 ** 16 + upTo(2 ** 20);
      held.push({ tensor: full([count], turn), value: turn, count });
    }
    for (const one of held) {
      check(one);
      one.tensor.dispose();
    }
    const { bytesInUse, bytesKept, mostBytesInUse } = hostMemory();
    assert.ok(bytesInUse + bytesKept <= mostBytesInUse + 16 * MIB);
  });

  test('a process that makes and frees many sizes grows by no more than it uses at once', () => {
    use(100);
    const before = process.memoryUsage.rss();
    for (let turn = 0; turn < 200; turn++) use(1 + ((turn * 37) % 99));
    const grown = process.memoryUsage.rss() - before;
    assert.ok(grown < 40 * MIB, `grew by ${Math.round(grown / MIB)} MiB`);
  });

  test('more addresses are used than are reserved at a time', () => {
    // 100 GiB of addresses, of which no page is touched.
    for (let turn = 0; turn < 100; turn++) tidy(() => void empty([2 ** 28 + turn * 2 ** 20]));
    use(8);
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

  test('a part of it can be given back, in whole pages, and the most that was in use is remembered', () => {
    use(8);
    const before = hostMemory();
    giveBackHostMemory(1);
    const after = hostMemory();
    assert.deepEqual([before.bytesKept, after.bytesKept], [8 * MIB, 8 * MIB - 4096]);
    assert.deepEqual(
      [after.bytesInUse, after.mostBytesInUse],
      [before.bytesInUse, before.mostBytesInUse],
    );
    giveBackHostMemory(0);
    assert.deepEqual(hostMemory(), after);
    use(7);
    giveBackHostMemory(5 * MIB);
    assert.equal(hostMemory().bytesKept, 3 * MIB - 4096);
    use(2);
    giveBackHostMemory(2 ** 50);
    assert.equal(hostMemory().bytesKept, 0);
  });

  test('what waits longest is given back first', () => {
    tidy(() => {
      const [first, , second] = [8, 1, 6].map((mebibytes) => zeros([mebibytes * 2 ** 18]));
      first?.dispose();
      second?.dispose();
      giveBackHostMemory(8 * MIB);
      assert.equal(hostMemory().bytesKept, 6 * MIB);
      zeros([6 * 2 ** 18]);
      assert.equal(hostMemory().bytesKept, 0);
    });
  });

  test('what is left of a block that was cut waits in its place', () => {
    tidy(() => {
      const [first, , second] = [8, 1, 6].map((mebibytes) => zeros([mebibytes * 2 ** 18]));
      first?.dispose();
      second?.dispose();
      zeros([7 * 2 ** 18]);
      giveBackHostMemory(MIB);
      // Had the second block been cut, it would be too small.
      zeros([6 * 2 ** 18]);
      assert.equal(hostMemory().bytesKept, 0);
    });
  });

  test('what does not fit anywhere is refused, and what was kept is still served', () => {
    use(8);
    assert.throws(() => zeros([2 ** 46]), /can't allocate memory/);
    use(8);
  });
});
