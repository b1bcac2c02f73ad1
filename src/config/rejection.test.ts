import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError } from '../errors/index.js';
import {
  configFromObject,
  describeConfig,
  overPreset,
  parseConfig,
  REJECTION_PRESETS,
  RejectionConfig,
  rejectionPreset,
  SftConfig,
  type RejectionConfigInput,
} from './index.js';

/** What is wrong with settings, a line each; empty when they are accepted. */
function faults(values: Readonly<Record<string, unknown>>): string[] {
  try {
    parseConfig(RejectionConfig, values, 'x');
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError, 'settings are refused with a ConfigError');
    return error.message.split('\n').slice(1);
  }
}

const OF_THE_JOB = 'it is a setting of the whole job: set it beside sft';

describe('RejectionConfig', () => {
  test('without settings: one iteration, the best of 32 at temperature 1, each kept completion trained as SFT does', () => {
    const { sft, ...config } = parseConfig(RejectionConfig, {});
    assert.deepEqual(config, {
      iterations: 1,
      samplesPerPrompt: 32,
      promptsPerIteration: null,
      keep: { kind: 'best' },
      distinct: false,
      keepTruncated: false,
      trainFrom: 'previous',
      sampling: { maxNewTokens: 256, temperature: 1, topK: 0, topP: 1, minP: 0 },
      maxPromptLength: 512,
      rewardWeights: {},
      rewardTimeoutSeconds: 30,
      rewardConcurrency: 32,
      data: { split: null, subset: null, evalSplit: null, holdOut: null },
      seed: 0,
      device: 'auto',
      dtype: 'float32',
      microBatchTokens: 2048,
      track: { mlflow: null, experiment: 'posttrain' },
    });
    const { data, seed, device, dtype, microBatchTokens, track, ...own } = parseConfig(
      SftConfig,
      {},
    );
    assert.equal(track.mlflow, null);
    assert.deepEqual(sft, own);
    assert.deepEqual([seed, device, dtype, microBatchTokens], [0, 'auto', 'float32', 2048]);
    assert.equal(data.holdOut, null);
  });

  test('every setting says what it does and where its default comes from', () => {
    const silent = describeConfig(RejectionConfig)
      .filter(({ description, origin }) => description === '' || origin === '')
      .map(({ key }) => key);
    assert.deepEqual(silent, []);
  });

  test('the keys of sft are those of SftConfig', () => {
    const keys = (schema: typeof RejectionConfig | typeof SftConfig): string[] =>
      describeConfig(schema).map(({ key }) => key);
    const own = ['data', 'seed', 'device', 'dtype', 'microBatchTokens', 'track'];
    assert.deepEqual(
      keys(RejectionConfig).filter((key) => key.startsWith('sft.')),
      keys(SftConfig).flatMap((key) =>
        own.includes(key.split('.')[0] ?? '') ? [] : [`sft.${key}`],
      ),
    );
  });

  test('weights of data are refused with the reason', () => {
    assert.deepEqual(faults({ data: { weights: [1, 2] } }), [
      '  x: data.weights is refused: every iteration takes each prompt once.',
    ]);
  });

  const sound: Record<string, RejectionConfigInput> = {
    'all kinds of keep: best': { keep: { kind: 'best' } },
    'as many as are sampled': { samplesPerPrompt: 4, keep: { kind: 'topK', k: 4 } },
    'a threshold with its default': { keep: { kind: 'threshold' } },
    'a negative threshold': { keep: { kind: 'threshold', atLeast: -2.5, atMost: 3 } },
    'a cut-off of all samples': {
      samplesPerPrompt: 4,
      keep: { kind: 'threshold', atMost: 4 },
    },
    'one sample per prompt': { samplesPerPrompt: 1 },
    'truncated sampling, without any mask': { sampling: { topK: 40, topP: 0.9, minP: 0.01 } },
    'settings of the fine-tuning': { sft: { epochs: 1, schedule: { kind: 'constant' } } },
  };
  for (const [claim, values] of Object.entries(sound)) {
    test(`accepts ${claim}`, () => assert.deepEqual(faults(values), []));
  }

  const MOST = 'at most samplesPerPrompt: no more completions than these can be kept';
  const broken: [claim: string, values: Readonly<Record<string, unknown>>, fault: string][] = [
    [
      'more kept than sampled',
      { samplesPerPrompt: 4, keep: { kind: 'topK', k: 5 } },
      `keep.k: expected ${MOST}, received 5.`,
    ],
    [
      'a cut-off above what is sampled',
      { samplesPerPrompt: 4, keep: { kind: 'threshold', atMost: 5 } },
      `keep.atMost: expected ${MOST}, received 5.`,
    ],
    [
      'topK without k',
      { keep: { kind: 'topK' } },
      'keep.k: expected an integer of at least 1, received nothing.',
    ],
    [
      'k with another kind',
      { keep: { kind: 'best', k: 2 } },
      'there is no setting keep.k with the kind that is chosen.',
    ],
    [
      'a kind that there is not',
      { keep: { kind: 'all' } },
      'keep.kind: expected one of best, topK, threshold, received "all".',
    ],
    [
      'a seed of the fine-tuning',
      { sft: { seed: 3 } },
      `sft.seed is refused: ${OF_THE_JOB}, each stage derives its own from it.`,
    ],
    [
      'a device of the fine-tuning',
      { sft: { device: 'cpu' } },
      `sft.device is refused: ${OF_THE_JOB}.`,
    ],
    [
      'a dtype of the fine-tuning',
      { sft: { dtype: 'float64' } },
      `sft.dtype is refused: ${OF_THE_JOB}.`,
    ],
    [
      'its micro-batches',
      { sft: { microBatchTokens: 1 } },
      `sft.microBatchTokens is refused: ${OF_THE_JOB}.`,
    ],
    [
      'no iteration',
      { iterations: 0 },
      'iterations: expected an integer of at least 1, received 0.',
    ],
    [
      'a setting of SFT beside sft',
      { learningRate: 1e-3 },
      'there is no setting learningRate. Did you mean sft.learningRate?',
    ],
    [
      'a mask, which nothing needs here',
      { sampling: { keepSamplingMask: true } },
      'there is no setting sampling.keepSamplingMask.',
    ],
  ];
  for (const [claim, values, fault] of broken) {
    test(`refuses ${claim}`, () => assert.deepEqual(faults(values), [`  x: ${fault}`]));
  }
});

