import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseSplit, sliceRange } from './splitSlice.js';

function range(split: string, rowCount: number): [number, number] {
  const { slice } = parseSplit(split);
  assert.ok(slice, 'a slice');
  const { from, to } = sliceRange(slice, rowCount);
  return [from, to];
}

describe('parseSplit and sliceRange', () => {
  test('rows, percent, negative bounds and left-out ones', () => {
    assert.deepEqual(parseSplit('train'), { name: 'train', slice: undefined });
    assert.equal(parseSplit('my-split[1:2]').name, 'my-split');
    assert.deepEqual(range('train[:1_000]', 5000), [0, 1000]);
    assert.deepEqual(range('train[10:20]', 5000), [10, 20]);
    assert.deepEqual(range('train[:]', 7), [0, 7]);
    assert.deepEqual(range('train[-100:-1]', 5000), [4900, 4999]);
    assert.deepEqual(range('train[10%:20%]', 200), [20, 40]);
    assert.deepEqual(range('train[-10%:]', 200), [180, 200]);
    assert.deepEqual(range('train[100%:]', 200), [200, 200]);
  });
  test('bounds beyond the rows are those of the rows', () => {
    assert.deepEqual(range('train[-50:90]', 20), [0, 20]);
    assert.deepEqual(range('train[30:40]', 20), [20, 20]);
  });
  test('percent are rounded to the nearest row, halves to the even one: no row is in two slices or in none', () => {
    // 5 % of 50 rows are 2.5, 15 % are 7.5, 11 % of 13 rows are 1.43.
    assert.deepEqual(range('train[5%:15%]', 50), [2, 8]);
    assert.deepEqual(range('train[:11%]', 13), [0, 1]);
    assert.deepEqual(range('train[12%:]', 13), [2, 13]);
    let end = 0;
    for (let percent = 0; percent < 100; percent += 3) {
      const [from, to] = range(`t[${percent}%:${Math.min(100, percent + 3)}%]`, 101);
      assert.equal(from, end);
      end = to;
    }
    assert.equal(end, 101);
  });
  test('anything else in brackets is refused', () => {
    const splits = ['t[1:2', '[1:2]', 't[5]', 't[a:b]', 't[1:2%]', 't[:101%]', 't[-101%:]'];
    for (const split of [
      ...splits,
      't[:1]+t[2:]',
      't[1:2:3]',
      't[1.5:]',
      't[:1](closest)',
      'a+b',
    ]) {
      assert.throws(() => parseSplit(split), {
        code: 'E_CONFIG',
        message: `split: expected a name, or a name with a slice of rows or of percent up to 100 such as train[:1000] or train[10%:20%], received ${JSON.stringify(split)}.`,
      });
    }
  });
});
