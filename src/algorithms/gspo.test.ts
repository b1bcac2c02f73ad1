import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { testObjectiveProperties } from '../../test/golden/algorithms/objectiveProperties.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import {
  gspoLoss,
  ppoClipLoss,
  type ClipRange,
  type GspoLossInputs,
  type PolicyLossStats,
} from './index.js';

interface GoldenCase {
  name: string;
  level: GspoLossInputs['level'];
  logprobs: number[][];
  oldLogprobs: number[][];
  advantages: number[][];
  tokenWeights: number[][];
  mask?: number[][];
  clip: ClipRange;
  expected: { loss: number; gradient: number[][]; stats: Record<keyof PolicyLossStats, number> };
}

const clip = { low: 0.1, high: 0.3 };
const LEVELS = ['sequence', 'token'] as const;

/** One row of two tokens, each with weight 1/2 and log-ratios a and b. */
function twoTokens(
  [a, b]: readonly [number, number],
  advantages: readonly [number, number],
  level: GspoLossInputs['level'],
) {
  const logprobs = leaf([[a - 2, b - 2]]);
  const { loss, stats } = gspoLoss({
    logprobs,
    oldLogprobs: f64([[-2, -2]]),
    advantages: f64([[...advantages]]),
    tokenWeights: f64([[0.5, 0.5]]),
    clip,
    level,
  });
  loss.backward();
  return { loss: loss.item(), gradient: gradientOf(logprobs), stats };
}