/** Dotted names of what a preset sets; a choice with a `kind` is one setting. */
function settingsOf(values: object, prefix = ''): string[] {
  return Object.entries(values).flatMap(([key, value]: [string, unknown]) =>
    typeof value === 'object' && value !== null && !('kind' in value)
      ? settingsOf(value, `${prefix}${key}.`)
      : [`${prefix}${key}`],
  );
}

describe('REJECTION_PRESETS', () => {
  test('are RAFT and expert iteration', () => {
    assert.deepEqual(Object.keys(REJECTION_PRESETS), ['raft', 'expert-iteration']);
    const raft = parseConfig(RejectionConfig, { ...rejectionPreset('raft').settings });
    assert.deepEqual(
      [raft.keep, raft.trainFrom, raft.samplesPerPrompt, raft.iterations > 1],
      [{ kind: 'best' }, 'previous', 32, true],
    );
    const expert = parseConfig(RejectionConfig, {
      ...rejectionPreset('expert-iteration').settings,
    });
    assert.deepEqual(
      [expert.keep, expert.trainFrom, expert.sampling.temperature, expert.sampling.topK],
      [{ kind: 'threshold', atLeast: 1, atMost: 10 }, 'base', 0.7, 40],
    );
  });
  for (const { name, settings, sources } of Object.values(REJECTION_PRESETS)) {
    test(`${name}: every setting has its source, and every source its setting`, () => {
      assert.deepEqual(settingsOf(settings).sort(), Object.keys(sources).sort());
    });
  }
  test('what is given replaces the preset’s setting, a choice as a whole', () => {
    const given = configFromObject({ keep: { kind: 'topK', k: 2 }, sampling: { topK: 5 } }, 'own');
    const config = parseConfig(
      RejectionConfig,
      overPreset(rejectionPreset('expert-iteration'), given),
    );
    assert.deepEqual(config.keep, { kind: 'topK', k: 2 });
    assert.deepEqual([config.sampling.topK, config.sampling.temperature], [5, 0.7]);
  });
  test('an unknown name is told with the nearest one', () => {
    assert.throws(
      () => rejectionPreset('rafd'),
      (error) =>
        error instanceof ConfigError &&
        error.message ===
          '--preset: expected one of raft, expert-iteration, received "rafd". Did you mean raft?',
    );
  });
});
