import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { countX, grpoTrainer } from '../../test/grpoRun.js';
import { FOUR_STEPS } from '../../test/optimizerSettings.js';
import { tinyModel } from '../../test/tinyRun.js';
import type { RewardFunction } from '../rewards/index.js';

describe('minibatches of GrpoTrainer', () => {
  test('one without a scored row takes no update; the learning rate goes by the plan all the same', async () => {
    // Six groups, of which those of 'bc:' and 'b:' have no score, in minibatches of one group.
    const reward: RewardFunction = (input) => (input.prompt.startsWith('b') ? null : countX(input));
    const config = {
      minibatchSize: 4,
      promptsPerStep: 6,
      steps: 2,
      learningRate: 1e-3,
      schedule: { kind: 'linear' as const },
    };
    const run = grpoTrainer(tinyModel(), config, { reward });
    await run.trainStep();
    const { samples, metrics } = await run.trainStep();
    assert.deepEqual(new Set(samples.map(({ weightVersion }) => weightVersion)), new Set([4]));
    assert.equal(run.state()['updates'], 8);
    // The second step's updates have the places 6 to 11 of 12, whose rates are 6/12 to 1/12; four of them are taken.
    const rate = metrics['learningRate'] ?? NaN;
    assert.ok(rate > 1e-3 * ((4 + 3 + 2 + 1) / 48) - 1e-9, String(rate));
    assert.ok(rate < 1e-3 * ((6 + 5 + 4 + 3) / 48) + 1e-9, String(rate));
  });

  test('have the learning rates of the schedule one by one, warm-up included', async () => {
    // Two steps of two updates, two of them for warm-up: the shares are 0 and 1/2, then 1 and 1/2.
    const config = { minibatchSize: 8, steps: 2, ...FOUR_STEPS };
    const run = grpoTrainer(tinyModel(), { ...config, learningRate: 1e-3 });
    for (const share of [0.25, 0.75]) {
      const { metrics } = await run.trainStep();
      expectClose(metrics['learningRate'] ?? NaN, share * 1e-3, { atol: 1e-15 });
    }
  });

  test('are shuffled anew in every pass of every step', async () => {
    // Of two groups only one is scored. The mean learning rate of its two updates tells the sum of their places in the
    // step: 0 + 2 or 1 + 3 where both passes have one order, 0 + 3 or 1 + 2 where they differ.
    const reward: RewardFunction = (input) => (input.prompt === 'a:' ? countX(input) : null);
    const config = {
      minibatchSize: 4,
      promptsPerStep: 2,
      updatesPerRollout: 2,
      steps: 12,
      learningRate: 1e-3,
      schedule: { kind: 'linear' as const },
    };
    const differences: boolean[][] = [];
    for (const seed of [0, 1]) {
      const run = grpoTrainer(tinyModel(), { ...config, seed }, { reward, prompts: 2 });
      const differs: boolean[] = [];
      for (let step = 0; step < 12; step++) {
        const { metrics } = await run.trainStep();
        const meanPlace = 48 * (1 - (metrics['learningRate'] ?? NaN) / 1e-3) - 4 * step;
        differs.push(Math.round(2 * meanPlace) === 3);
      }
      assert.ok(differs.includes(true) && differs.includes(false), differs.join(' '));
      differences.push(differs);
    }
    assert.notDeepEqual(differences[0], differences[1], 'the seed of the run decides');
  });

  for (const minibatchSize of [4, 8]) {
    test(`of one pass all have the weights before them, so that later ratios are not 1 (${minibatchSize})`, async () => {
      const { metrics } = await grpoTrainer(tinyModel(), { minibatchSize, klCoef: 0 }).trainStep();
      const { maxRatioDeviation = 0, rolloutRatioDeviation = NaN } = metrics;
      assert.ok(maxRatioDeviation > 1e-3, `the largest deviation is ${maxRatioDeviation}`);
      assert.ok(rolloutRatioDeviation < 1e-5, `at first it is ${rolloutRatioDeviation}`);
    });
  }
});
