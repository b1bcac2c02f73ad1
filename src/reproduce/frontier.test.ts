import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { SeededRandom } from '../data/random.js';
import { RewardFrontier, type KnownRewards } from './frontier.js';

const known = (reference: readonly number[], rewards: readonly number[]): KnownRewards => ({
  refLogprobs: reference.map(Math.log),
  rewards,
});

/** Two prompts that differ in everything; completions 1 and 3 of the first have one reward. */
const PROMPTS = [
  known([0.1, 0.2, 0.3, 0.4], [1, 0.2, -1, 0.2]),
  known([0.6, 0.25, 0.15], [0, 0.5, 3]),
];
const frontier = new RewardFrontier(PROMPTS);

/** A policy per prompt, straight from the definition: of each prompt's own price. */
function tilted(betas: readonly number[]): { kl: number; reward: number } {
  let [kl, reward] = [0, 0];
  PROMPTS.forEach(({ refLogprobs, rewards }, prompt) => {
    const weights = Array.from(refLogprobs, (logprob, index) =>
      Math.exp(logprob + (rewards[index] ?? NaN) / (betas[prompt] ?? NaN)),
    );
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    weights.forEach((weight, index) => {
      const p = weight / total;
      kl += (p * (Math.log(p) - (refLogprobs[index] ?? NaN))) / PROMPTS.length;
      reward += (p * (rewards[index] ?? NaN)) / PROMPTS.length;
    });
  });
  return { kl, reward };
}

