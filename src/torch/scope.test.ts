import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DisposedError, ValueRangeError } from '../errors/index.js';
import { keep, memory, ones, tidy, zeros, type Tensor } from './index.js';

/** How many tensors `callback` leaves alive. */
function left(callback: () => void): number {
  const before = memory().liveTensors;
  callback();
  return memory().liveTensors - before;
}

describe('tidy', () => {
  test('frees what is made inside and returns what is returned', () => {
    let inner: Tensor | undefined;
    const result = tidy(() => {
      inner = ones([2]);
      return inner.add(1);
    });
    assert.ok(inner?.isDisposed);
    assert.deepEqual(result.toArray(), [2, 2]);
    assert.equal(
      left(() => {
        tidy(() => {
          ones([2]).add(1).mul(2);
        });
      }),
      0,
    );
  });

  test('returns any value', () => {
    assert.equal(
      tidy(() => 3),
      3,
    );
    assert.equal(
      tidy(() => null),
      null,
    );
    assert.equal(
      tidy(() => undefined),
      undefined,
    );
    const typed = new Float32Array(2);
    assert.equal(
      tidy(() => typed),
      typed,
    );
  });

  for (const [name, wrap] of [
    ['an array', (x) => [x]],
    ['an object', (x) => ({ x })],
    ['a map', (x) => new Map([['x', x]])],
    ['the keys of a map', (x) => new Map([[x, 'x']])],
    ['a set', (x) => new Set([x])],
    ['an instance of a class', (x) => Object.assign(new (class Holder {})(), { x })],
    ['a nest of all', (x) => ({ a: [new Map([['b', { c: [null, 1, [new Set([x])]] }]])] })],
    ['twenty levels', (x) => Array.from({ length: 20 }).reduce((inner) => [inner], x as unknown)],
  ] as [string, (x: Tensor) => unknown][]) {
    test(`keeps a tensor in ${name}`, () => {
      let kept: Tensor | undefined;
      let dropped: Tensor | undefined;
      tidy(() => {
        kept = ones([2]);
        dropped = ones([2]);
        return wrap(kept);
      });
      assert.deepEqual([kept?.isDisposed, dropped?.isDisposed], [false, true]);
      kept?.dispose();
    });
  }

  test('keeps tensors in a result that refers to itself', () => {
    interface Loop {
      x: Tensor;
      self?: Loop;
    }
    const result = tidy(() => {
      const loop: Loop = { x: ones([2]) };
      loop.self = loop;
      return loop;
    });
    assert.equal(result.x.isDisposed, false);
    result.x.dispose();
  });

  test('hands the result of an inner call to the outer one', () => {
    let inner: Tensor | undefined;
    const outer = tidy(() => {
      inner = tidy(() => ones([2]).add(1));
      assert.equal(inner.isDisposed, false);
      return inner.mul(2);
    });
    assert.ok(inner?.isDisposed);
    assert.deepEqual(outer.toArray(), [4, 4]);
    outer.dispose();
  });

  test('an inner call leaves the outer call’s tensors alone', () => {
    tidy(() => {
      const mine = ones([2]);
      assert.equal(
        tidy(() => mine),
        mine,
      );
      tidy(() => mine.add(1));
      assert.deepEqual(mine.toArray(), [1, 1]);
    });
  });

  test('frees everything when the callback throws, and passes the error on', () => {
    let inner: Tensor | undefined;
    const mine = new RangeError('mine');
    const count = left(() => {
      assert.throws(
        () =>
          tidy(() => {
            inner = ones([2]);
            tidy(() => {
              ones([3]);
              throw mine;
            });
          }),
        (error) => error === mine,
      );
    });
    assert.deepEqual([count, inner?.isDisposed], [0, true]);
    // The scope is closed: what is made now belongs to nobody's tidy.
    const later = ones([1]);
    tidy(() => ones([1]));
    assert.equal(later.isDisposed, false);
    later.dispose();
  });

  test('does not mind tensors that were freed inside', () => {
    const count = left(() => {
      const result = tidy(() => {
        const x = ones([2]);
        x.dispose();
        x.dispose();
        return x;
      });
      assert.throws(() => result.toArray(), DisposedError);
    });
    assert.equal(count, 0);
  });

  test('frees thousands at once', () => {
    const count = left(() => {
      tidy(() => {
        for (let i = 0; i < 5000; i++) zeros([1]);
      });
    });
    assert.equal(count, 0);
  });

  test('an async callback is refused by its type, and for callers without types when it runs', () => {
    // Does not compile unless a callback that returns a promise is outside of what tidy takes.
    type Accepted = Parameters<typeof tidy<Promise<Tensor>>>[0];
    const isRefused: (() => Promise<Tensor>) extends Accepted ? false : true = true;
    assert.ok(isRefused);

    let inner: Tensor | undefined;
    const callback = async (): Promise<Tensor> => {
      inner = ones([2]);
      return Promise.resolve(inner);
    };
    assert.throws(
      () => tidy(callback as unknown as () => undefined),
      new ValueRangeError(
        'tidy: expected a synchronous callback, received one that returns a promise.',
        { hint: 'Await first and call tidy with what was awaited.' },
      ),
    );
    assert.ok(inner?.isDisposed);
  });
});

describe('keep', () => {
  test('takes a tensor out of the scope it was made in, until it is disposed', () => {
    const count = left(() => {
      let kept: Tensor | undefined;
      tidy(() => {
        tidy(() => {
          kept = keep(ones([2]));
          assert.equal(keep(kept), kept);
        });
      });
      assert.deepEqual(kept?.toArray(), [1, 1]);
      kept?.dispose();
      kept?.dispose();
      assert.ok(kept?.isDisposed);
    });
    assert.equal(count, 0);
  });

  test('disposing a kept tensor inside of its scope frees it once', () => {
    const count = left(() => {
      tidy(() => {
        const x = keep(ones([2]));
        x.dispose();
        return ones([1]).sum().item();
      });
    });
    assert.equal(count, 0);
  });

  test('leaves a freed tensor freed', () => {
    const x = ones([1]);
    x.dispose();
    assert.equal(keep(x), x);
    assert.ok(x.isDisposed);
  });
});

describe('memory', () => {
  test('counts live tensors and the bytes behind them', () => {
    const before = memory();
    const x = zeros([10, 10]);
    const y = zeros([3], { dtype: 'float64' });
    assert.deepEqual(memory(), {
      liveTensors: before.liveTensors + 2,
      liveBytes: before.liveBytes + 400 + 24,
    });
    x.dispose();
    y.dispose();
    assert.deepEqual(memory(), before);
  });

  test('counts a storage once, however many views there are', () => {
    const before = memory();
    tidy(() => {
      const x = zeros([10, 10]);
      const views = [x.view([100]), x.select(0, 1), x.transpose(0, 1), x.detach()];
      assert.deepEqual(memory(), {
        liveTensors: before.liveTensors + 1 + views.length,
        liveBytes: before.liveBytes + 400,
      });
      x.dispose();
      assert.equal(memory().liveBytes, before.liveBytes + 400, 'the views hold the storage');
    });
    assert.deepEqual(memory(), before);
  });
});
