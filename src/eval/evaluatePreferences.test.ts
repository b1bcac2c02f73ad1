import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { tinyModel, tinyPairs } from '../../test/tinyRun.js';
import type { PreferenceExample } from '../data/index.js';
import { createScalarModel, type ScalarModel } from '../models/index.js';
import { memory, noGrad, tensor, tidy } from '../torch/index.js';
import { evaluatePreferences, preferenceMetrics, scoreSequences, wilsonInterval } from './index.js';

const model = createScalarModel(tinyModel({ dtype: 'float64' }), { std: 0.4, seed: 3 });

/** The score of one sequence, read alone. */
function scoreAlone(of: ScalarModel, ids: readonly number[]): number {
  return noGrad(() =>
    tidy(() => {
      const { values } = of.forward({ inputIds: tensor([[...ids]], { dtype: 'int64' }) });
      return values.select(1, ids.length - 1).item();
    }),
  );
}

const leadOf = ({ promptIds, chosenIds, rejectedIds }: PreferenceExample): [number, number] => [
  scoreAlone(model, [...promptIds, ...chosenIds]),
  scoreAlone(model, [...promptIds, ...rejectedIds]),
];
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const alone = tinyPairs().slice(0, 4);

describe('scoreSequences', () => {
  test('gives every sequence the score it has alone, whatever stands beside it', () => {
    const sequences = [[3], [5, 4, 9, 3, 7, 1], [4, 4], [2, 9, 1]];
    const expected = sequences.map((ids) => scoreAlone(model, ids));
    for (const budget of [1, 7, 4096])
      expectClose(scoreSequences(model, sequences, budget), expected, { rtol: 1e-10 });
  });

  test('keeps no tensor', () => {
    const before = memory().liveTensors;
    scoreSequences(model, [[3], [4, 5]]);
    assert.equal(memory().liveTensors, before);
  });
});

describe('evaluatePreferences', () => {
  test('of single pairs everything is a plain mean, by its formula', () => {
    const scores = alone.map(leadOf);
    const leads = scores.map(([c, r]) => c - r);
    const mean = (values: number[]): number =>
      values.reduce((sum, x) => sum + x, 0) / values.length;
    const found = evaluatePreferences({ model, pairs: alone });
    const wins = leads.filter((lead) => lead > 0).length;
    assert.ok(wins > 0 && wins < 4, 'some right, some wrong');
    assert.deepEqual(found.accuracy, wilsonInterval(wins, 4));
    const close = (value: number, expected: number): void =>
      expectClose(value, expected, { rtol: 1e-10 });
    close(found.loss, mean(leads.map((lead) => Math.log1p(Math.exp(-lead)))));
    close(found.margin, mean(leads));
    close(found.chosenReward, mean(scores.map(([c]) => c)));
    close(found.rejectedReward, mean(scores.map(([, r]) => r)));
    close(found.probability, mean(leads.map(sigmoid)));
    const all = scores.flat();
    close(found.rewardStd, Math.sqrt(mean(all.map((x) => (x - mean(all)) ** 2))));
    assert.deepEqual([found.pairs, found.comparisons], [4, 4]);
  });

  test('margins and the centring term are in the loss and nowhere else', () => {
    const scores = alone.map(leadOf);
    const plain = evaluatePreferences({ model, pairs: alone });
    const found = evaluatePreferences({ model, pairs: alone, useMargins: true, centerCoef: 0.2 });
    const terms = scores.map(
      ([c, r], i) => Math.log1p(Math.exp(r - c + (alone[i]?.margin ?? 0))) + 0.2 * (c + r) ** 2,
    );
    expectClose(found.loss, terms.reduce((sum, term) => sum + term, 0) / 4, { rtol: 1e-10 });
    assert.deepEqual({ ...found, loss: 0 }, { ...plain, loss: 0 });
  });

  test('the calibration error compares the confidence of the higher score with how often it is right', () => {
    const [pair] = alone;
    assert.ok(pair, 'a pair');
    const [c, r] = leadOf(pair);
    const confidence = sigmoid(Math.abs(c - r));
    const swapped = { ...pair, chosenIds: pair.rejectedIds, rejectedIds: pair.chosenIds };
    const [right, wrong] = c > r ? [pair, swapped] : [swapped, pair];
    const of = (...pairs: PreferenceExample[]): number =>
      evaluatePreferences({ model, pairs }).calibrationError;
    expectClose(of(right), 1 - confidence, { rtol: 1e-10 });
    expectClose(of(wrong), confidence, { rtol: 1e-10 });
    expectClose(of(right, wrong), confidence - 0.5, { rtol: 1e-10 });
  });

  test('a ranking counts once, and its interval is over comparisons', () => {
    const ranking = tinyPairs().slice(4);
    const one = alone[0] as PreferenceExample;
    const found = evaluatePreferences({ model, pairs: [one, ...ranking] });
    const win = (pair: PreferenceExample): number => {
      const [c, r] = leadOf(pair);
      return c > r ? 1 : 0;
    };
    const share = (pairs: readonly PreferenceExample[]): number =>
      pairs.reduce((sum, pair) => sum + win(pair), 0) / pairs.length;
    expectClose(found.accuracy.value, (share([one]) + share(ranking)) / 2, { rtol: 1e-12 });
    assert.deepEqual([found.pairs, found.comparisons], [4, 2]);
    const lead = (pairs: readonly PreferenceExample[]): number =>
      pairs.reduce((sum, pair) => sum + leadOf(pair)[0] - leadOf(pair)[1], 0) / pairs.length;
    expectClose(found.margin, (lead([one]) + lead(ranking)) / 2, { rtol: 1e-10 });
    const [low, high] = [share([one]), share(ranking)].sort((a, b) => a - b);
    assert.deepEqual([found.accuracy.low, found.accuracy.high], [low, high]); // of two values
    const again = evaluatePreferences({ model, pairs: [one, ...ranking] });
    assert.deepEqual(again, found);
  });

  test('equal scores are half right', () => {
    const zeros = createScalarModel(tinyModel());
    const found = evaluatePreferences({ model: zeros, pairs: alone });
    assert.equal(found.accuracy.value, 0.5);
    assert.deepEqual([found.probability, found.calibrationError, found.margin], [0.5, 0, 0]);
    expectClose(found.loss, Math.LN2, { rtol: 1e-7 });
  });

  test('what a run logs are numbers, the interval as two', () => {
    const found = evaluatePreferences({ model, pairs: alone });
    const { accuracy, pairs: _, comparisons: __, ...others } = found;
    assert.deepEqual(preferenceMetrics(found), {
      ...others,
      accuracy: accuracy.value,
      accuracyLow: accuracy.low,
      accuracyHigh: accuracy.high,
    });
  });

  describe('rejects', () => {
    test('no pair', () => {
      assert.throws(() => evaluatePreferences({ model, pairs: [] }), {
        code: 'E_RANGE',
        message: 'evaluatePreferences: expected at least one pair, received none.',
      });
    });
    test('a model that gives no number', () => {
      const broken = createScalarModel(tinyModel());
      broken.shiftScores(1);
      noGrad(() => broken.head.weight.fill_(NaN));
      assert.throws(() => evaluatePreferences({ model: broken, pairs: alone }), {
        code: 'E_NUMERICS',
        message: 'evaluatePreferences: expected finite scores, but the model gave NaN.',
      });
    });
  });
});
