import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { median, ratioOf, summarise, type Measurement } from './statistics.js';

function report(quantity: string, rounds: readonly number[], peakRssBytes = 2 ** 20): Measurement {
  return {
    rounds: { [quantity]: rounds },
    peakRssBytes,
    cpuSeconds: 1,
    othersShare: 0.01,
    threads: 2,
    versions: {},
    cpuCapability: 'AVX512',
  };
}

describe('statistics of a bench', () => {
  test('the median of an even number of values is the mean of the middle two', () => {
    assert.equal(median([4, 1, 3, 2]), 2.5);
    assert.equal(median([10, 1, 2]), 2);
  });

  test('a side is the median over processes of the median over rounds', () => {
    const reports = [report('tokens/s', [1, 5, 100]), report('tokens/s', [7, 7, 7], 3 * 2 ** 20)];
    const side = summarise(reports, 'tokens/s');
    assert.deepEqual(side.processes, [5, 7]);
    assert.equal(side.median, 6);
    assert.equal(side.best, 100);
    assert.equal(side.peakRssMib, 3);
  });

  test('the best of a duration is the shortest', () => {
    assert.equal(summarise([report('add', [900, 800, 950])], 'add').best, 800);
  });

  test('above 1 ours is faster, of rates and of durations', () => {
    const rates = [10, 20].map((value) => summarise([report('tokens/s', [value])], 'tokens/s')) as [
      ReturnType<typeof summarise>,
      ReturnType<typeof summarise>,
    ];
    assert.equal(ratioOf(rates[1], rates[0], 'tokens/s').median, 2);
    assert.equal(ratioOf(rates[0], rates[1], 'add').median, 2);
  });

  test('ratios are taken pair by pair: a machine that slows down for both does not change them', () => {
    const ours = summarise([report('add', [100]), report('add', [300])], 'add');
    const other = summarise([report('add', [200]), report('add', [600])], 'add');
    assert.deepEqual(ratioOf(ours, other, 'add'), { median: 2, lowest: 2, highest: 2 });
  });
});
