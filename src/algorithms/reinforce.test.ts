import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { testObjectiveProperties } from '../../test/golden/algorithms/objectiveProperties.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import {
  cispoLoss,
  reinforceLoss,
  type CispoClip,
  type CispoLossInputs,
  type PolicyLossStats,
  type ReinforceLossInputs,
} from './index.js';

interface CispoCase {
  name: string;
  logprobs: number[][];
  oldLogprobs: number[][];
  advantages: number[][];
  tokenWeights: number[][];
  clip: CispoClip;
  expected: { loss: number; gradient: number[][]; stats: Record<keyof PolicyLossStats, number> };
}
interface ReinforceCase {
  name: string;
  logprobs: number[][];
  advantages: number[][];
  tokenWeights: number[][];
  rolloutWeights?: number[][];
  expected: {
    loss: number;
    gradient: number[][];
    meanLogprob: number;
    meanRolloutWeight: number;
  };
}

const inputs = {
  logprobs: [
    [-1, -2, -3],
    [-0.5, -4, -1.5],
  ],
  advantages: [
    [2, 1, -3],
    [1, 0.5, -1],
  ],
  tokenWeights: [
    [0.5, 0, 0.25],
    [0.25, 0.75, 0],
  ],
};
const oldLogprobs = [
  [-1.9, -2, -2.1],
  [-0.1, -4.1, -1.7],
];

describe('reinforceLoss', () => {
  for (const { name, expected, rolloutWeights, ...c } of goldenCases<ReinforceCase>(
    'reinforce.json',
  )) {
    test(`matches the reference implementation, ${name}: loss, stats and gradient`, () => {
      const logprobs = leaf(c.logprobs);
      const { loss, stats } = reinforceLoss({
        logprobs,
        advantages: f64(c.advantages),
        tokenWeights: f64(c.tokenWeights),
        rolloutWeights: rolloutWeights && f64(rolloutWeights),
      });
      loss.backward();
      expectClose(loss, expected.loss, EXACT);
      expectClose(gradientOf(logprobs), expected.gradient, EXACT);
      expectClose(stats.meanLogprob, expected.meanLogprob, EXACT);
      if (rolloutWeights) expectClose(stats.meanRolloutWeight ?? NaN, expected.meanRolloutWeight);
      else assert.equal(stats.meanRolloutWeight, undefined);
    });
  }

  test('by hand: L = −w·u·Â·logprob, with gradient −w·u·Â', () => {
    // w = 1/2, u = 3, Â = −2, logprob = −0.4.
    const logprobs = leaf([[-0.4]]);
    const { loss } = reinforceLoss({
      logprobs,
      advantages: f64([[-2]]),
      tokenWeights: f64([[0.5]]),
      rolloutWeights: f64([[3]]),
    });
    loss.backward();
    expectClose([loss.item(), gradientOf(logprobs).item()], [-1.2, 3], EXACT);
  });

  describe('properties', () => {
    testObjectiveProperties({
      inputs: {
        ...inputs,
        rolloutWeights: [
          [0.5, 1, 2],
          [1.5, 0.25, 1],
        ],
      },
      live: 'logprobs',
      call: (tensors) => reinforceLoss(tensors as unknown as ReinforceLossInputs),
    });
    test('rollout weights of 1 change nothing', () => {
      const tensors = {
        logprobs: f64(inputs.logprobs),
        advantages: f64(inputs.advantages),
        tokenWeights: f64(inputs.tokenWeights),
      };
      const rolloutWeights = f64([
        [1, 1, 1],
        [1, 1, 1],
      ]);
      const weighted = reinforceLoss({ ...tensors, rolloutWeights });
      assert.equal(weighted.loss.item(), reinforceLoss(tensors).loss.item());
    });
  });

  test('rejects shapes that differ', () => {
    const one = f64([[1]]);
    assert.throws(
      () => reinforceLoss({ logprobs: one, advantages: f64([1]), tokenWeights: one }),
      new ShapeError(
        'reinforceLoss: expected advantages to have shape [B, T] = [1, 1] like logprobs, received [1].',
      ),
    );
  });
});

