import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { tinyPrompts } from '../../test/tinyRun.js';
import {
  experienceMetrics,
  ppoExperience,
  sequenceKl,
  usedScores,
  type EvaluatedRow,
  type ExperienceSettings,
} from './ppoExperience.js';
import { RunningMoments } from './runningMoments.js';

const SETTINGS: ExperienceSettings = {
  rewardNormalization: 'none',
  rewardClip: null,
  missingEosPenalty: null,
  klPlacement: 'reward',
  advantageEstimator: 'gae',
  discount: 0.5,
  gaeLambda: 0.5,
  bootstrapTruncated: false,
  whitenAdvantages: false,
};

/** Three tokens: log-ratios to the reference 0.5, −1, 2, values 1, 2, 4. */
function row(changes: Partial<EvaluatedRow> = {}): EvaluatedRow {
  const prompt = tinyPrompts()[0] ?? assert.fail('no prompt');
  return {
    prompt,
    promptIndex: 0,
    groupIndex: 0,
    promptIds: [3],
    completionIds: [4, 5, 6],
    completion: 'xyz',
    finishReason: 'eos',
    rolloutLogprobs: [-1, -2, -3],
    outcome: 10,
    reward: 10,
    rewards: {},
    weightVersion: 0,
    oldLogprobs: [-1, -2, -3],
    refLogprobs: [-1.5, -1, -5],
    values: [1, 2, 4],
    finalValue: 8,
    ...changes,
  };
}

const one = (changes: Partial<EvaluatedRow>, settings = SETTINGS, klCoef = 0.1) => {
  const evaluated = row(changes);
  return (
    ppoExperience([evaluated], [evaluated.reward], klCoef, settings)[0] ?? assert.fail('no row')
  );
};

