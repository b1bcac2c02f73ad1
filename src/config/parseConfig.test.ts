import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError } from '../errors/index.js';
import { applyOverrides, configFromObject, GrpoConfig, parseConfig, SftConfig } from './index.js';

/** Message and hint of the ConfigError that the settings are refused with. */
function refusal(values: Record<string, unknown>, sets: readonly string[] = []): string {
  try {
    parseConfig(GrpoConfig, applyOverrides(configFromObject(values, 'grpo.yaml'), sets));
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.hint, 'Run `posttrain config grpo` to list every setting.');
    return error.message;
  }
  assert.fail('the settings were accepted');
}

describe('parseConfig', () => {
  test('gives every default where nothing is set', () => {
    const config = parseConfig(GrpoConfig, {});
    assert.equal(config.groupSize, 8);
    assert.equal(config.klCoef, 0.04);
    assert.equal(config.updatesPerRollout, 1);
    assert.deepEqual(config.clip, { low: 0.2, high: 0.2 });
    assert.deepEqual(config.reduction, { kind: 'sequenceMean' });
    assert.deepEqual(config.sampling, {
      maxNewTokens: 256,
      temperature: 1,
      topK: 0,
      topP: 1,
      minP: 0,
      keepSamplingMask: false,
    });
    assert.deepEqual(config.objective, { kind: 'ppoClip', dualClip: null });
    assert.equal(parseConfig(SftConfig, {}).learningRate, 2e-5);
  });

  test('keeps the other half of a nested setting at its default', () => {
    assert.deepEqual(parseConfig(GrpoConfig, { clip: { high: 0.28 } }).clip, {
      low: 0.2,
      high: 0.28,
    });
  });

  test('tells every fault at once, with place, expectation and what was received', () => {
    assert.equal(
      refusal({ grupSize: 16, klCoef: 'much', clip: { low: 0 }, steps: 0 }, ['seed=-1']),
      `Invalid GRPO settings:
  grpo.yaml: steps: expected an integer of at least 1, received 0.
  grpo.yaml: clip.low: expected a number above 0, received 0.
  grpo.yaml: klCoef: expected a number of at least 0, received "much".
  --set seed=-1: seed: expected an integer of at least 0, received -1.
  grpo.yaml: there is no setting grupSize. Did you mean groupSize?`,
    );
  });

  test('a number that is no number is shown as such', () => {
    assert.match(refusal({ klCoef: Number.NaN }), /klCoef: expected .* received NaN\./);
    assert.match(refusal({ groupSize: 2.5 }), /groupSize: expected an integer .* received 2\.5\./);
  });

  test('suggests the setting that a name from elsewhere, or without its parent, means', () => {
    const suggestion = (key: string): string | undefined =>
      /Did you mean (\S+)\?/.exec(refusal({ [key]: 1 }))?.[1];
    assert.equal(suggestion('num_generations'), 'groupSize');
    assert.equal(suggestion('beta'), 'klCoef');
    assert.equal(suggestion('group_size'), 'groupSize');
    assert.equal(suggestion('maxNewTokens'), 'sampling.maxNewTokens');
    assert.equal(suggestion('temprature'), 'sampling.temperature');
    assert.equal(suggestion('xyzzy'), undefined);
  });

  test('a penalty on repetition is refused with the reason, wherever it is written', () => {
    for (const values of [{ sampling: { repetitionPenalty: 1.1 } }, { repetitionPenalty: 1.1 }]) {
      assert.match(refusal(values), /repetitionPenalty is refused: .*another distribution/);
    }
  });

  test('keep routing is refused with the reason', () => {
    assert.match(
      refusal({ keepRouting: true }),
      /keepRouting is refused: .*no model here is a mixture/,
    );
  });

  test('a setting of another choice is told apart from one that does not exist', () => {
    assert.match(
      refusal({ objective: { kind: 'reinforce', level: 'token' } }),
      /there is no setting objective\.level with the kind that is chosen\./,
    );
  });

  test('minibatches hold whole groups and divide the rollout', () => {
    assert.match(refusal({ groupSize: 8, minibatchSize: 12 }), /a multiple of groupSize/);
    assert.match(
      refusal({ groupSize: 8, promptsPerStep: 4, minibatchSize: 24 }),
      /a divisor of promptsPerStep × groupSize/,
    );
    const sound = { groupSize: 8, promptsPerStep: 4, minibatchSize: 16 };
    assert.equal(parseConfig(GrpoConfig, sound).minibatchSize, 16);
  });

  test('a rule between settings is told beside faults of other settings', () => {
    const message = refusal({ groupSize: 8, minibatchSize: 12, klCoef: -1 });
    assert.match(message, /klCoef/);
    assert.match(message, /a multiple of groupSize/);
  });

  test('all five reductions are accepted; a branch with a wrong setting, or none, is told', () => {
    const kinds = [
      { kind: 'sequenceMean' },
      { kind: 'tokenMean' },
      { kind: 'constant', budget: 64 },
      { kind: 'constant', budget: null },
      { kind: 'sequenceSum' },
      { kind: 'promptMean' },
    ];
    for (const reduction of kinds) {
      assert.deepEqual(parseConfig(GrpoConfig, { reduction }).reduction, reduction);
    }
    assert.match(
      refusal({ reduction: { kind: 'constant', budget: 0 } }),
      /reduction\.budget: expected an integer of at least 1 or null, received 0\./,
    );
    assert.match(
      refusal({ reduction: { kind: 'mean' } }),
      /reduction\.kind: expected one of sequenceMean, tokenMean, constant, sequenceSum, promptMean, received "mean"\./,
    );
    assert.match(
      refusal({ reduction: 'tokenMean' }),
      /reduction: expected an object with kind sequenceMean, .*, received "tokenMean"\./,
    );
  });

  test('weights of rewards are numbers by any name', () => {
    const rewardWeights = { 'exact-match': 1, short: 0.1 };
    assert.deepEqual(parseConfig(GrpoConfig, { rewardWeights }).rewardWeights, rewardWeights);
    assert.match(
      refusal({ rewardWeights: { short: 'a bit' } }),
      /rewardWeights\.short: expected a number, received "a bit"\./,
    );
  });
});