describe('RewardFrontier', () => {
  describe('by hand', () => {
    test('two completions of probability ½: at β = 1 the better one has e/(1 + e)', () => {
      const p = Math.E / (1 + Math.E);
      const point = new RewardFrontier([known([0.5, 0.5], [1, 0])]).at(1);
      expectClose(point.reward, p, { rtol: 1e-14 });
      const kl = p * Math.log(2 * p) + (1 - p) * Math.log(2 * (1 - p));
      expectClose(point.kl, kl, { rtol: 1e-13 });
      assert.equal(point.beta, 1);
    });
    test('its ends are the reference, and the reference among the best completions', () => {
      const rewards = (0.1 + 0.12 - 0.3 + (0.125 + 0.45)) / 2;
      expectClose([frontier.reference.kl, frontier.reference.reward], [0, rewards]);
      assert.equal(frontier.reference.beta, Infinity);
      const kl = (-Math.log(0.1) - Math.log(0.15)) / 2;
      expectClose([frontier.greatest.kl, frontier.greatest.reward], [kl, 2]);
      assert.equal(frontier.greatest.beta, 0);
    });
    test('several best completions share their probability at the end', () => {
      const { greatest } = new RewardFrontier([known([0.2, 0.5, 0.3], [1, 0, 1])]);
      expectClose(greatest.kl, -Math.log(0.5));
    });
  });

  describe('properties', () => {
    test('every point is π_ref·exp(r/β)/Z of the definition, equal rewards or not', () => {
      for (const beta of [0.05, 0.4, 1, 7, 100]) {
        const { kl, reward } = tilted([beta, beta]);
        expectClose([frontier.at(beta).kl, frontier.at(beta).reward], [kl, reward], {
          rtol: 1e-9,
          atol: 1e-14,
        });
      }
    });

    test('dE[r]/dKL is β', () => {
      for (const beta of [0.2, 0.5, 1, 3]) {
        const [below, above] = [frontier.at(beta * 1.0001), frontier.at(beta / 1.0001)];
        const slope = (above.reward - below.reward) / (above.kl - below.kl);
        expectClose(slope, beta, { rtol: 1e-6 });
      }
    });

    test('bestReward is the inverse of at, from almost no KL to almost all of it', () => {
      for (const beta of [0.02, 0.1, 0.5, 2, 50, 1e4]) {
        const { kl, reward } = frontier.at(beta);
        expectClose(frontier.bestReward(kl), reward, { rtol: 1e-9 });
      }
    });

    test('a price near 0 ends at the best completions, a high one at the reference, without loss of digits', () => {
      const cheap = frontier.at(1e-9);
      expectClose([cheap.kl, cheap.reward], [frontier.greatest.kl, 2], { rtol: 1e-12 });
      const dear = frontier.at(1e9);
      expectClose(dear.kl, 0, { atol: 1e-15 });
      expectClose(dear.reward, frontier.reference.reward, { rtol: 1e-8 });
    });

    test('what a reference’s probabilities miss of 1 is nothing to it', () => {
      const rounded = new RewardFrontier(
        PROMPTS.map(({ refLogprobs, rewards }) => ({
          rewards,
          refLogprobs: Array.from(refLogprobs, (logprob) => logprob + 1e-3),
        })),
      );
      expectClose(rounded.at(0.5).kl, frontier.at(0.5).kl, { rtol: 1e-12 });
      expectClose(rounded.greatest.kl, frontier.greatest.kl, { rtol: 1e-12 });
      expectClose(rounded.reference.reward, frontier.reference.reward, { rtol: 1e-12 });
    });

    test('a small KL buys √(2·variance·KL), the mean of the prompts’ variances', () => {
      const variances = PROMPTS.map(({ refLogprobs, rewards }) => {
        const mean = (power: number): number =>
          Array.from(refLogprobs).reduce(
            (sum, logprob, index) => sum + Math.exp(logprob) * (rewards[index] ?? NaN) ** power,
            0,
          );
        return mean(2) - mean(1) ** 2;
      });
      const variance = ((variances[0] ?? NaN) + (variances[1] ?? NaN)) / 2;
      const gain = frontier.bestReward(1e-8) - frontier.reference.reward;
      expectClose(gain, Math.sqrt(2 * variance * 1e-8), { rtol: 1e-3 });
    });

    test('no policy has more reward at its KL: 2,000 drawn ones, and none of other prices per prompt', () => {
      const random = new SeededRandom(3);
      for (let draw = 0; draw < 2000; draw++) {
        let [kl, reward] = [0, 0];
        for (const { refLogprobs, rewards } of PROMPTS) {
          const weights = Array.from(refLogprobs, () => random.nextFloat() ** 4);
          const total = weights.reduce((sum, weight) => sum + weight, 0);
          weights.forEach((weight, index) => {
            const p = weight / total;
            kl += (p * (Math.log(p) - (refLogprobs[index] ?? NaN))) / 2;
            reward += (p * (rewards[index] ?? NaN)) / 2;
          });
        }
        assert.ok(reward <= frontier.bestReward(kl) + 1e-12, `${reward} at ${kl}`);
      }
      for (const betas of [
        [0.3, 1],
        [1, 0.3],
        [0.5, 0.51],
      ]) {
        const { kl, reward } = tilted(betas);
        const lost = frontier.bestReward(kl) - reward;
        assert.ok(lost > 1e-6, `prices ${betas.join(' and ')} lose ${lost}`);
      }
    });

    test('what the reference never writes is no one’s best completion', () => {
      const { greatest } = new RewardFrontier([known([0.5, 0, 0.5], [0, 9, 1])]);
      expectClose([greatest.reward, greatest.kl], [1, Math.log(2)]);
    });

    test('a constant added to the rewards of a prompt moves rewards and no KL', () => {
      const moved = new RewardFrontier(
        PROMPTS.map(({ refLogprobs, rewards }, prompt) => ({
          refLogprobs,
          rewards: Array.from(rewards, (reward) => reward + 10 * prompt),
        })),
      );
      for (const beta of [0.1, 1]) {
        expectClose(moved.at(beta).kl, frontier.at(beta).kl, { rtol: 1e-9 });
        expectClose(moved.at(beta).reward, frontier.at(beta).reward + 5, { rtol: 1e-12 });
      }
    });
  });

  describe('shareReached', () => {
    test('by hand: 1 on the frontier, 0 at the reference’s reward, below 0 under it', () => {
      const { kl, reward } = frontier.at(0.7);
      const from = frontier.reference.reward;
      expectClose(frontier.shareReached({ kl, reward }), 1);
      expectClose(frontier.shareReached({ kl, reward: from + (reward - from) / 4 }), 0.25);
      expectClose(frontier.shareReached({ kl, reward: from }), 0);
      expectClose(frontier.shareReached({ kl, reward: 2 * from - reward }), -1);
    });
    test('beyond the greatest KL it is judged by the greatest reward', () => {
      expectClose(frontier.shareReached({ kl: 99, reward: 2 }), 1);
      assert.equal(frontier.bestReward(frontier.greatest.kl), frontier.greatest.reward);
    });
    test('is NaN where nothing can be added', () => {
      assert.ok(Number.isNaN(frontier.shareReached({ kl: 0, reward: 1 })), 'at KL 0');
      const flat = new RewardFrontier([known([0.5, 0.5], [1, 1])]);
      assert.ok(Number.isNaN(flat.shareReached({ kl: 0.1, reward: 1 })), 'one reward for all');
    });
  });

  describe('rejects', () => {
    const refused = (run: () => unknown, name: string, message: string): void =>
      assert.throws(run, { name, message: `RewardFrontier: ${message}.` });
    test('nothing to measure', () => {
      refused(
        () => new RewardFrontier([]),
        'ShapeError',
        'expected at least one prompt, received none',
      );
      refused(
        () => new RewardFrontier([known([], [])]),
        'ShapeError',
        'expected one reward per completion and at least one, received 0 rewards of 0 completions',
      );
      refused(
        () => new RewardFrontier([known([1], [1, 2])]),
        'ShapeError',
        'expected one reward per completion and at least one, received 2 rewards of 1 completions',
      );
    });
    test('numbers out of range', () => {
      refused(
        () => new RewardFrontier([known([0.5, 0.5], [1, NaN])]),
        'ValueRangeError',
        'expected every reward to be finite, received NaN for completion 1',
      );
      refused(() => frontier.at(0), 'ValueRangeError', 'expected beta to be above 0, received 0');
      refused(
        () => frontier.bestReward(-0.1),
        'ValueRangeError',
        'expected kl to be at least 0, received -0.1',
      );
    });
  });
});
