import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  EXACT,
  f64,
  goldenCases,
  gradientOf,
  JUNK,
  leaf,
} from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor, type Tensor } from '../torch/index.js';
import { bradleyTerryLoss, type BradleyTerryStats } from './index.js';

interface GoldenCase {
  name: string;
  chosenRewards: number[];
  rejectedRewards: number[];
  margins?: number[];
  centerCoef?: number;
  weights?: number[];
  expected: {
    loss: number;
    chosenGradient: number[];
    rejectedGradient: number[];
  } & Record<keyof BradleyTerryStats, number>;
}

interface Case {
  chosen: number[];
  rejected: number[];
  margins?: number[];
  centerCoef?: number;
  weights?: number[];
}

/** Loss, gradients and statistics in float64. */
function run({ chosen, rejected, margins, centerCoef, weights }: Case) {
  const chosenRewards = leaf(chosen);
  const rejectedRewards = leaf(rejected);
  const { loss, stats } = bradleyTerryLoss({
    chosenRewards,
    rejectedRewards,
    margins: margins && f64(margins),
    centerCoef,
    weights: weights && f64(weights),
  });
  loss.backward();
  const numbers = Object.fromEntries(
    Object.entries(stats).map(([name, stat]) => [name, stat.item()]),
  ) as Record<keyof BradleyTerryStats, number>;
  return {
    loss: loss.item(),
    chosenGradient: gradientOf(chosenRewards).toArray() as number[],
    rejectedGradient: gradientOf(rejectedRewards).toArray() as number[],
    stats: numbers,
  };
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

describe('bradleyTerryLoss', () => {
  describe('matches the reference implementation', () => {
    const golden = goldenCases<GoldenCase>('bradley_terry.json');
    test('pairs in the wrong order, margins, centring and weights are among the cases', () => {
      assert.ok(
        golden.some(({ expected }) => expected.accuracy < 1),
        'a wrong order',
      );
      assert.ok(
        golden.some(({ margins }) => margins !== undefined),
        'margins',
      );
      assert.ok(
        golden.some(({ centerCoef }) => centerCoef !== undefined),
        'centring',
      );
      assert.ok(
        golden.some(({ weights }) => weights !== undefined),
        'weights',
      );
    });
    for (const { name, chosenRewards: chosen, rejectedRewards: rejected, ...c } of golden) {
      test(`${name}: loss, stats and gradients`, () => {
        const { expected, ...options } = c;
        const { loss, chosenGradient, rejectedGradient, stats } = run({
          chosen,
          rejected,
          ...options,
        });
        expectClose(loss, expected.loss, EXACT);
        expectClose(chosenGradient, expected.chosenGradient, EXACT);
        expectClose(rejectedGradient, expected.rejectedGradient, EXACT);
        expectClose(stats.accuracy, expected.accuracy, EXACT);
        expectClose(stats.margin, expected.margin, EXACT);
        expectClose(stats.chosenReward, expected.chosenReward, EXACT);
        expectClose(stats.rejectedReward, expected.rejectedReward, EXACT);
      });
    }
  });

  describe('by hand', () => {
    test('equal scores cost log 2, pull by ½ and count as half right', () => {
      const { loss, chosenGradient, rejectedGradient, stats } = run({ chosen: [3], rejected: [3] });
      expectClose(loss, Math.LN2, EXACT);
      expectClose(chosenGradient, [-0.5], EXACT);
      expectClose(rejectedGradient, [0.5], EXACT);
      assert.equal(stats.accuracy, 0.5);
    });
    test('a lead of 2 with a margin of 3 costs what a lead of −1 costs, and is right', () => {
      const { loss, chosenGradient, stats } = run({ chosen: [5], rejected: [3], margins: [3] });
      expectClose(loss, -Math.log(sigmoid(-1)), EXACT);
      expectClose(chosenGradient, [-sigmoid(1)], EXACT);
      assert.deepEqual([stats.accuracy, stats.margin], [1, 2]);
    });
    test('centring adds c·(r_c + r_r)² and 2c·(r_c + r_r) to both gradients', () => {
      // r = (2, 1), c = 0.1: the term is 0.9, its gradient 0.6.
      const { loss, chosenGradient, rejectedGradient } = run({
        chosen: [2],
        rejected: [1],
        centerCoef: 0.1,
      });
      expectClose(loss, -Math.log(sigmoid(1)) + 0.9, EXACT);
      expectClose(chosenGradient, [-sigmoid(-1) + 0.6], EXACT);
      expectClose(rejectedGradient, [sigmoid(-1) + 0.6], EXACT);
    });
    test('stays finite in float32 at leads of ±10,000', () => {
      const chosenRewards = tensor([1e4, -1e4], { requiresGrad: true });
      const rejectedRewards = tensor([0, 0]);
      const { loss } = bradleyTerryLoss({ chosenRewards, rejectedRewards });
      loss.backward();
      expectClose(loss, 5000);
      expectClose(gradientOf(chosenRewards), [0, -0.5]);
    });
    test('the statistics are weighted like the loss', () => {
      const { stats } = run({ chosen: [4, 1], rejected: [1, 6], weights: [0.75, 0.25] });
      assert.deepEqual(stats, {
        accuracy: 0.75,
        margin: 1,
        chosenReward: 3.25,
        rejectedReward: 2.25,
      });
    });
  });

  describe('properties', () => {
    const whole: Case = {
      chosen: [0.3, -1.2, 2, 0.7],
      rejected: [0.9, -2, 1.5, -0.4],
      margins: [0.5, 0, 1, 2],
      centerCoef: 0.2,
      weights: [0.4, 0.3, 0.2, 0.1],
    };
    test('scores with the same constant added have the same loss without centring', () => {
      const { chosen, rejected } = whole;
      const shift = (values: number[]) => values.map((value) => value + 7);
      expectClose(
        run({ chosen: shift(chosen), rejected: shift(rejected) }).loss,
        run({ chosen, rejected }).loss,
        EXACT,
      );
    });
    test('equal weights are the mean, margins of 0 and a coefficient of 0 are none', () => {
      const { chosen, rejected } = whole;
      const plain = run({ chosen, rejected });
      const spelled = run({
        chosen,
        rejected,
        margins: [0, 0, 0, 0],
        centerCoef: 0,
        weights: [0.25, 0.25, 0.25, 0.25],
      });
      assert.deepEqual(spelled, plain);
    });
    test('micro-batches with the weights of the whole add up', () => {
      const all = run(whole);
      const parts = [0, 2].map((start) => {
        const cut = (values: number[] | undefined) => (values ?? []).slice(start, start + 2);
        return run({
          chosen: cut(whole.chosen),
          rejected: cut(whole.rejected),
          margins: cut(whole.margins),
          weights: cut(whole.weights),
          centerCoef: 0.2,
        });
      });
      const sum = (of: (part: (typeof parts)[number]) => number) =>
        parts.reduce((total, part) => total + of(part), 0);
      expectClose(
        sum(({ loss }) => loss),
        all.loss,
        EXACT,
      );
      expectClose(
        parts.flatMap(({ chosenGradient }) => chosenGradient),
        all.chosenGradient,
        EXACT,
      );
      expectClose(
        parts.flatMap(({ rejectedGradient }) => rejectedGradient),
        all.rejectedGradient,
        EXACT,
      );
      for (const name of Object.keys(all.stats) as (keyof BradleyTerryStats)[])
        expectClose(
          sum(({ stats }) => stats[name]),
          all.stats[name],
          EXACT,
        );
    });
    for (const junk of JUNK) {
      test(`never reads ${junk} at weight 0, forward or backward`, () => {
        const clean = run({ ...whole, weights: [0.4, 0, 0.6, 0] });
        const dirty = (values: number[] | undefined, sign: number) =>
          (values ?? []).map((value, index) => (index % 2 === 1 ? sign * junk : value));
        const actual = run({
          chosen: dirty(whole.chosen, 1),
          rejected: dirty(whole.rejected, -1),
          margins: dirty(whole.margins, 1),
          centerCoef: 0.2,
          weights: [0.4, 0, 0.6, 0],
        });
        assert.deepEqual(actual, clean);
        assert.deepEqual([actual.chosenGradient[1], actual.rejectedGradient[3]], [0, 0]);
      });
    }
    test('sends no gradient into margins and weights, and none out of the statistics', () => {
      const [margins, weights] = [leaf([1, 2]), leaf([0.5, 0.5])];
      const { loss, stats } = bradleyTerryLoss({
        chosenRewards: leaf([1, 2]),
        rejectedRewards: leaf([2, 1]),
        margins,
        centerCoef: 0.1,
        weights,
      });
      loss.backward();
      assert.equal(margins.grad, null);
      assert.equal(weights.grad, null);
      for (const [name, stat] of Object.entries(stats))
        assert.equal(stat.requiresGrad, false, name);
    });
    test('the loss has the dtype of the scores', () => {
      for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
        const rewards = (values: number[]): Tensor => tensor(values, { dtype });
        const { loss } = bradleyTerryLoss({
          chosenRewards: rewards([1, 2]),
          rejectedRewards: rewards([0, 3]),
          centerCoef: 0.1,
        });
        assert.equal(loss.dtype, dtype);
      }
    });
  });

  describe('rejects', () => {
    const pair = { chosenRewards: f64([1, 2]), rejectedRewards: f64([0, 1]) };
    test('shapes that differ', () => {
      assert.throws(
        () => bradleyTerryLoss({ ...pair, rejectedRewards: f64([1]) }),
        new ShapeError(
          'bradleyTerryLoss: expected rejectedRewards to have shape [B] = [2] like chosenRewards, received [1].',
        ),
      );
      assert.throws(
        () => bradleyTerryLoss({ ...pair, margins: f64([[1, 2]]) }),
        new ShapeError(
          'bradleyTerryLoss: expected margins to have shape [B] = [2] like chosenRewards, received [1, 2].',
        ),
      );
      assert.throws(
        () => bradleyTerryLoss({ ...pair, weights: f64([1]) }),
        new ShapeError(
          'bradleyTerryLoss: expected weights to have shape [B] = [2] like chosenRewards, received [1].',
        ),
      );
      assert.throws(
        () => bradleyTerryLoss({ chosenRewards: f64([[1]]), rejectedRewards: f64([[1]]) }),
        new ShapeError(
          'bradleyTerryLoss: expected chosenRewards to have shape [B], received [1, 1].',
        ),
      );
    });
    test('no pair', () => {
      assert.throws(
        () => bradleyTerryLoss({ chosenRewards: f64([]), rejectedRewards: f64([]) }),
        new ValueRangeError('bradleyTerryLoss: expected at least one pair, received none.'),
      );
    });
    for (const centerCoef of [-0.1, Infinity, NaN])
      test(`centerCoef ${centerCoef}`, () => {
        assert.throws(
          () => bradleyTerryLoss({ ...pair, centerCoef }),
          new ValueRangeError(
            `bradleyTerryLoss: expected centerCoef to be a finite number of at least 0, received ${centerCoef}.`,
          ),
        );
      });
  });
});
