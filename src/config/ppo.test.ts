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
  'monteCarlo without a KL': { advantageEstimator: 'monteCarlo', klCoef: 0 },
  'monteCarlo with the KL in the loss': { advantageEstimator: 'monteCarlo', ...KL_IN_LOSS },
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
  [
    'monteCarlo with the KL in the reward',
    { advantageEstimator: 'monteCarlo' },
    NO_KL_IN_SCORE,
  ],
  [
    'monteCarlo that bootstraps',
    { advantageEstimator: 'monteCarlo', klCoef: 0, bootstrapTruncated: true },
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

const OUT_OF_RANGE: [name: string, values: Readonly<Record<string, unknown>>, fault: string][] = [
  ['groupSize', { groupSize: 0 }, 'an integer of at least 1, received 0.'],
  ['updatesPerRollout', { updatesPerRollout: 0 }, 'an integer of at least 1, received 0.'],
];

describe('defaults', () => {
  test('each is the one whose origin src/config/ppo.ts tells', () => {
    assert.deepEqual(parseConfig(PpoConfig, {}), {});
  });
});

describe('settings that make sense', () => {
  for (const [claim, values] of Object.entries(SOUND)) {
    test(claim, () => assert.deepEqual(faults(values), []));
  }
});

describe('settings that make none together are refused, each with its reason and nothing else', () => {
  for (const [claim, values, fault] of BROKEN) test(claim, () => refusedWith(values, fault));
});

describe('a value out of range is refused with what was expected and received', () => {
  for (const [name, values, fault] of OUT_OF_RANGE) {
    test(`${name}: ${fault}`, () => refusedWith(values, `${name}: expected ${fault}`));
  }
});
