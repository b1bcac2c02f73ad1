import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { EXACT, f64, goldenCases, gradientOf, leaf } from '../../test/golden/algorithms/golden.js';
import { testObjectiveProperties } from '../../test/golden/algorithms/objectiveProperties.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { valueLoss, type ValueLossInputs } from './index.js';

interface GoldenCase {
  name: string;
  values: number[][];
  oldValues: number[][];
  returns: number[][];
  tokenWeights: number[][];
  clipRange?: number;
  expected: { loss: number; gradient: number[][]; meanValue: number; valueClipFraction: number };
}
const golden = goldenCases<GoldenCase>('value_loss.json');

/** One token with weight 1: value, old value, return. */
function oneToken(value: number, old: number, target: number, clipRange?: number) {
  const values = leaf([[value]]);
  const { loss, stats } = valueLoss({
    values,
    oldValues: f64([[old]]),
    returns: f64([[target]]),
    tokenWeights: f64([[1]]),
    clipRange,
  });
  loss.backward();
  return [loss.item(), gradientOf(values).item(), stats.valueClipFraction.item()];
}

describe('valueLoss', () => {
  describe('matches the reference implementation', () => {
    assert.ok(golden.some(({ expected }) => expected.valueClipFraction > 0));
    for (const { name, expected, clipRange, ...c } of golden) {
      test(`${name}: loss, stats and gradient`, () => {
        const values = leaf(c.values);
        const { loss, stats } = valueLoss({
          values,
          oldValues: f64(c.oldValues),
          returns: f64(c.returns),
          tokenWeights: f64(c.tokenWeights),
          clipRange,
        });
        loss.backward();
        expectClose(loss, expected.loss, EXACT);
        expectClose(gradientOf(values), expected.gradient, EXACT);
        expectClose(stats.meanValue, expected.meanValue, EXACT);
        expectClose(stats.valueClipFraction, expected.valueClipFraction, EXACT);
      });
    }
  });

  describe('by hand', () => {
    test('without clipRange it is ½(V − R)², with gradient V − R', () => {
      expectClose(oneToken(3, 0, 1), [2, 2, 0], EXACT);
    });
    test('a value that moved too far towards the return has the old error and no gradient', () => {
      // V moved from 0 to 0.9, the return is 1: clipped at 0.2, ½(0.2 − 1)² = 0.32 > ½(0.1)².
      expectClose(oneToken(0.9, 0, 1, 0.2), [0.32, 0, 1], EXACT);
      expectClose(oneToken(-0.9, 0, -1, 0.2), [0.32, 0, 1], EXACT);
    });
    test('a value that moved away from the return keeps its gradient', () => {
      // V moved from 0 to −1, the return is 1: ½·4 > ½(−0.2 − 1)².
      expectClose(oneToken(-1, 0, 1, 0.2), [2, -2, 0], EXACT);
    });
    test('a value within the range is not clipped', () => {
      expectClose(oneToken(0.1, 0, 1, 0.2), [0.405, -0.9, 0], EXACT);
    });
  });

  describe('properties', () => {
    const inputs = {
      values: [
        [1, 2, 3],
        [-0.5, 0.4, 1.5],
      ],
      oldValues: [
        [1.5, 2, 0],
        [0.5, 1.4, 1.5],
      ],
      returns: [
        [0, 2, 5],
        [-3, 0.5, 1],
      ],
      tokenWeights: [
        [0.5, 0, 0.25],
        [0.25, 0.75, 0],
      ],
    };
    for (const clipRange of [undefined, 0.4]) {
      describe(`clipRange ${clipRange}`, () => {
        testObjectiveProperties({
          inputs,
          live: 'values',
          call: (tensors) => valueLoss({ ...(tensors as unknown as ValueLossInputs), clipRange }),
        });
      });
    }
    test('a range wider than every move is no clipping', () => {
      const tensors = Object.fromEntries(
        Object.entries(inputs).map(([name, rows]) => [name, f64(rows)]),
      ) as unknown as ValueLossInputs;
      expectClose(valueLoss({ ...tensors, clipRange: 100 }).loss, valueLoss(tensors).loss, EXACT);
    });
  });

  describe('rejects', () => {
    const one = f64([[1]]);
    const valid = { values: one, returns: one, tokenWeights: one };
    test('clipRange without oldValues, or one that is not positive', () => {
      assert.throws(
        () => valueLoss({ ...valid, clipRange: 0.2 }),
        new ValueRangeError('valueLoss: expected oldValues with clipRange, received none.'),
      );
      assert.throws(
        () => valueLoss({ ...valid, oldValues: one, clipRange: 0 }),
        new ValueRangeError('valueLoss: expected clipRange to be a positive number, received 0.'),
      );
    });
    test('shapes that differ', () => {
      assert.throws(
        () => valueLoss({ ...valid, oldValues: f64([1]) }),
        new ShapeError(
          'valueLoss: expected oldValues to have shape [B, T] = [1, 1] like values, received [1].',
        ),
      );
    });
  });
});
