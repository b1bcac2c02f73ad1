import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError } from '../errors/index.js';
import { parseConfig, PpoConfig, type PpoConfigInput } from './index.js';

/** What is wrong with settings, a line each; empty when they are accepted. */
function faults(values: Readonly<Record<string, unknown>>): string[] {
  try {
    parseConfig(PpoConfig, values, 'x');
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError, 'settings are refused with a ConfigError');
    return error.message.split('\n').slice(1);
  }
}

/** Fails unless there is exactly one fault, and it is this one. */
function refusedWith(values: Readonly<Record<string, unknown>>, fault: string): void {
  assert.deepEqual(faults(values), [`  x: ${fault}`]);
}

const KL_IN_LOSS = { klPlacement: 'loss', klEstimator: 'k2' } as const;

const MONTE_CARLO = { advantageEstimator: 'monteCarlo' } as const;

const SOUND: Record<string, PpoConfigInput> = {
  'nothing set': {},
  'minibatches of whole groups that divide the rollout': {
    promptsPerStep: 6,
    groupSize: 2,
    minibatchSize: 4,
  },
  'truncation with its support': { sampling: { topP: 0.9, topK: 5, keepSamplingMask: true } },
  'k2 in the loss': KL_IN_LOSS,
  'k3 in the loss': { klPlacement: 'loss', klEstimator: 'k3' },
  'k3Unbiased in the loss': { klPlacement: 'loss', klEstimator: 'k3Unbiased' },
  'k1 in the loss where no KL is taken': { klCoef: 0, klPlacement: 'loss' },
  'k3 in the reward where no KL is taken': { klCoef: 0, klEstimator: 'k3' },
  'monteCarlo without a KL': { ...MONTE_CARLO, klCoef: 0 },
  'monteCarlo with the KL in the loss': { ...MONTE_CARLO, ...KL_IN_LOSS },
  'gae that bootstraps, the KL in the reward': { bootstrapTruncated: true },
  'a steered coefficient': { adaptiveKl: {} },
  'a steered coefficient, the KL in the loss': { adaptiveKl: { target: 2 }, ...KL_IN_LOSS },
  'a horizon just above a fifth of the rollout': {
    promptsPerStep: 10,
    groupSize: 5,
    adaptiveKl: { horizon: 10.1 },
  },
  'a shared trunk': { valueModel: { kind: 'sharedTrunk' } },
  'a value model that begins as the reward model': {
    valueModel: { kind: 'separate', initFrom: 'reward' },
  },
  'everything that may be off, off': {
    targetKl: null,
    dualClip: null,
    valueClip: null,
    rewardClip: null,
    missingEosPenalty: null,
    valueLearningRate: null,
    maxGradNorm: null,
    entropyCoef: 0,
    vfCoef: 0,
    whitenAdvantages: false,
  },
  'the ends of every closed range': { groupSize: 1, discount: 0, gaeLambda: 1, klCoef: 0 },
};

const TRUNCATED =
  'sampling.keepSamplingMask: expected true with topK, topP or minP: what truncation leaves has to be stored per token and applied to the policy too; without that the ratio is not 1 on-policy but the kept probability mass, received nothing.';
const IN_LOSS =
  'klEstimator: expected k2, k3 or k3Unbiased in the loss: as a loss the expected gradient of k1 on-policy is zero, so it has no effect, received';
const IN_REWARD =
  'klEstimator: expected k1 in the reward: subtracted from the reward, k2 and k3 lead to another policy than the one that the KL is to keep near the reference, received';
const NO_KL_IN_SCORE =
  'advantageEstimator: expected gae with the KL in the reward: monteCarlo knows one score per completion and would leave the KL out; gae with gaeLambda 1 is the same with a reward for every token, received "monteCarlo".';
const HORIZON =
  'adaptiveKl.horizon: expected more than a fifth of promptsPerStep × groupSize: with less, one step could take klCoef to 0 or below, received';

const BROKEN: [claim: string, values: PpoConfigInput, fault: string][] = [
  [
    'a minibatch that splits a group',
    { promptsPerStep: 3, groupSize: 2, minibatchSize: 3 },
    'minibatchSize: expected a multiple of groupSize, so that no group is split, received 3.',
  ],
  [
    'minibatches of different sizes',
    { promptsPerStep: 6, groupSize: 2, minibatchSize: 8 },
    'minibatchSize: expected a divisor of promptsPerStep × groupSize, so that every optimizer step sees as many completions, received 8.',
  ],
  ['top-k without its support (T3)', { sampling: { topK: 20 } }, TRUNCATED],
  ['top-p without its support', { sampling: { topP: 0.9 } }, TRUNCATED],
  ['min-p without its support', { sampling: { minP: 0.1 } }, TRUNCATED],
  ['k1 in the loss', { klPlacement: 'loss' }, `${IN_LOSS} nothing.`],
  ...(['k2', 'k3', 'k3Unbiased'] as const).map((klEstimator): (typeof BROKEN)[number] => [
    `${klEstimator} in the reward (T12)`,
    { klEstimator },
    `${IN_REWARD} "${klEstimator}".`,
  ]),
  ['monteCarlo with the KL in the reward', MONTE_CARLO, NO_KL_IN_SCORE],
  [
    'monteCarlo that bootstraps',
    { ...MONTE_CARLO, klCoef: 0, bootstrapTruncated: true },
    'bootstrapTruncated: expected false with advantageEstimator monteCarlo, which does not bootstrap, received true.',
  ],
  [
    'steering a coefficient of 0',
    { klCoef: 0, adaptiveKl: { target: 6, horizon: 100 } },
    'adaptiveKl: expected null with klCoef 0: every multiple of 0 is 0, received {"target":6,"horizon":100}.',
  ],
  [
    'a horizon of a fifth of the rollout',
    { promptsPerStep: 10, groupSize: 5, adaptiveKl: { horizon: 10 } },
    `${HORIZON} 10.`,
  ],
  [
    'a rollout of five default horizons',
    { promptsPerStep: 50_000, adaptiveKl: {} },
    `${HORIZON} nothing.`,
  ],
];