describe('ppoExperience', () => {
  test('by hand: token rewards, GAE and returns of three tokens', () => {
    const { tokenRewards, advantages, returns } = one({});
    // −β·KL per token, and the score at the last: −0.05, 0.1, 10 − 0.2.
    expectClose([...tokenRewards], [-0.05, 0.1, 9.8], { atol: 1e-12 });
    // δ₃ = 9.8 − 4 = 5.8;  δ₂ = 0.1 + 0.5·4 − 2 = 0.1;  δ₁ = −0.05 + 0.5·2 − 1 = −0.05.
    // A₃ = 5.8;  A₂ = 0.1 + 0.25·5.8 = 1.55;  A₁ = −0.05 + 0.25·1.55 = 0.3375.
    expectClose([...advantages], [0.3375, 1.55, 5.8], { atol: 1e-12 });
    expectClose([...returns], [1.3375, 3.55, 9.8], { atol: 1e-12 });
  });

  test('by hand: what was earned at a token is paid there, and the rest at the end', () => {
    const tokenParts = [0, 4, 1];
    const moments = new RunningMoments();
    const earned = row({ tokenParts }); // 10 in all: 5 at tokens, 5 at the end
    const scores = usedScores([earned], SETTINGS, moments);
    assert.deepEqual(scores, [5]);
    assert.deepEqual(usedScores([earned], { ...SETTINGS, rewardClip: 2 }, moments), [2]);
    const [found] = ppoExperience([earned], scores, 0.1, SETTINGS);
    // As above, with 4 more at the second token, and 1 + 5 instead of 10 at the third: −0.05, 4.1, 6 − 0.2.
    expectClose([...(found?.tokenRewards ?? [])], [-0.05, 4.1, 5.8], { atol: 1e-12 });
    // δ₃ = 5.8 − 4 = 1.8;  δ₂ = 4.1 + 0.5·4 − 2 = 4.1;  δ₁ = −0.05.
    // A₃ = 1.8;  A₂ = 4.1 + 0.25·1.8 = 4.55;  A₁ = −0.05 + 0.25·4.55 = 1.0875.
    expectClose([...(found?.advantages ?? [])], [1.0875, 4.55, 1.8], { atol: 1e-12 });
  });

  test('the KL is in the reward only where it is placed there', () => {
    const { tokenRewards } = one({}, { ...SETTINGS, klPlacement: 'loss' });
    assert.deepEqual([...tokenRewards], [0, 0, 10]);
    assert.deepEqual([...one({}, SETTINGS, 0).tokenRewards], [0, 0, 10]);
  });

  test('the score lands on the last token that the model drew, never on padding (T17)', () => {
    const short = row({ completionIds: [4], oldLogprobs: [-1], refLogprobs: [-1], values: [1] });
    const [first, second] = ppoExperience([short, row()], [7, 10], 0, SETTINGS);
    assert.deepEqual([...(first?.tokenRewards ?? [])], [7]);
    assert.deepEqual([...(second?.tokenRewards ?? [])], [0, 0, 10]);
  });

  test('what an environment wrote is skipped, and the recursion goes on through it (T6)', () => {
    const compact = one({});
    const expanded = one({
      completionIds: [4, 9, 9, 5, 6, 9],
      completionMask: [1, 0, 0, 1, 1, 0],
      oldLogprobs: [-1, -50, -60, -2, -3, -9],
      refLogprobs: [-1.5, -4, -3, -1, -5, -1],
      values: [1, 77, -77, 2, 4, 99],
    });
    const drawn = [0, 3, 4];
    for (const name of ['tokenRewards', 'advantages', 'returns'] as const) {
      expectClose(
        drawn.map((at) => expanded[name][at] ?? NaN),
        [...compact[name]],
        { atol: 1e-12 },
      );
      assert.deepEqual(
        [1, 2, 5].map((at) => expanded[name][at]),
        [0, 0, 0],
        name,
      );
    }
  });

  test('an unscored row counts nowhere', () => {
    const rows = [row(), row({ reward: NaN, values: [50, 60, 70] })];
    const whitened = { ...SETTINGS, whitenAdvantages: true };
    const [scored, unscored] = ppoExperience(rows, [10, NaN], 0.1, whitened);
    expectClose([...(scored?.advantages ?? [])], [...one({}, whitened).advantages], {
      atol: 1e-12,
    });
    assert.deepEqual([...(unscored?.advantages ?? [])], [0, 0, 0]);
    assert.deepEqual([...(unscored?.returns ?? [])], [0, 0, 0]);
    expectClose(sequenceKl(rows), 1.5, { atol: 1e-12 });
  });

  test('whitening: mean 0 and population variance 1 over counted tokens, padding left out (T7)', () => {
    const whitened = { ...SETTINGS, whitenAdvantages: true };
    const { advantages } = one({}, whitened);
    const plain = [0.3375, 1.55, 5.8];
    const mean = plain.reduce((sum, value) => sum + value, 0) / 3;
    const std = Math.sqrt(plain.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 3);
    expectClose(
      [...advantages],
      plain.map((value) => (value - mean) / std),
      { rtol: 1e-7 },
    );
    // A longer neighbour without a score widens the padding and changes nothing.
    const long = row({
      reward: NaN,
      completionIds: [1, 2, 3, 4, 5, 6, 7],
      oldLogprobs: [0, 0, 0, 0, 0, 0, 0],
      refLogprobs: [0, 0, 0, 0, 0, 0, 0],
      values: [9, 9, 9, 9, 9, 9, 9],
    });
    const [padded] = ppoExperience([row(), long], [10, NaN], 0.1, whitened);
    expectClose([...(padded?.advantages ?? [])], [...advantages], { atol: 1e-12 });
  });

  test('λ = 1 equals Monte-Carlo, for every discount (T26)', () => {
    for (const discount of [1, 0.5, 0]) {
      const settings = { ...SETTINGS, discount, gaeLambda: 1 };
      const byGae = one({}, settings, 0);
      const byReturns = one({}, { ...settings, advantageEstimator: 'monteCarlo' }, 0);
      expectClose([...byGae.advantages], [...byReturns.advantages], { atol: 1e-12 });
      expectClose([...byGae.returns], [...byReturns.returns], { atol: 1e-12 });
    }
  });

  test('a truncated row is bootstrapped by the value after its last token, on request alone (T31)', () => {
    const settings = { ...SETTINGS, bootstrapTruncated: true };
    // δ₃ = 9.8 + 0.5·8 − 4 = 9.8.
    expectClose(one({ finishReason: 'length' }, settings).advantages[2] ?? NaN, 9.8);
    expectClose(one({ finishReason: 'eos' }, settings).advantages[2] ?? NaN, 5.8);
    expectClose(one({ finishReason: 'length' }).advantages[2] ?? NaN, 5.8);
  });
});

