import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { SeededRandom } from '../data/random.js';
import { ValueRangeError } from '../errors/index.js';
import { agreementCeiling, rankByReward } from './index.js';

describe('agreementCeiling', () => {
  describe('by hand', () => {
    test('a pair is σ(lead/τ), whichever comes first', () => {
      // 1/(1 + e⁻²) and, with τ = 4, 1/(1 + e^(−1/2))
      expectClose(agreementCeiling([[3, 1]], 1), 0.8807970779778823, { rtol: 1e-14 });
      expectClose(agreementCeiling([[1, 3]], 1), 0.8807970779778823, { rtol: 1e-14 });
      expectClose(agreementCeiling([[1, 3]], 4), 0.6224593312018546, { rtol: 1e-14 });
    });
    test('every ranking counts the same, however many pairs it has', () => {
      // One of three pairs with leads 1, 2, 3; one of a single pair with lead 1.
      const three = (0.7310585786300049 + 0.8807970779778823 + 0.9525741268224334) / 3;
      const expected = (three + 0.7310585786300049) / 2;
      const rankings = [[0, 1, 3], [5, 6], [7], []];
      expectClose(agreementCeiling(rankings, 1), expected, { rtol: 1e-14 });
    });
    test('equal rewards are a coin with noise, and no pair without it', () => {
      assert.equal(agreementCeiling([[2, 2]], 1), 0.5);
      assert.equal(agreementCeiling([[2, 2, 3]], 0), 1);
      assert.equal(agreementCeiling([[2, 2]], 0), NaN);
    });
    test('nothing has no ceiling', () => {
      assert.equal(agreementCeiling([], 1), NaN);
      assert.equal(agreementCeiling([[1]], 1), NaN);
    });
    test('a lead that no double holds the exponential of is certain', () => {
      assert.equal(agreementCeiling([[-1e4, 1e4]], 1), 1);
    });
  });

  test('is how often someone who knows the rewards agrees with rankByReward', () => {
    // 4,000 rankings of 3: the standard error of the share is below 0.006, five of them are 0.03.
    const random = new SeededRandom(7);
    const rankings = Array.from({ length: 4000 }, () =>
      Array.from({ length: 3 }, () => 2 * random.nextFloat()),
    );
    const shares = rankings.map((scores, seed) => {
      const ranks = rankByReward({ scores, seed, noise: 0.7 });
      let agreed = 0;
      for (const [i, j] of [
        [0, 1],
        [0, 2],
        [1, 2],
      ] as const) {
        const better = (scores[i] ?? NaN) > (scores[j] ?? NaN);
        if (better === (ranks[i] ?? NaN) < (ranks[j] ?? NaN)) agreed += 1;
      }
      return agreed / 3;
    });
    const share = shares.reduce((sum, value) => sum + value, 0) / shares.length;
    const ceiling = agreementCeiling(rankings, 0.7);
    assert.ok(Math.abs(share - ceiling) < 0.03, `${share} of at most ${ceiling}`);
    assert.ok(ceiling > 0.6 && ceiling < 0.8, `${ceiling}`);
  });

  test('is between 1/2 and 1, and falls with the noise', () => {
    const rankings = [
      [0.3, -1, 2],
      [1, 1.5],
    ];
    const ceilings = [0, 0.1, 1, 10, 1e6].map((noise) => agreementCeiling(rankings, noise));
    assert.deepEqual(
      [...ceilings].sort((a, b) => b - a),
      ceilings,
    );
    expectClose(ceilings.at(-1) ?? NaN, 0.5, { atol: 1e-5 });
  });

  test('rejects noise and rewards that are no numbers', () => {
    for (const noise of [-1, NaN, Infinity]) {
      assert.throws(
        () => agreementCeiling([[1, 2]], noise),
        new ValueRangeError(
          `agreementCeiling: expected noise to be finite and at least 0, received ${noise}.`,
        ),
      );
    }
    assert.throws(
      () => agreementCeiling([[1, 2], [NaN]], 1),
      new ValueRangeError('agreementCeiling: expected every reward to be finite, received NaN.'),
    );
  });
});