describe('gspoLoss', () => {
  describe('matches the reference implementation', () => {
    for (const { name, expected, level, clip: range, mask, ...c } of goldenCases<GoldenCase>(
      'gspo.json',
    )) {
      test(`${name}: loss, stats and gradient`, () => {
        const logprobs = leaf(c.logprobs);
        const { loss, stats } = gspoLoss({
          logprobs,
          oldLogprobs: f64(c.oldLogprobs),
          advantages: f64(c.advantages),
          tokenWeights: f64(c.tokenWeights),
          mask: mask && f64(mask),
          clip: range,
          level,
        });
        loss.backward();
        expectClose(loss, expected.loss, EXACT);
        expectClose(gradientOf(logprobs), expected.gradient, EXACT);
        assert.deepEqual(Object.keys(stats).sort(), Object.keys(expected.stats).sort());
        for (const [stat, value] of Object.entries(expected.stats))
          expectClose(stats[stat as keyof PolicyLossStats], value, EXACT);
      });
    }
  });

  describe('by hand', () => {
    test('the ratio is the geometric mean, and every token shares its gradient', () => {
      // log-ratios 0.3 and −0.1: log s = 0.1. L = −s·Â; dL/dlogprob = −s·Â/2 for both.
      const { loss, gradient } = twoTokens([0.3, -0.1], [2, 2], 'sequence');
      const s = Math.exp(0.1);
      expectClose(loss, -2 * s, EXACT);
      expectClose(gradient, [[-s, -s]], EXACT);
    });
    test('at the token level each token has its own advantage', () => {
      // Â = 2 and −4: L = −½(2s − 4s) = s; the gradients are −½·2s and ½·4s.
      const { loss, gradient } = twoTokens([0.3, -0.1], [2, -4], 'token');
      const s = Math.exp(0.1);
      expectClose(loss, s, EXACT);
      expectClose(gradient, [[-s, 2 * s]], EXACT);
    });
    test('at the sequence level the tokens of a row mix: both get the mean', () => {
      const { gradient } = twoTokens([0.3, -0.1], [2, -4], 'sequence');
      const s = Math.exp(0.1);
      expectClose(gradient, [[s / 2, s / 2]], EXACT);
    });
    for (const level of LEVELS) {
      test(`is clipped on the row's ratio, not on the token's (${level})`, () => {
        // Log-ratios 1 and −0.8: each alone is out of range, their mean 0.1 is within.
        const within = twoTokens([1, -0.8], [1, 1], level);
        expectClose(within.stats.clipFractionHigh, 0);
        // Log-ratios 0.2 and 0.6: the mean 0.4 is above log 1.3.
        const above = twoTokens([0.2, 0.6], [1, 1], level);
        expectClose(above.loss, -1.3, EXACT);
        expectClose(above.gradient, [[0, 0]]);
        expectClose(
          [above.stats.clipFractionHigh.item(), above.stats.clipFractionLow.item()],
          [1, 0],
        );
      });
      test(`has exactly no gradient where a clipped ratio overflows (${level})`, () => {
        const { loss, gradient } = twoTokens([2000, 0], [1, 1], level);
        expectClose(loss, -1.3, EXACT);
        assert.deepEqual(gradient.toArray(), [[0, 0]]);
      });
    }
    test('tokens of the mask count in the ratio even where their weight is 0', () => {
      const logprobs = leaf([[-1.7, -2.1]]);
      const { loss } = gspoLoss({
        logprobs,
        oldLogprobs: f64([[-2, -2]]),
        advantages: f64([[2, 2]]),
        tokenWeights: f64([[1, 0]]),
        mask: f64([[1, 1]]),
        clip,
        level: 'sequence',
      });
      loss.backward();
      const s = Math.exp(0.1);
      expectClose(loss, -2 * s, EXACT);
      expectClose(gradientOf(logprobs), [[-s, -s]], EXACT);
    });
  });

  describe('properties', () => {
    const inputs = {
      logprobs: [
        [-1, -2, -3],
        [-0.5, -4, -1.5],
      ],
      oldLogprobs: [
        [-1.1, -2, -2.9],
        [-0.6, -4.1, -1.7],
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
    for (const level of LEVELS) {
      describe(level, () => {
        testObjectiveProperties({
          inputs,
          live: 'logprobs',
          call: (tensors) => gspoLoss({ ...(tensors as unknown as GspoLossInputs), clip, level }),
        });
        test('with one token per row is ppoClipLoss', () => {
          const column = (rows: number[][]) => rows.map((row) => row.slice(0, 1));
          const one = leaf(column(inputs.logprobs));
          const other = leaf(column(inputs.logprobs));
          const shared = {
            oldLogprobs: f64([[-1.3], [-0.2]]),
            advantages: f64(column(inputs.advantages)),
            tokenWeights: f64(column(inputs.tokenWeights)),
            clip,
          };
          const gspo = gspoLoss({ ...shared, logprobs: one, level });
          const ppo = ppoClipLoss({ ...shared, logprobs: other });
          gspo.loss.backward();
          ppo.loss.backward();
          expectClose(gspo.loss, ppo.loss, EXACT);
          expectClose(gradientOf(one), gradientOf(other), EXACT);
        });
      });
    }
    test('with one advantage per row both levels are the same', () => {
      const advantages = f64([
        [2, 2, 2],
        [-1, -1, -1],
      ]);
      // Equal weights within a row: then the mean of the tokens' gradients is each token's.
      const tokenWeights = f64([
        [0.5, 0, 0.5],
        [0.25, 0.25, 0],
      ]);
      const [sequence, token] = LEVELS.map((level) => {
        const logprobs = leaf(inputs.logprobs);
        const oldLogprobs = f64(inputs.oldLogprobs);
        const { loss } = gspoLoss({ logprobs, oldLogprobs, advantages, tokenWeights, clip, level });
        loss.backward();
        return { loss, gradient: gradientOf(logprobs) };
      });
      assert.ok(sequence && token);
      expectClose(sequence.loss, token.loss, EXACT);
      expectClose(sequence.gradient, token.gradient, EXACT);
    });
  });

  describe('rejects', () => {
    const one = f64([[1]]);
    const valid = { logprobs: one, oldLogprobs: one, advantages: one, tokenWeights: one, clip };
    test('shapes that differ, the mask included', () => {
      assert.throws(
        () => gspoLoss({ ...valid, level: 'token', mask: f64([[1, 1]]) }),
        new ShapeError(
          'gspoLoss: expected mask to have shape [B, T] = [1, 1] like logprobs, received [1, 2].',
        ),
      );
    });
    test('a negative bound and an unknown level', () => {
      assert.throws(
        () => gspoLoss({ ...valid, level: 'token', clip: { low: 0.1, high: -1 } }),
        new ValueRangeError('gspoLoss: expected clip.high to be at least 0, received -1.'),
      );
      assert.throws(
        () => gspoLoss({ ...valid, level: 'row' as 'token' }),
        new ValueRangeError('gspoLoss: expected level to be sequence or token, received "row".'),
      );
    });
  });
});