describe('usedScores', () => {
  const rows = [
    row({ reward: 1 }),
    row({ reward: 2, finishReason: 'length' }),
    row({ reward: 6 }),
    row({ reward: NaN, finishReason: 'length' }),
  ];
  test('are the rewards as they are unless asked for', () => {
    assert.deepEqual(usedScores(rows, SETTINGS, new RunningMoments()), [1, 2, 6, NaN]);
  });
  test('normalised by this rollout and those before, then clipped, then less the penalty', () => {
    const settings: ExperienceSettings = {
      ...SETTINGS,
      rewardNormalization: 'running',
      rewardClip: 1,
      missingEosPenalty: 3,
    };
    const scores = usedScores(rows, settings, new RunningMoments());
    // Mean 3, std √7: −0.756, −0.378 − 3, 1.134 clipped to 1.
    expectClose(scores.slice(0, 3), [-2 / Math.sqrt(7), -1 / Math.sqrt(7) - 3, 1], { rtol: 1e-12 });
    assert.equal(scores[3], NaN);
    const moments = new RunningMoments();
    moments.add([100, 100]);
    const later = usedScores(rows, { ...settings, rewardClip: null }, moments);
    expectClose(later[0] ?? NaN, (1 - 209 / 5) / moments.std, { rtol: 1e-12 });
  });
  test('clipping is symmetric', () => {
    const settings = { ...SETTINGS, rewardClip: 2 };
    const both = [row({ reward: -9 }), row({ reward: 9 })];
    assert.deepEqual(usedScores(both, settings, new RunningMoments()), [-2, 2]);
  });
});

describe('experienceMetrics', () => {
  test('by hand', () => {
    const experience = [one({}), { ...one({}), reward: NaN, values: [5, 5, 5] }];
    const metrics = experienceMetrics(experience);
    expectClose(metrics['score'] ?? NaN, 10);
    expectClose(metrics['rewardShaped'] ?? NaN, 9.85); // 10 − 0.1·(0.5 − 1 + 2)
    expectClose(metrics['klSequence'] ?? NaN, 1.5);
    expectClose(metrics['advantageMean'] ?? NaN, (0.3375 + 1.55 + 5.8) / 3);
    expectClose(metrics['returnMean'] ?? NaN, (1.3375 + 3.55 + 9.8) / 3);
    expectClose(metrics['valueMean'] ?? NaN, 7 / 3);
    const variance = (values: number[]): number => {
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      return values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
    };
    const explained = 1 - variance([0.3375, 1.55, 5.8]) / variance([1.3375, 3.55, 9.8]);
    expectClose(metrics['explainedVariance'] ?? NaN, explained);
  });
  test('what an environment wrote is in no mean', () => {
    const expanded = one({
      completionIds: [4, 9, 5, 6],
      completionMask: [1, 0, 1, 1],
      oldLogprobs: [-1, -50, -2, -3],
      refLogprobs: [-1.5, -4, -1, -5],
      values: [1, 77, 2, 4],
    });
    const [compact, long] = [experienceMetrics([one({})]), experienceMetrics([expanded])];
    for (const [name, value] of Object.entries(compact)) {
      expectClose(long[name] ?? NaN, value, { rtol: 1e-12 });
    }
  });
  test('nothing is explained where all returns are equal, and no KL is told without a reference', () => {
    const flat = { ...one({ refLogprobs: undefined }, SETTINGS, 0), returns: [2, 2, 2] };
    const metrics = experienceMetrics([flat]);
    assert.equal('explainedVariance' in metrics, false);
    assert.equal('klSequence' in metrics, false);
  });
});
