import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ValueRangeError } from '../errors/index.js';
import {
  bestOfNKlBound,
  rankByScore,
  selectCompletions,
  type Candidate,
  type KeepRule,
} from './index.js';

const scored = (...scores: number[]): Candidate[] =>
  scores.map((score, index) => ({ score, text: `completion ${index}` }));

const refused = (run: () => unknown, message: string): void => {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof ValueRangeError, String(error));
    assert.equal(error.message, message);
    return true;
  });
};

describe('rankByScore', () => {
  test('goes from the highest to the lowest score; equal scores keep their order', () => {
    assert.deepEqual(rankByScore([1, 3, -2, 3, 0]), [1, 3, 0, 4, 2]);
  });
  test('gives no rank to what is no finite number', () => {
    assert.deepEqual(rankByScore([NaN, 1, Infinity, 2, -Infinity]), [3, 1]);
    assert.deepEqual(rankByScore([NaN]), []);
  });
});

describe('selectCompletions', () => {
  describe('by hand', () => {
    const candidates = scored(0.5, 2, NaN, 2, 1, -1);
    const cases: [KeepRule, number[]][] = [
      [{ kind: 'best' }, [1]], // of two with 2 the first
      [{ kind: 'topK', k: 1 }, [1]],
      [{ kind: 'topK', k: 3 }, [1, 3, 4]],
      [{ kind: 'topK', k: 5 }, [1, 3, 4, 0, 5]],
      [{ kind: 'topK', k: 99 }, [1, 3, 4, 0, 5]], // more than there are: all that have a score
      [{ kind: 'threshold', atLeast: 1 }, [1, 3, 4]], // exactly 1 passes
      [{ kind: 'threshold', atLeast: 1.01 }, [1, 3]],
      [{ kind: 'threshold', atLeast: 2.01 }, []],
      [{ kind: 'threshold', atLeast: 0, atMost: 2 }, [1, 3]],
      [{ kind: 'threshold', atLeast: 0, atMost: 1 }, [1]],
      [{ kind: 'threshold', atLeast: 0, atMost: 9 }, [1, 3, 4, 0]],
      [{ kind: 'threshold', atLeast: 0, atMost: null }, [1, 3, 4, 0]],
      [{ kind: 'threshold', atLeast: -5 }, [1, 3, 4, 0, 5]],
    ];
    for (const [keep, expected] of cases) {
      test(`${JSON.stringify(keep)} keeps ${JSON.stringify(expected)}, best first`, () => {
        assert.deepEqual(selectCompletions(candidates, keep), expected);
      });
    }
  });

  describe('properties', () => {
    test('without a score nothing is kept, whatever the rule', () => {
      const rules: KeepRule[] = [
        { kind: 'best' },
        { kind: 'topK', k: 2 },
        { kind: 'threshold', atLeast: -1e9 },
      ];
      for (const keep of rules) {
        assert.deepEqual(selectCompletions(scored(NaN, Infinity, -Infinity), keep), []);
        assert.deepEqual(selectCompletions([], keep), []);
      }
    });
    test('topK with k = 1 is best', () => {
      for (const scores of [[1, 2, 3], [3, 3, 1], [NaN, 0], [5]]) {
        const candidates = scored(...scores);
        assert.deepEqual(
          selectCompletions(candidates, { kind: 'topK', k: 1 }),
          selectCompletions(candidates, { kind: 'best' }),
        );
      }
    });
    test('a sum of weights that falls short of the threshold by a rounding passes', () => {
      const sum = 0.7 + 0.2 + 0.1;
      assert.ok(sum < 1, 'the sum is short of 1');
      assert.deepEqual(selectCompletions(scored(sum), { kind: 'threshold', atLeast: 1 }), [0]);
      assert.deepEqual(selectCompletions(scored(1 - 1e-8), { kind: 'threshold', atLeast: 1 }), []);
    });
    test('distinct keeps the highest-ranking of equal texts, and fills the places with others', () => {
      const candidates = [
        { text: 'a', score: 1 },
        { text: 'b', score: 3 },
        { text: 'a', score: 2 },
        { text: 'b', score: 3 },
        { text: 'c', score: 0 },
      ];
      const keep = { kind: 'topK', k: 3 } as const;
      assert.deepEqual(selectCompletions(candidates, keep), [1, 3, 2]);
      assert.deepEqual(selectCompletions(candidates, keep, { distinct: false }), [1, 3, 2]);
      assert.deepEqual(selectCompletions(candidates, keep, { distinct: true }), [1, 2, 4]);
      const passing = { kind: 'threshold', atLeast: 1 } as const;
      assert.deepEqual(selectCompletions(candidates, passing, { distinct: true }), [1, 2]);
    });
    test('does not change what it is given', () => {
      const candidates = Object.freeze(scored(1, 3, 2).map((one) => Object.freeze(one)));
      assert.deepEqual(selectCompletions(candidates, { kind: 'topK', k: 2 }), [1, 2]);
    });
  });

  describe('rejects', () => {
    for (const k of [0, 1.5, -1, NaN]) {
      test(`k = ${k}`, () => {
        refused(
          () => selectCompletions(scored(1), { kind: 'topK', k }),
          `selectCompletions: expected k to be a positive integer, received ${k}.`,
        );
        refused(
          () => selectCompletions(scored(1), { kind: 'threshold', atLeast: 0, atMost: k }),
          `selectCompletions: expected atMost to be a positive integer, received ${k}.`,
        );
      });
    }
    test('a threshold that is no number', () => {
      for (const atLeast of [NaN, Infinity]) {
        refused(
          () => selectCompletions(scored(1), { kind: 'threshold', atLeast }),
          `selectCompletions: expected atLeast to be a finite number, received ${atLeast}.`,
        );
      }
    });
  });
});

