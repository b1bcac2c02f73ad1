import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import {
  assertIntegerAtLeast,
  assertPositive,
  assertRank,
  assertSameShape,
  cudaIsAvailable,
  getNumThreads,
  runtimeInfo,
  setNumThreads,
  showShape,
  synchronize,
  zeros,
} from './index.js';

describe('the runtime', () => {
  test('says what it is', () => {
    const info = runtimeInfo();
    assert.match(info.version, /^2\.\d+\.\d+/);
    assert.ok(info.cpuCapability.length > 0);
    assert.equal(cudaIsAvailable(), info.cudaDevices > 0);
    assert.match(info.parallel, /at::get_num_threads/);
  });

  test('uses as many threads as it is told', () => {
    const before = getNumThreads();
    setNumThreads(1);
    assert.equal(getNumThreads(), 1);
    setNumThreads(before);
    for (const count of [0, -1, 1.5, NaN]) {
      assert.throws(
        () => setNumThreads(count),
        new ValueRangeError(`setNumThreads: expected a positive integer, received ${count}.`),
      );
    }
  });

  test('waits for the CPU at once, and for no device that is not here', () => {
    synchronize('cpu');
    assert.throws(() => synchronize('abacus'), /synchronize: expected a device .*"abacus"/);
  });
});

describe('checks of arguments', () => {
  test('assertSameShape names the one that differs', () => {
    assertSameShape('f', '[B, T]', { a: zeros([2, 3]), b: zeros([2, 3]) });
    assertSameShape('f', '[B, T]', {});
    assert.throws(
      () => assertSameShape('f', '[B, T]', { a: zeros([2, 3]), b: zeros([3, 2]) }),
      new ShapeError('f: expected b to have shape [B, T] = [2, 3] like a, received [3, 2].'),
    );
    assert.throws(
      () => assertSameShape('f', '[B, T]', { a: zeros([2]), b: zeros([2]) }),
      new ShapeError('f: expected a to have shape [B, T], received [2].'),
    );
  });

  test('assertRank counts the letters', () => {
    assertRank('f', '[]', { a: zeros([]) });
    assertRank('f', '[B]', { a: zeros([0]) });
    assert.throws(
      () => assertRank('f', '[]', { a: zeros([1]) }),
      new ShapeError('f: expected a to have shape [], received [1].'),
    );
  });

  test('assertPositive and assertIntegerAtLeast name the argument', () => {
    assertPositive('f', 'x', 1e-300);
    for (const value of [0, -1, NaN, Infinity]) {
      assert.throws(
        () => assertPositive('f', 'x', value),
        new ValueRangeError(`f: expected x to be a positive number, received ${value}.`),
      );
    }
    assertIntegerAtLeast('f', 'n', 2, 2);
    for (const value of [1, 2.5, NaN, Infinity]) {
      assert.throws(
        () => assertIntegerAtLeast('f', 'n', value, 2),
        new ValueRangeError(`f: expected n to be an integer of at least 2, received ${value}.`),
      );
    }
    assert.equal(showShape([2, 3]), '[2, 3]');
  });
});