/** Of the settings that PPO alone has: a value just outside of its range. */
const OUT_OF_RANGE: [values: Readonly<Record<string, unknown>>, fault: string][] = [
  [{ groupSize: 0 }, 'groupSize: expected an integer of at least 1, received 0.'],
  [{ updatesPerRollout: 0 }, 'updatesPerRollout: expected an integer of at least 1, received 0.'],
  [{ targetKl: 0 }, 'targetKl: expected a number above 0 or null, received 0.'],
  [{ dualClip: 1 }, 'dualClip: expected a number above 1 or null, received 1.'],
  [{ valueClip: 0 }, 'valueClip: expected a number above 0 or null, received 0.'],
  [{ vfCoef: -0.1 }, 'vfCoef: expected a number of at least 0, received -0.1.'],
  [{ entropyCoef: -0.1 }, 'entropyCoef: expected a number of at least 0, received -0.1.'],
  [
    { advantageEstimator: 'vtrace' },
    'advantageEstimator: expected one of gae, monteCarlo, received "vtrace".',
  ],
  ...['discount', 'gaeLambda'].flatMap((name) =>
    [-0.1, 1.1].map((value): [Readonly<Record<string, unknown>>, string] => [
      { [name]: value },
      `${name}: expected a number of at least 0 and of at most 1, received ${value}.`,
    ]),
  ),
  [{ klCoef: -0.1 }, 'klCoef: expected a number of at least 0, received -0.1.'],
  [{ klPlacement: 'both' }, 'klPlacement: expected one of loss, reward, received "both".'],
  [{ klEstimator: 'k4' }, 'klEstimator: expected one of k1, k2, k3, k3Unbiased, received "k4".'],
  [{ adaptiveKl: { target: 0 } }, 'adaptiveKl.target: expected a number above 0, received 0.'],
  [{ adaptiveKl: { horizon: 0 } }, 'adaptiveKl.horizon: expected a number above 0, received 0.'],
  [
    { rewardNormalization: 'batch' },
    'rewardNormalization: expected one of none, running, received "batch".',
  ],
  [{ rewardClip: 0 }, 'rewardClip: expected a number above 0 or null, received 0.'],
  [{ missingEosPenalty: 0 }, 'missingEosPenalty: expected a number above 0 or null, received 0.'],
  [{ valueLearningRate: 0 }, 'valueLearningRate: expected a number above 0 or null, received 0.'],
  [
    { valueModel: { kind: 'shared' } },
    'valueModel.kind: expected one of separate, sharedTrunk, received "shared".',
  ],
  [
    { valueModel: { kind: 'separate', initFrom: 'nothing' } },
    'valueModel.initFrom: expected one of policy, reward, fresh, received "nothing".',
  ],
];

/** All settings but those that every run has, whose defaults are the same in every method. */
const DEFAULTS = {
  steps: 500,
  promptsPerStep: 16,
  groupSize: 1,
  sampling: {
    maxNewTokens: 256,
    temperature: 1,
    topK: 0,
    topP: 1,
    minP: 0,
    keepSamplingMask: false,
  },
  maxTurns: 4,
  maxPromptLength: 512,
  rewardWeights: {},
  rewardTimeoutSeconds: 30,
  rewardConcurrency: 32,
  samplesPerStep: 4,
  sampleAlternatives: 5,
  samplesMegabytes: 256,
  updatesPerRollout: 4,
  minibatchSize: null,
  targetKl: null,
  clip: { low: 0.2, high: 0.2 },
  dualClip: null,
  valueModel: { kind: 'separate', initFrom: 'policy' },
  valueClip: 0.2,
  vfCoef: 0.1,
  entropyCoef: 0,
  advantageEstimator: 'gae',
  discount: 1,
  gaeLambda: 0.95,
  bootstrapTruncated: false,
  whitenAdvantages: true,
  reduction: { kind: 'tokenMean' },
  klCoef: 0.05,
  klPlacement: 'reward',
  klEstimator: 'k1',
  adaptiveKl: null,
  rewardNormalization: 'none',
  rewardClip: null,
  missingEosPenalty: null,
  learningRate: 3e-6,
  valueLearningRate: null,
  warmupSteps: 0,
  schedule: { kind: 'linear', minRatio: 0 },
  weightDecay: 0,
  adamBeta1: 0.9,
  adamBeta2: 0.999,
  adamEpsilon: 1e-8,
  maxGradNorm: 1,
  lora: null,
  frozenWeights: 'disk',
};