describe('cispoLoss', () => {
  for (const { name, expected, clip, ...c } of goldenCases<CispoCase>('cispo.json')) {
    test(`matches the reference implementation, ${name}: loss, stats and gradient`, () => {
      const logprobs = leaf(c.logprobs);
      const { loss, stats } = cispoLoss({
        logprobs,
        oldLogprobs: f64(c.oldLogprobs),
        advantages: f64(c.advantages),
        tokenWeights: f64(c.tokenWeights),
        clip,
      });
      loss.backward();
      expectClose(loss, expected.loss, EXACT);
      expectClose(gradientOf(logprobs), expected.gradient, EXACT);
      assert.deepEqual(Object.keys(stats).sort(), Object.keys(expected.stats).sort());
      for (const [stat, value] of Object.entries(expected.stats))
        expectClose(stats[stat as keyof PolicyLossStats], value, EXACT);
    });
  }

  describe('by hand', () => {
    const run = (logRatio: number, advantage: number, clip?: CispoClip) => {
      const logprobs = leaf([[logRatio - 3]]);
      const { loss, stats } = cispoLoss({
        logprobs,
        oldLogprobs: f64([[-3]]),
        advantages: f64([[advantage]]),
        tokenWeights: f64([[1]]),
        clip,
      });
      loss.backward();
      return {
        loss: loss.item(),
        gradient: gradientOf(logprobs).item(),
        low: stats.clipFractionLow.item(),
        high: stats.clipFractionHigh.item(),
      };
    };
    test('the weight is ρ up to high, and the gradient never ends', () => {
      // ρ = e² ≈ 7.39, bounded at 5: L = −5·2·(−1) and dL/dlogprob = −10.
      assert.deepEqual(run(2, 2), { loss: 10, gradient: -10, low: 0, high: 1 });
      // ρ = e¹ is below 5: L = −e·2·(−2).
      const { loss, gradient, high } = run(1, 2);
      expectClose([loss, gradient, high], [4 * Math.E, -2 * Math.E, 0], EXACT);
    });
    test('the sign of the advantage does not matter for the bound', () => {
      assert.deepEqual(run(2, -2), { loss: -10, gradient: 10, low: 0, high: 1 });
    });
    test('low bounds the weight from below; without it a weight may vanish', () => {
      // ρ = e⁻³ ≈ 0.05.
      const bounded = run(-3, 1, { low: 0.5 });
      expectClose([bounded.loss, bounded.gradient, bounded.low], [3, -0.5, 1], EXACT);
      const free = run(-3, 1);
      expectClose([free.gradient, free.low], [-Math.exp(-3), 0], EXACT);
    });
    test('a ratio that overflows has the weight high', () => {
      const { loss, gradient } = run(1000, 1);
      assert.deepEqual([loss, gradient], [-4985, -5]);
    });
    test('on-policy the weight is 1: TRL’s default bound of 0.2 would make it 0.2', () => {
      expectClose(run(0, 2).gradient, -2, EXACT);
    });
  });

  describe('properties', () => {
    testObjectiveProperties({
      inputs: { ...inputs, oldLogprobs },
      live: 'logprobs',
      call: (tensors) =>
        cispoLoss({ ...(tensors as unknown as CispoLossInputs), clip: { low: 0.7, high: 1.5 } }),
    });
    test('on-policy it is reinforceLoss', () => {
      const shared = { advantages: f64(inputs.advantages), tokenWeights: f64(inputs.tokenWeights) };
      const [one, other] = [leaf(inputs.logprobs), leaf(inputs.logprobs)];
      const cispo = cispoLoss({ ...shared, logprobs: one, oldLogprobs: f64(inputs.logprobs) });
      const reinforce = reinforceLoss({ ...shared, logprobs: other });
      cispo.loss.backward();
      reinforce.loss.backward();
      expectClose(cispo.loss, reinforce.loss, EXACT);
      expectClose(gradientOf(one), gradientOf(other), EXACT);
    });
  });

  describe('rejects', () => {
    const one = f64([[1]]);
    const valid = { logprobs: one, oldLogprobs: one, advantages: one, tokenWeights: one };
    test('an upper bound below 1: a PPO ε taken for a bound', () => {
      assert.throws(
        () => cispoLoss({ ...valid, clip: { high: 0.2 } }),
        new ValueRangeError('cispoLoss: expected clip.high to be at least 1, received 0.2.', {
          hint: 'It bounds the importance weight itself, so 1 + ε where PPO has ε.',
        }),
      );
    });
    test('a lower bound outside of [0, 1]', () => {
      for (const low of [-0.1, 1.1])
        assert.throws(
          () => cispoLoss({ ...valid, clip: { low } }),
          new ValueRangeError(`cispoLoss: expected clip.low to be from 0 to 1, received ${low}.`),
        );
    });
    test('shapes that differ', () => {
      assert.throws(
        () => cispoLoss({ ...valid, oldLogprobs: f64([[1, 2]]) }),
        new ShapeError(
          'cispoLoss: expected oldLogprobs to have shape [B, T] = [1, 1] like logprobs, received [1, 2].',
        ),
      );
    });
  });
});
