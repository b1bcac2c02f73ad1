import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { SeededRandom } from '../data/index.js';
import { bestOfNExact } from './bestOfNExact.js';

const logs = (masses: readonly number[]): number[] => masses.map(Math.log);

describe('bestOfNExact', () => {
  test('by hand: two completions, three samples', () => {
    const [p, q] = [0.3, 0.7];
    const found = bestOfNExact({ logprobs: logs([p, q]), scores: [2, 1], rewards: [5, -1] }, 3);
    const best = 1 - q ** 3;
    expectClose(found.reward, best * 5 - (1 - best), { rtol: 1e-12 });
    expectClose(found.kl, best * Math.log(best / p) + (1 - best) * Math.log((1 - best) / q), {
      rtol: 1e-12,
    });
  });

  test('one sample is the policy itself', () => {
    const found = bestOfNExact(
      { logprobs: logs([0.2, 0.5, 0.3]), scores: [3, 1, 3], rewards: [1, 10, 100] },
      1,
    );
    expectClose(found.kl, 0, { atol: 1e-12 });
    expectClose(found.reward, 0.2 + 5 + 30, { rtol: 1e-12 });
  });

  test('equal scores keep their shares: all equal is the policy itself, whatever n', () => {
    const rewards = [1, 10, 100];
    const found = bestOfNExact({ logprobs: logs([0.2, 0.5, 0.3]), scores: [2, 2, 2], rewards }, 8);
    expectClose(found.kl, 0, { atol: 1e-12 });
    expectClose(found.reward, 35.2, { rtol: 1e-12 });
  });

  test('many equally likely completions without ties reach log n − (n − 1)/n, and never exceed it', () => {
    const count = 20_000;
    const uniform = {
      logprobs: Array.from({ length: count }, () => -Math.log(count)),
      scores: Array.from({ length: count }, (_, index) => index),
      rewards: Array.from({ length: count }, (_, index) => index),
    };
    for (const n of [2, 4, 64]) {
      const bound = Math.log(n) - (n - 1) / n;
      const { kl, reward } = bestOfNExact(uniform, n);
      assert.ok(kl <= bound, `${kl} must be at most ${bound}`);
      expectClose(kl, bound, { rtol: 1e-2 });
      expectClose(reward / count, n / (n + 1), { rtol: 1e-3 });
    }
  });

  test('equals what drawing says', () => {
    const masses = [0.1, 0.25, 0.05, 0.4, 0.2];
    const [scores, rewards] = [
      [1, 3, 3, 0, 2],
      [7, -2, 4, 1, 3],
    ];
    const random = new SeededRandom(3);
    const draw = (): number => {
      let rest = random.nextFloat();
      return masses.findIndex((mass) => (rest -= mass) < 0);
    };
    const trials = 40_000;
    let [sum, squares] = [0, 0];
    for (let trial = 0; trial < trials; trial++) {
      const drawn = Array.from({ length: 3 }, draw);
      const best = drawn.reduce((a, b) => ((scores?.[b] ?? 0) > (scores?.[a] ?? 0) ? b : a));
      const reward = rewards?.[best] ?? NaN;
      sum += reward;
      squares += reward ** 2;
    }
    const mean = sum / trials;
    const error = Math.sqrt((squares / trials - mean ** 2) / trials);
    const { reward } = bestOfNExact({ logprobs: logs(masses), scores, rewards }, 3);
    // Five standard errors: a false alarm in 6 of ten million.
    assert.ok(Math.abs(reward - mean) < 5 * error, `${reward}, drawn ${mean} ± ${error}`);
  });

  test('a mass below 1 is shared out in proportion', () => {
    const given = { scores: [1, 2], rewards: [1, 2] };
    const whole = bestOfNExact({ ...given, logprobs: logs([0.25, 0.75]) }, 4);
    const part = bestOfNExact({ ...given, logprobs: logs([0.2, 0.6]) }, 4);
    expectClose(part.kl, whole.kl, { rtol: 1e-12 });
    expectClose(part.reward, whole.reward, { rtol: 1e-12 });
  });

  describe('what rounding would break', () => {
    const weighted = (masses: readonly number[]) => ({
      logprobs: logs(masses),
      scores: masses.map((_, index) => index),
      rewards: masses.map((_, index) => (index === masses.length - 1 ? 1 : 0)),
    });

    test('shares that add up to more than 1, below the best or with it, to the power of n', () => {
      // (1 + 2⁻⁵²)ⁿ is e for n = 2⁵², where the probability of drawing the best at least once is 1.
      // The last of these is so unlikely that the one below it is the best that is drawn.
      const rounded = bestOfNExact(weighted([0.75, 0.4, 0.05, 0.67, 0.32, 1e-18]), 2 ** 52);
      expectClose(rounded.kl, Math.log(2.19 / 0.32), { rtol: 1e-9 });
      const found = bestOfNExact(weighted([0.6, 0.3, 0.1]), 2 ** 52);
      expectClose([found.kl, found.reward], [Math.log(10), 1], { rtol: 1e-12 });
    });

    test('the best of a mass of 0 is never drawn', () => {
      const masses = [0.67, 0.32, 0.94, 0.59];
      const found = bestOfNExact(weighted([...masses, 0]), 3);
      const rewards = [0, 0, 0, 0];
      const without = bestOfNExact({ ...weighted(masses), rewards }, 3);
      expectClose(found.kl, without.kl, { rtol: 1e-12 });
      assert.equal(found.reward, 0);
    });

    test('a worst whose mass to the power of n is 0 adds nothing', () => {
      const { kl, reward } = bestOfNExact(weighted([1e-200, 1]), 2);
      assert.deepEqual([kl, reward], [0, 1]);
    });

    test('the KL of one sample, which is 0, is not told as less', () => {
      const { kl } = bestOfNExact(weighted([0.05, 0.67, 0.32, 0.94, 0.59, 0.24]), 1);
      assert.ok(kl >= 0, `a KL is not negative, and was ${kl}`);
    });
  });

  test('rejects no sample, part of one, no completion, and other lengths', () => {
    const one = { logprobs: [0], scores: [1], rewards: [1] };
    assert.throws(() => bestOfNExact(one, 1.5), {
      message: 'bestOfNExact: expected n to be a positive integer, received 1.5.',
    });
    assert.throws(() => bestOfNExact({ ...one, rewards: [1, 2] }, 1), {
      message:
        'bestOfNExact: expected one score and one reward per completion and at least one, received 1 scores and 2 rewards of 1 completions.',
    });
    assert.throws(() => bestOfNExact(one, 0), {
      message: 'bestOfNExact: expected n to be a positive integer, received 0.',
    });
    assert.throws(() => bestOfNExact({ ...one, scores: [] }, 1), {
      message:
        'bestOfNExact: expected one score and one reward per completion and at least one, received 0 scores and 1 rewards of 1 completions.',
    });
    assert.throws(() => bestOfNExact({ logprobs: [], scores: [], rewards: [] }, 1), /at least one/);
  });
});
