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

  test('rejects no sample, no completion, and other lengths', () => {
    const one = { logprobs: [0], scores: [1], rewards: [1] };
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
