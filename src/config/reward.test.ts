import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { describeConfig, parseConfig, RewardConfig } from './index.js';

describe('the settings of a reward model run', () => {
  test('begin as InstructGPT trained its reward model', () => {
    const config = parseConfig(RewardConfig, {});
    const { epochs, batchSize, learningRate, schedule, warmupSteps } = config;
    assert.deepEqual(
      { epochs, batchSize, learningRate, schedule, warmupSteps },
      {
        ...{ epochs: 1, batchSize: 64, learningRate: 9e-6, warmupSteps: 0 },
        schedule: { kind: 'cosine', minRatio: 0.1 },
      },
    );
    const { useMargins, centerCoef, normalizeOn, faulty } = config;
    assert.deepEqual([useMargins, centerCoef, normalizeOn, faulty], [true, 0, 'chosen', 'stop']);
  });

  test('each tell what they do and where their default comes from', () => {
    const settings = describeConfig(RewardConfig);
    assert.deepEqual(
      settings.filter(({ description, origin }) => !description || !origin),
      [],
    );
    assert.ok(settings.length >= 25, `${settings.length} settings`);
  });

  const refused: [values: Record<string, unknown>, fault: string][] = [
    [{ centerCoef: -1 }, 'centerCoef: expected a number of at least 0, received -1.'],
    [{ batchSize: 0 }, 'batchSize: expected an integer of at least 1, received 0.'],
    [
      { normalizeOn: 'rejected' },
      'normalizeOn: expected one of chosen, none, received "rejected".',
    ],
    [{ centreCoef: 1 }, 'there is no setting centreCoef. Did you mean centerCoef?'],
  ];
  for (const [values, fault] of refused) {
    test(`refuse ${JSON.stringify(values)}`, () => {
      assert.throws(
        () => parseConfig(RewardConfig, values, 'x'),
        (error: Error) => {
          assert.equal(error.message, `Invalid Reward settings:\n  x: ${fault}`);
          return true;
        },
      );
    });
  }
});