describe('defaults', () => {
  test('are those of Stiennon et al. and of the N+ details, and ours where they name none', () => {
    const config = parseConfig(PpoConfig, {});
    const { data, seed, device, dtype, microBatchTokens, ...rest } = config;
    const {
      precision,
      gradientCheckpointing,
      float32Head,
      memoryCheck,
      checkpointEvery,
      keepCheckpoints,
      logEvery,
      evalEvery,
      track,
      ...ofMethod
    } = rest;
    assert.deepEqual(
      [precision, gradientCheckpointing, float32Head, memoryCheck],
      ['full', false, false, 'refuse'],
    );
    assert.deepEqual(ofMethod, DEFAULTS);
    assert.deepEqual(data, {
      ...{ split: null, subset: null, evalSplit: null, holdOut: null, weights: null },
    });
    assert.deepEqual(
      { seed, device, dtype, microBatchTokens },
      { seed: 0, device: 'auto', dtype: 'float32', microBatchTokens: 2048 },
    );
    assert.deepEqual(
      { checkpointEvery, keepCheckpoints, logEvery, evalEvery, track },
      {
        ...{ checkpointEvery: 100, keepCheckpoints: 3, logEvery: 10, evalEvery: null },
        track: { mlflow: null, experiment: 'posttrain' },
      },
    );
  });

  test('hold too for what a nested setting leaves out', () => {
    const config = parseConfig(PpoConfig, {
      clip: { high: 0.3 },
      adaptiveKl: {},
      valueModel: { kind: 'separate' },
      schedule: { kind: 'constant' },
    });
    assert.deepEqual(config.clip, { low: 0.2, high: 0.3 });
    assert.deepEqual(config.adaptiveKl, { target: 6, horizon: 10_000 });
    assert.deepEqual(config.valueModel, { kind: 'separate', initFrom: 'policy' });
    assert.deepEqual(config.schedule, { kind: 'constant', minRatio: 0 });
  });
});

describe('settings that make sense', () => {
  for (const [claim, values] of Object.entries(SOUND)) {
    test(claim, () => assert.deepEqual(faults(values), []));
  }
});

describe('settings that make none together are refused, each with its reason and nothing else', () => {
  for (const [claim, values, fault] of BROKEN) test(claim, () => refusedWith(values, fault));

  test('all broken rules are told at once, beside what is wrong elsewhere', () => {
    const found = faults({
      klPlacement: 'loss',
      bootstrapTruncated: true,
      steps: 0,
      ...MONTE_CARLO,
    });
    const names = found.map((fault) => /^ {2}x: (\w+): expected/.exec(fault)?.[1]);
    assert.equal(found.length, 3, found.join('\n'));
    assert.deepEqual(new Set(names), new Set(['bootstrapTruncated', 'klEstimator', 'steps']));
  });

  const unjudged: [what: string, values: Readonly<Record<string, unknown>>, name: string][] = [
    ['the estimator', { ...MONTE_CARLO, klCoef: -1 }, 'klCoef'],
    ['the estimator', { ...MONTE_CARLO, klPlacement: 'both' }, 'klPlacement'],
    ['bootstrapping', { bootstrapTruncated: true, advantageEstimator: 'x' }, 'advantageEstimator'],
    ['steering', { klCoef: '0', adaptiveKl: {} }, 'klCoef'],
    ['the horizon', { promptsPerStep: 'all', adaptiveKl: {} }, 'promptsPerStep'],
    ['the horizon', { groupSize: 'all', adaptiveKl: {} }, 'groupSize'],
    ['the horizon', { promptsPerStep: 1e6, adaptiveKl: { target: 0 } }, 'adaptiveKl.target'],
  ];
  for (const [what, values, name] of unjudged) {
    test(`${what} is not judged while ${name} is wrong by itself`, () => {
      const found = faults(values);
      assert.equal(found.length, 1, found.join('\n'));
      assert.ok(found[0]?.startsWith(`  x: ${name}: expected`), found[0]);
    });
  }
});

describe('a value out of range is refused with what was expected and received', () => {
  for (const [values, fault] of OUT_OF_RANGE) test(fault, () => refusedWith(values, fault));

  test('initFrom belongs to a network of its own', () => {
    const found = faults({ valueModel: { kind: 'sharedTrunk', initFrom: 'policy' } });
    assert.equal(found.length, 1, found.join('\n'));
    assert.match(
      found[0] ?? '',
      /there is no setting valueModel\.initFrom with the kind that is chosen\./,
    );
  });

  test('what belongs to a group is no setting of PPO', () => {
    refusedWith({ baseline: 'groupMean' }, 'there is no setting baseline.');
  });
});
