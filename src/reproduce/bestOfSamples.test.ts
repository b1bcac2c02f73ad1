import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { passAtK } from '../algorithms/index.js';
import { SeededRandom } from '../data/index.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { bestOfSamples } from './bestOfSamples.js';

/** Every subset of n of the places 0 … count − 1. */
function subsets(count: number, n: number, from = 0): number[][] {
  if (n === 0) return [[]];
  return Array.from({ length: Math.max(0, count - from) }, (_, step) => from + step).flatMap(
    (first) => subsets(count, n - 1, first + 1).map((rest) => [first, ...rest]),
  );
}

/** The mean over all subsets of the mean outcome of those with the highest score. */
function byEnumeration(scores: number[], outcomes: number[], n: number): number {
  const found = subsets(scores.length, n).map((places) => {
    const highest = Math.max(...places.map((place) => scores[place] ?? NaN));
    const best = places.filter((place) => scores[place] === highest);
    return best.reduce((sum, place) => sum + (outcomes[place] ?? NaN), 0) / best.length;
  });
  return found.reduce((sum, value) => sum + value, 0) / found.length;
}

describe('bestOfSamples', () => {
  test('is the mean over all subsets, with and without ties', () => {
    const random = new SeededRandom(7);
    for (let trial = 0; trial < 20; trial++) {
      const count = 1 + random.nextInt(8);
      const scores = Array.from({ length: count }, () => random.nextInt(trial < 10 ? 4 : 1000) - 2);
      const outcomes = Array.from({ length: count }, () => random.nextFloat() * 3 - 1);
      for (let n = 1; n <= count; n++) {
        const found = bestOfSamples({ scores, outcomes }, n);
        expectClose(found, byEnumeration(scores, outcomes, n), { rtol: 1e-9, atol: 1e-12 });
      }
    }
  });

  test('by hand: the best of 3 is chosen by 2 of 3 pairs, the second by 1', () => {
    // Pairs of scores 1, 2, 3: {1,2} → 2, {1,3} → 3, {2,3} → 3. Outcomes 10, 20, 40: (20 + 40 + 40)/3.
    expectClose(bestOfSamples({ scores: [3, 1, 2], outcomes: [40, 10, 20] }, 2), 100 / 3);
  });

  test('of all samples it is the best, of one their mean, and of equal scores their mean at every n', () => {
    const outcomes = [1, 0, 0, 1, 0];
    expectClose(bestOfSamples({ scores: [1, 5, 2, 9, 3], outcomes }, 5), 1);
    expectClose(bestOfSamples({ scores: [1, 5, 2, 9, 3], outcomes }, 1), 0.4);
    for (const n of [1, 2, 5]) {
      expectClose(bestOfSamples({ scores: [4, 4, 4, 4, 4], outcomes }, n), 0.4);
    }
  });

  test('with the outcomes as scores it is pass@n', () => {
    const outcomes = Array.from({ length: 64 }, (_, index) => Number(index % 7 === 0));
    for (const k of [1, 4, 16, 64]) {
      const expected = passAtK({ samples: 64, correct: 10, k });
      expectClose(bestOfSamples({ scores: outcomes, outcomes }, k), expected, { rtol: 1e-9 });
    }
  });

  test('a score without limit is a score', () => {
    expectClose(
      bestOfSamples({ scores: [-Infinity, 0, Infinity], outcomes: [5, 7, 9] }, 2),
      25 / 3,
    );
  });

  test('refuses what is no set of samples, another n, and scores that are not numbers', () => {
    for (const [scores, outcomes] of [
      [[], []],
      [[1, 2], [1]],
    ] as const) {
      assert.throws(() => bestOfSamples({ scores, outcomes }, 1), {
        constructor: ShapeError,
        message: `bestOfSamples: expected one outcome per score and at least one, received ${outcomes.length} outcomes of ${scores.length} scores.`,
      });
    }
    for (const n of [0, 3, 1.5, NaN]) {
      assert.throws(() => bestOfSamples({ scores: [1, 2], outcomes: [0, 1] }, n), {
        constructor: ValueRangeError,
        message: `bestOfSamples: expected n to be an integer from 1 to 2, received ${n}.`,
      });
    }
    assert.throws(() => bestOfSamples({ scores: [1, NaN], outcomes: [0, 1] }, 1), {
      constructor: ValueRangeError,
      message: 'bestOfSamples: expected scores to be numbers, received NaN.',
    });
  });
});
