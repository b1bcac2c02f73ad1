import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError } from '../errors/index.js';
import {
  configFromObject,
  GRPO_PRESETS,
  GrpoConfig,
  grpoPreset,
  overPreset,
  parseConfig,
} from './index.js';

/** Dotted names of what a preset sets; a choice with a `kind` is one setting. */
function settingsOf(values: object, prefix = ''): string[] {
  return Object.entries(values).flatMap(([key, value]: [string, unknown]) =>
    typeof value === 'object' && value !== null && !('kind' in value && key !== 'schedule')
      ? settingsOf(value, `${prefix}${key}.`)
      : [`${prefix}${key}`],
  );
}

describe('GRPO_PRESETS', () => {
  test('has every method of the family', () => {
    assert.deepEqual(Object.keys(GRPO_PRESETS), [
      'grpo',
      'r1',
      'dr-grpo',
      'dapo',
      'gspo',
      'cispo',
      'scaling-grpo',
      'scalerl',
      'rloo',
      'reinforce',
      'reinforce++',
      'reinforce++-baseline',
      'remax',
      'scst',
      'group-preference',
    ]);
  });

  for (const preset of Object.values(GRPO_PRESETS)) {
    test(`${preset.name}: every setting has its source, and every source its setting`, () => {
      assert.deepEqual(settingsOf(preset.settings).sort(), Object.keys(preset.sources).sort());
      assert.ok(Object.values(preset.sources).every((source) => source !== ''));
    });
    test(`${preset.name}: is accepted as it is, and is what it sets`, () => {
      const config = parseConfig(GrpoConfig, { ...preset.settings });
      assert.deepEqual(config.reduction, preset.settings.reduction ?? { kind: 'sequenceMean' });
      assert.equal(config.klCoef, preset.settings.klCoef);
    });
  }

  test('what makes each method what it is', () => {
    const of = (name: string) => parseConfig(GrpoConfig, { ...grpoPreset(name).settings });
    assert.deepEqual(of('dapo').clip, { low: 0.2, high: 0.28 });
    assert.equal(of('dapo').dynamicSampling?.filterOn, 'accuracy');
    assert.equal(of('dr-grpo').advantageScale, 'none');
    assert.deepEqual(of('gspo').objective, { kind: 'gspo', level: 'sequence' });
    assert.deepEqual(of('cispo').objective, { kind: 'cispo', low: 0, high: 5 });
    assert.equal(of('scaling-grpo').klEstimator, 'k3Unbiased');
    assert.equal(of('scaling-grpo').sampling.keepSamplingMask, true);
    assert.deepEqual([of('scalerl').rolloutLag, of('scalerl').ratioAgainst], [8, 'rollout']);
    assert.equal(of('rloo').baseline, 'leaveOneOut');
    assert.deepEqual([of('reinforce++').groupSize, of('reinforce++').klPlacement], [1, 'reward']);
    assert.equal(of('reinforce++-baseline').klEstimator, 'k2');
    assert.deepEqual([of('remax').baseline, of('scst').baseline], ['greedy', 'greedy']);
    assert.equal(of('group-preference').objective.kind, 'groupPreference');
    assert.deepEqual([of('r1').clip.high, of('r1').referenceEvery], [10, 25]);
  });
});

describe('grpoPreset', () => {
  test('an unknown name is told with the nearest one', () => {
    assert.throws(
      () => grpoPreset('drgrpo'),
      (error) =>
        error instanceof ConfigError &&
        /expected one of grpo, .*, received "drgrpo"\. Did you mean dr-grpo\?/.test(error.message),
    );
  });
});

describe('overPreset', () => {
  const given = (values: Record<string, unknown>) => configFromObject(values, 'own.yaml');

  test('what is given replaces the preset’s setting, its neighbours stay', () => {
    const source = overPreset(grpoPreset('dapo'), given({ clip: { high: 0.3 }, groupSize: 8 }));
    const config = parseConfig(GrpoConfig, source);
    assert.deepEqual(config.clip, { low: 0.2, high: 0.3 });
    assert.equal(config.groupSize, 8);
    assert.deepEqual(config.reduction, { kind: 'tokenMean' });
  });
  test('a choice is replaced as a whole', () => {
    const source = overPreset(
      grpoPreset('cispo'),
      given({ objective: { kind: 'reinforce' }, minibatchSize: null }),
    );
    assert.deepEqual(parseConfig(GrpoConfig, source).objective, { kind: 'reinforce' });
  });
  test('null switches off what the preset switches on', () => {
    const source = overPreset(grpoPreset('dapo'), given({ dynamicSampling: null }));
    assert.equal(parseConfig(GrpoConfig, source).dynamicSampling, null);
  });
  test('a fault is told where it is: in the file, or in the preset against which the file speaks', () => {
    assert.throws(
      () => parseConfig(GrpoConfig, overPreset(grpoPreset('gspo'), given({ clip: { high: 0.2 } }))),
      /own\.yaml: clip: expected low and high of at most 0\.1 with gspo/,
    );
    assert.throws(
      () => parseConfig(GrpoConfig, overPreset(grpoPreset('gspo'), given({ promptsPerStep: 3 }))),
      /--preset gspo: minibatchSize: expected a divisor of promptsPerStep × groupSize/,
    );
  });
});
