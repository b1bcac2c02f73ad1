import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  EXACT,
  expectSame,
  f64,
  goldenCases,
  gradientOf,
  JUNK,
  junkWhere,
  leaf,
} from '../../test/golden/algorithms/golden.js';
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { tensor } from '../torch/index.js';
import {
  aggregateStepScores,
  processRewardLoss,
  type ProcessRewardStats,
  type StepAggregation,
} from './index.js';

interface GoldenCase {
  name: string;
  stepLogits: number[][][];
  stepLabels: number[][];
  stepMask: number[][];
  expected: { loss: number; gradient: number[][][] } & Record<keyof ProcessRewardStats, number>;
}
const golden = goldenCases<GoldenCase>('process_reward.json');

const NAMES = ['accuracy', 'rightShare', 'rightProbability', 'wrongProbability'] as const;

interface Case {
  logits: number[][][];
  labels: number[][];
  mask: number[][];
  weights?: number[][] | undefined;
}

/** Loss, gradient and statistics in float64. */
function run({ logits, labels, mask, weights }: Case) {
  const stepLogits = leaf(logits);
  const { loss, stats } = processRewardLoss({
    stepLogits,
    stepLabels: f64(labels),
    stepMask: f64(mask),
    stepWeights: weights && f64(weights),
  });
  loss.backward();
  const numbers = Object.fromEntries(NAMES.map((name) => [name, stats[name].item()]));
  return {
    loss: loss.item(),
    gradient: gradientOf(stepLogits).toArray() as number[][][],
    stats: numbers as Record<keyof ProcessRewardStats, number>,
  };
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

describe('processRewardLoss', () => {
  describe('matches the reference implementation', () => {
    test('ragged rows and a row without a step are among the cases', () => {
      assert.ok(
        golden.some(({ stepMask }) => stepMask.some((row) => !row.includes(1))),
        'a row without a step',
      );
    });
    for (const { name, expected, stepLogits, stepLabels, stepMask } of golden)
      test(`${name}: loss, stats and gradient`, () => {
        const actual = run({ logits: stepLogits, labels: stepLabels, mask: stepMask });
        expectClose(actual.loss, expected.loss, EXACT);
        expectClose(actual.gradient, expected.gradient, EXACT);
        for (const stat of NAMES) expectClose(actual.stats[stat], expected[stat], EXACT);
      });
  });

  describe('by hand', () => {
    test('one right and one wrong step: −log σ(3)/2 − log σ(−1)/2, gradients (p − y)/2', () => {
      // Right is ahead by 3 in the right step, by 1 in the wrong one.
      const { loss, gradient, stats } = run({
        logits: [
          [
            [-1, 2],
            [4, 5],
          ],
        ],
        labels: [[1, 0]],
        mask: [[1, 1]],
      });
      expectClose(loss, -(Math.log(sigmoid(3)) + Math.log(sigmoid(-1))) / 2, EXACT);
      const [first, second] = [(1 - sigmoid(3)) / 2, sigmoid(1) / 2];
      expectClose(
        gradient,
        [
          [
            [first, -first],
            [-second, second],
          ],
        ],
        EXACT,
      );
      expectClose(
        NAMES.map((name) => stats[name]),
        [0.5, 0.5, sigmoid(3) / 2, sigmoid(1) / 2],
        EXACT,
      );
    });
    test('equal logits cost log 2 and are half right, whatever the label', () => {
      for (const label of [0, 1]) {
        const { loss, stats } = run({ logits: [[[7, 7]]], labels: [[label]], mask: [[1]] });
        expectClose(loss, Math.LN2, EXACT);
        assert.equal(stats.accuracy, 0.5);
      }
    });
    test('a label of ¾ asks for a probability of ¾', () => {
      const best = Math.log(3);
      const { loss, gradient } = run({ logits: [[[0, best]]], labels: [[0.75]], mask: [[1]] });
      expectClose(loss, -0.75 * Math.log(0.75) - 0.25 * Math.log(0.25), EXACT);
      expectClose(gradient, [[[0, 0]]], EXACT);
      const { stats } = run({ logits: [[[0, best]]], labels: [[0.75]], mask: [[1]] });
      expectClose(
        NAMES.map((name) => stats[name]),
        [1, 0.75, 0.5625, 0.1875],
        EXACT,
      );
    });
    test('stays finite in float32 at logits of ±10,000', () => {
      const stepLogits = tensor(
        [
          [
            [1e4, -1e4],
            [1e4, -1e4],
          ],
        ],
        { requiresGrad: true },
      );
      const { loss } = processRewardLoss({
        stepLogits,
        stepLabels: tensor([[1, 0]]),
        stepMask: tensor([[1, 1]]),
      });
      loss.backward();
      expectClose(loss, 1e4);
      expectClose(gradientOf(stepLogits), [
        [
          [0.5, -0.5],
          [0, 0],
        ],
      ]);
    });
  });

  describe('properties', () => {
    const whole: Case = {
      logits: [
        [
          [0.5, 1],
          [2, -1],
          [0.3, 0.2],
        ],
        [
          [-1, 1],
          [0, 0.6],
          [4, 1],
        ],
      ],
      labels: [
        [1, 0, 1],
        [0, 1, 0],
      ],
      mask: [
        [1, 1, 0],
        [1, 0, 1],
      ],
    };
    test('logits with the same number added to both have the same loss', () => {
      const shifted = whole.logits.map((row) => row.map((pair) => pair.map((x) => x + 5)));
      expectClose(run({ ...whole, logits: shifted }).loss, run(whole).loss, EXACT);
    });
    test('equal weights are the mean', () => {
      const weights = whole.mask.map((row) => row.map((flag) => flag / 4));
      assert.deepEqual(run({ ...whole, weights }), run(whole));
    });
    test('a step with weight 0 is not read, nor is one outside of the mask with a weight', () => {
      const weights = [
        [0.5, 0, 0.25],
        [0.125, 0.25, 0.5],
      ];
      const read = [
        [1, 0, 0],
        [1, 0, 1],
      ];
      const onlyRead = weights.map((row, i) => row.map((w, s) => w * (read[i]?.[s] ?? 0)));
      const clean = run({ ...whole, mask: read, weights: onlyRead });
      const labels = junkWhere(whole.labels, read, NaN);
      assert.deepEqual(run({ ...whole, labels, weights }), clean);
    });
    test('micro-batches with the weights of the whole add up', () => {
      const all = run(whole);
      const parts = [0, 1].map((row) => {
        const cut = <Row>(rows: Row[]): Row[] => rows.slice(row, row + 1);
        return run({
          logits: cut(whole.logits),
          labels: cut(whole.labels),
          mask: cut(whole.mask),
          weights: cut(whole.mask).map((flags) => flags.map((flag) => flag / 4)),
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
        parts.flatMap(({ gradient }) => gradient),
        all.gradient,
        EXACT,
      );
      for (const name of NAMES)
        expectClose(
          sum(({ stats }) => stats[name]),
          all.stats[name],
          EXACT,
        );
    });
    for (const junk of JUNK)
      test(`never reads ${junk} where there is no step, forward or backward`, () => {
        const logits = whole.logits.map((row, i) =>
          row.map((pair, s) => (whole.mask[i]?.[s] === 1 ? pair : [junk, -junk])),
        );
        const labels = junkWhere(whole.labels, whole.mask, junk);
        const dirty = run({ ...whole, logits, labels });
        assert.deepEqual(dirty, run(whole));
        assert.deepEqual(dirty.gradient[0]?.[2], [0, 0]);
      });
    test('with weights a part without any step is 0', () => {
      const none = whole.mask.map((row) => row.map(() => 0));
      const { loss, stats } = run({ ...whole, mask: none, weights: whole.mask });
      expectClose(loss, 0);
      assert.deepEqual(Object.values(stats), [0, 0, 0, 0]);
    });
    test('sends no gradient to labels, mask and weights, and none out of the statistics', () => {
      const constants = {
        stepLabels: leaf(whole.labels),
        stepMask: leaf(whole.mask),
        stepWeights: leaf(whole.mask),
      };
      const { loss, stats } = processRewardLoss({ stepLogits: leaf(whole.logits), ...constants });
      loss.backward();
      for (const [name, { grad }] of Object.entries(constants)) assert.equal(grad, null, name);
      for (const name of NAMES) assert.equal(stats[name].requiresGrad, false, name);
    });
    test('labels and mask may have any dtype; the loss has that of the logits', () => {
      for (const dtype of ['float64', 'float32', 'bfloat16'] as const)
        for (const other of ['bool', 'int64'] as const) {
          const { loss } = processRewardLoss({
            stepLogits: tensor(whole.logits, { dtype }),
            stepLabels: tensor(whole.labels, { dtype: other }),
            stepMask: tensor(whole.mask, { dtype: other }),
          });
          assert.equal(loss.dtype, dtype);
          expectClose(loss.to('float64'), run(whole).loss, { rtol: 1e-2 });
        }
    });
  });

  describe('rejects', () => {
    const valid = { stepLogits: f64([[[0, 1]]]), stepLabels: f64([[1]]), stepMask: f64([[1]]) };
    test('shapes that do not fit', () => {
      assert.throws(
        () => processRewardLoss({ ...valid, stepLogits: f64([[0, 1]]) }),
        new ShapeError(
          'processRewardLoss: expected stepLogits to have shape [B, S, 2], received [1, 2].',
        ),
      );
      assert.throws(
        () => processRewardLoss({ ...valid, stepLogits: f64([[[0, 1, 2]]]) }),
        new ShapeError(
          'processRewardLoss: expected stepLogits to have shape [B, S, 2], received [1, 1, 3].',
        ),
      );
      for (const name of ['stepLabels', 'stepMask', 'stepWeights'] as const)
        assert.throws(
          () => processRewardLoss({ ...valid, [name]: f64([[1, 1]]) }),
          new ShapeError(
            `processRewardLoss: expected ${name} to have shape [B, S] = [1, 1] like stepLogits[..., 0], received [1, 2].`,
          ),
        );
    });
    for (const label of [-100, 2, NaN])
      test(`a counted label of ${label}`, () => {
        assert.throws(
          () => processRewardLoss({ ...valid, stepLabels: f64([[label]]) }),
          new ValueRangeError(
            `processRewardLoss: expected labels from 0 to 1 where stepMask counts, received ${label}.`,
          ),
        );
      });
    test('no counted step', () => {
      assert.throws(
        () => processRewardLoss({ ...valid, stepMask: f64([[0]]) }),
        new ValueRangeError(
          'processRewardLoss: expected at least one counted step, received none.',
        ),
      );
    });
  });
});

describe('aggregateStepScores', () => {
  interface AggregateCase {
    kind: StepAggregation;
    stepScores: number[][];
    stepMask: number[][];
    expected: number[];
  }
  for (const { kind, stepScores, stepMask, expected } of goldenCases<AggregateCase>(
    'step_scores.json',
  )) {
    const call = (scores: number[][]) =>
      aggregateStepScores({ stepScores: f64(scores), stepMask: f64(stepMask), kind });
    test(`${kind} matches the reference implementation, gaps in the mask included`, () => {
      expectClose(call(stepScores), expected, EXACT);
    });
    for (const junk of JUNK)
      test(`${kind} never reads ${junk} where there is no step`, () => {
        expectSame(call(junkWhere(stepScores, stepMask, junk)), call(stepScores));
      });
    test(`${kind} of one step is its score, of none NaN: there is nothing to score`, () => {
      const scores = aggregateStepScores({
        stepScores: f64([
          [0.25, 0.9],
          [0.5, 0.5],
        ]),
        stepMask: tensor(
          [
            [1, 0],
            [0, 0],
          ],
          { dtype: 'bool' },
        ),
        kind,
      });
      expectClose(scores, [0.25, NaN], { nanIsEqual: true });
    });
    test(`${kind} is a constant with the dtype of the scores`, () => {
      const stepScores = tensor([[0.5, 0.25]], { dtype: 'bfloat16', requiresGrad: true });
      const scores = aggregateStepScores({ stepScores, stepMask: tensor([[1, 1]]), kind });
      assert.equal(scores.dtype, 'bfloat16');
      assert.equal(scores.requiresGrad, false);
    });
  }
  test('by hand: (0.5, 0.8, 0.9) gives 0.36, 0.5 and 0.9', () => {
    const inputs = { stepScores: f64([[0.5, 0.8, 0.9]]), stepMask: f64([[1, 1, 1]]) };
    const [product, min, last] = (['product', 'min', 'last'] as const).map((kind) =>
      aggregateStepScores({ ...inputs, kind }).item(),
    );
    expectClose([product ?? NaN, min ?? NaN, last ?? NaN], [0.36, 0.5, 0.9], EXACT);
  });
  test('rejects shapes that differ, an unknown kind, and what is no probability', () => {
    const valid = { stepScores: f64([[0.5]]), stepMask: f64([[1]]), kind: 'min' } as const;
    assert.throws(
      () => aggregateStepScores({ ...valid, stepMask: f64([[1, 1]]) }),
      new ShapeError(
        'aggregateStepScores: expected stepMask to have shape [B, S] = [1, 1] like stepScores, received [1, 2].',
      ),
    );
    assert.throws(
      () => aggregateStepScores({ ...valid, kind: 'mean' as StepAggregation }),
      new ValueRangeError(
        'aggregateStepScores: expected kind to be product, min or last, received "mean".',
      ),
    );
    for (const score of [-0.1, 1.1, NaN])
      assert.throws(
        () =>
          aggregateStepScores({
            ...valid,
            stepScores: f64([[0.5], [score]]),
            stepMask: f64([[1], [1]]),
          }),
        new ValueRangeError(
          `aggregateStepScores: expected scores from 0 to 1 where stepMask counts, received ${score} in row 1.`,
        ),
      );
  });
});
