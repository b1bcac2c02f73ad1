import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { rankByReward } from './index.js';

const SCORES = [0.4, -1, 1.2, 0];
const DRAWS = 20_000;

/** Rankings with the seeds 0 … DRAWS − 1. */
function rankings(scores: readonly number[], noise?: number): number[][] {
  return Array.from({ length: DRAWS }, (_, seed) => rankByReward({ scores, seed, noise }));
}

/** Within five standard errors of a share of DRAWS: a false alarm in 6 of ten million. */
function expectShare(count: number, expected: number): void {
  const allowed = 5 * Math.sqrt((expected * (1 - expected)) / DRAWS);
  const share = count / DRAWS;
  assert.ok(Math.abs(share - expected) < allowed, `${share}, expected ${expected}`);
}

describe('rankByReward', () => {
  describe('by hand, without noise', () => {
    test('the highest score is first', () => {
      assert.deepEqual(rankByReward({ scores: SCORES, seed: 3, noise: 0 }), [2, 4, 1, 3]);
    });
    test('equal scores share a rank, and the next has as many before it as there are better ones', () => {
      assert.deepEqual(rankByReward({ scores: [1, 5, 1, 0], seed: 3, noise: 0 }), [2, 1, 2, 4]);
    });
    test('the seed changes nothing; nothing to rank has no ranks', () => {
      const ranks = [1, 2, 3].map((seed) => rankByReward({ scores: SCORES, seed, noise: 0 }));
      assert.deepEqual(ranks[0], ranks[1]);
      assert.deepEqual(ranks[0], ranks[2]);
      assert.deepEqual(rankByReward({ scores: [], seed: 0 }), []);
    });
  });

  describe('with noise', () => {
    const drawn = rankings(SCORES);

    test('ranks are a permutation, of equal scores too', () => {
      for (const ranks of drawn.slice(0, 100))
        assert.deepEqual(
          [...ranks].sort((a, b) => a - b),
          [1, 2, 3, 4],
        );
      const tied = rankByReward({ scores: [1, 1, 1], seed: 4 });
      assert.deepEqual(
        [...tied].sort((a, b) => a - b),
        [1, 2, 3],
      );
    });

    test('any two are in the order of Bradley and Terry', () => {
      for (const [i, j] of [
        [0, 1],
        [2, 0],
        [3, 1],
        [3, 2],
      ] as const) {
        const before = drawn.filter((ranks) => (ranks[i] ?? NaN) < (ranks[j] ?? NaN)).length;
        expectShare(before, 1 / (1 + Math.exp((SCORES[j] ?? NaN) - (SCORES[i] ?? NaN))));
      }
    });

    test('a whole ranking has the probability of Plackett and Luce', () => {
      const weights = SCORES.map(Math.exp);
      const [w0 = NaN, w1 = NaN, w2 = NaN, w3 = NaN] = weights;
      // Best to worst 0, 2, 3, 1, which is the ranks 1, 4, 2, 3.
      const probability = (w0 / (w0 + w1 + w2 + w3)) * (w2 / (w1 + w2 + w3)) * (w3 / (w1 + w3));
      expectShare(drawn.filter((ranks) => ranks.join() === '1,4,2,3').length, probability);
    });

    test('noise divides the scores', () => {
      for (const noise of [0.5, 3]) {
        const before = rankings([0.7, 0], noise).filter(([first]) => first === 1).length;
        expectShare(before, 1 / (1 + Math.exp(-0.7 / noise)));
      }
    });

    test('the same seed gives the same ranks; other completions at the end change no order before them', () => {
      assert.deepEqual(rankByReward({ scores: SCORES, seed: 7 }), drawn[7]);
      assert.ok(new Set(drawn.slice(0, 50).map((ranks) => ranks.join())).size > 5, 'seeds differ');
      const more = rankByReward({ scores: [...SCORES, 0.3], seed: 7 }).slice(0, 4);
      const order = (ranks: readonly number[]): number[] =>
        [0, 1, 2, 3].sort((a, b) => (ranks[a] ?? NaN) - (ranks[b] ?? NaN));
      assert.deepEqual(order(more), order(drawn[7] ?? []));
    });
  });

  describe('rejects', () => {
    for (const score of [NaN, Infinity, -Infinity]) {
      test(`the score ${score}`, () => {
        assert.throws(() => rankByReward({ scores: [0, score], seed: 0 }), {
          name: 'ValueRangeError',
          message: `rankByReward: expected every score to be finite, received ${score} for completion 1.`,
        });
      });
    }
    for (const noise of [-0.1, NaN, Infinity]) {
      test(`the noise ${noise}`, () => {
        assert.throws(() => rankByReward({ scores: [0], seed: 0, noise }), {
          name: 'ValueRangeError',
          message: `rankByReward: expected noise to be finite and at least 0, received ${noise}.`,
        });
      });
    }
  });
});