/** KL of best-of-n from the policy itself: probabilities from the worst to the best completion, ties by `sameAs`. */
function exactKl(probabilities: readonly number[], n: number): number {
  let below = 0;
  let kl = 0;
  for (const p of probabilities) {
    // All n are among these or worse, less all n among the worse ones.
    const best = (below + p) ** n - below ** n;
    if (best > 0) kl += best * Math.log(best / p);
    below += p;
  }
  return kl;
}

describe('bestOfNKlBound', () => {
  test('by hand: log n − (n − 1)/n', () => {
    assert.equal(bestOfNKlBound(1), 0);
    expectClose(bestOfNKlBound(2), 0.19314718055994531, { rtol: 1e-12 }); // 0.6931471805599453 − 1/2
    expectClose(bestOfNKlBound(16), 1.8350887222397811, { rtol: 1e-12 }); // 2.772588722239781 − 15/16
  });
  test('no finite space of completions exceeds it, and a fine one comes near', () => {
    const uneven = [0.05, 0.4, 0.25, 0.2, 0.1];
    const fine = Array.from({ length: 20_000 }, () => 1 / 20_000);
    for (const n of [1, 2, 5, 16, 64]) {
      assert.ok(exactKl(uneven, n) <= bestOfNKlBound(n) + 1e-9, `uneven, n = ${n}`);
      const near = exactKl(fine, n);
      assert.ok(near <= bestOfNKlBound(n) + 1e-9, `fine, n = ${n}: ${near}`);
      assert.ok(near >= bestOfNKlBound(n) - 0.01, `fine, n = ${n}: ${near}`);
    }
    // Far below it where one completion has most of the mass: Beirami et al. 2024, §3.
    assert.ok(exactKl([0.01, 0.99], 64) < 0.02 && bestOfNKlBound(64) > 3, 'a bound, not the KL');
  });
  test('rejects what is no count', () => {
    for (const n of [0, 2.5, NaN, -3]) {
      refused(
        () => bestOfNKlBound(n),
        `bestOfNKlBound: expected a positive integer, received ${n}.`,
      );
    }
  });
});
