import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigError } from '../errors/index.js';
import { GrpoConfig, parseConfig, type GrpoConfigInput } from './index.js';

/** What is wrong with settings, a line each; empty when they are accepted. */
function faults(values: GrpoConfigInput): string[] {
  try {
    parseConfig(GrpoConfig, values, 'x');
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.message.split('\n').slice(1);
  }
}

const off = { advantageScale: 'none' } as const;
const SOUND: Record<string, GrpoConfigInput> = {
  'a group of one with the greedy baseline': { ...off, groupSize: 1, baseline: 'greedy' },
  'a group of one, whitened': { ...off, groupSize: 1, baseline: 'none', whitenAdvantages: true },
  'truncation with its support': { sampling: { topP: 0.9, topK: 5, keepSamplingMask: true } },
  'k1 in the reward': { klPlacement: 'reward', klEstimator: 'k1' },
  'k1 where no KL is taken': { klCoef: 0, klEstimator: 'k1' },
  'gspo with its own clip range': {
    objective: { kind: 'gspo' },
    clip: { low: 3e-4, high: 4e-4 },
  },
  'cispo, whose bounds have defaults of their own': { objective: { kind: 'cispo' } },
  'importance weights against the old policy': { importanceWeights: {} },
  'group preferences': { objective: { kind: 'groupPreference' }, klCoef: 0 },
  'no lower bound of the ratio': { clip: { low: 10, high: 10 } },
  'a penalty that begins at the first token': {
    sampling: { maxNewTokens: 8 },
    overlongPenalty: { cacheTokens: 8 },
  },
};

const BROKEN: [claim: string, values: GrpoConfigInput, fault: RegExp][] = [
  [
    'a group of one',
    { groupSize: 1 },
    /groupSize: expected an integer of at least 2 .* the mean is the sample itself, received 1\.$/,
  ],
  [
    'a group of one with RLOO',
    { ...off, groupSize: 1, baseline: 'leaveOneOut' },
    /groupSize: .*baseline from the group/,
  ],
  [
    'a group of one as its own second best',
    { ...off, groupSize: 1, baseline: 'secondBest' },
    /groupSize: .*baseline from the group/,
  ],
  [
    'dynamic sampling of groups of one',
    { ...off, groupSize: 1, baseline: 'greedy', dynamicSampling: {} },
    /groupSize: .*a group of one has no variance/,
  ],
  [
    'dropping groups of one',
    { ...off, groupSize: 2, baseline: 'greedy', dropGroupsWithoutVariance: true },
    /dropGroupsWithoutVariance: expected false unless/,
  ],
  [
    'normalising within groups of one',
    { ...off, groupSize: 1, baseline: 'none', whitenAdvantages: true, normalizeRewards: true },
    /groupSize: .*a group of one has no variance/,
  ],
  [
    'top-p without its support (T3)',
    { sampling: { topP: 0.9 } },
    /sampling\.keepSamplingMask: expected true with topK.*kept probability mass, received nothing/,
  ],
  ['top-k without its support', { sampling: { topK: 20 } }, /keepSamplingMask: expected true/],
  ['min-p without its support', { sampling: { minP: 0.1 } }, /keepSamplingMask: expected true/],
  [
    'k1 in the loss',
    { klEstimator: 'k1' },
    /klEstimator: expected k2, k3 or k3Unbiased in the loss: .* no effect, received "k1"/,
  ],
  [
    'k3 in the reward',
    { klPlacement: 'reward' },
    /klEstimator: expected k1 in the reward: .*another policy/,
  ],
  [
    'k2 in the reward',
    { klPlacement: 'reward', klEstimator: 'k2' },
    /klEstimator: expected k1 in the reward/,
  ],
  [
    'a std under RLOO (T8)',
    { baseline: 'leaveOneOut' },
    /advantageScale: expected none with another baseline/,
  ],
  [
    'no baseline at all',
    { ...off, baseline: 'none' },
    /whitenAdvantages: expected true with baseline none/,
  ],
  [
    'gspo with PPO’s clip range',
    { objective: { kind: 'gspo' } },
    /clip: expected low and high of at most 0\.1 with gspo/,
  ],
  [
    'cispo with a bound below 1 (T21)',
    { objective: { kind: 'cispo', high: 0.2 } },
    /objective\.high: expected a number of at least 1, received 0\.2/,
  ],
  [
    'two corrections of the same staleness',
    { importanceWeights: {}, ratioAgainst: 'rollout' },
    /importanceWeights: expected null with ratioAgainst rollout/,
  ],
  [
    'an off-policy mask without an advantage per row',
    { ...off, baseline: 'none', whitenAdvantages: true, offPolicyMask: { threshold: 1 } },
    /offPolicyMask: expected null with baseline none/,
  ],
  [
    'a second pass of REINFORCE',
    { objective: { kind: 'reinforce' }, updatesPerRollout: 2 },
    /updatesPerRollout: expected 1 with objective reinforce/,
  ],
  [
    'a KL beside group preferences',
    { objective: { kind: 'groupPreference' } },
    /klCoef: expected 0 with objective groupPreference/,
  ],
  [
    'only good completions',
    { objective: { kind: 'groupPreference', goodCompletions: 8 }, klCoef: 0 },
    /objective\.goodCompletions: expected less than groupSize/,
  ],
  [
    'importance weights of group preferences',
    { objective: { kind: 'groupPreference' }, klCoef: 0, importanceWeights: {} },
    /objective\.kind: expected another one than groupPreference/,
  ],
  [
    'a reference that is replaced without being used',
    { klCoef: 0, referenceEvery: 5 },
    /referenceEvery: expected null with klCoef 0/,
  ],
  [
    'normalised rewards against a greedy one that is not',
    { ...off, baseline: 'greedy', normalizeRewards: true },
    /normalizeRewards: expected false with baseline greedy/,
  ],
  [
    'dropping groups that a KL in the reward would tell apart',
    { klPlacement: 'reward', klEstimator: 'k1', dropGroupsWithoutVariance: true },
    /dropGroupsWithoutVariance: expected false unless/,
  ],
  [
    'one wide bound of gspo',
    { objective: { kind: 'gspo' }, clip: { high: 4e-4 } },
    /clip: expected low and high of at most 0\.1 with gspo/,
  ],
  [
    'bounds of PPO for cispo',
    { objective: { kind: 'cispo' }, clip: { high: 0.28 } },
    /clip: expected nothing with an objective that does not read it: cispo has objective\.low/,
  ],
  [
    'minibatches of REINFORCE',
    { objective: { kind: 'reinforce' }, minibatchSize: 8 },
    /minibatchSize: expected null with objective reinforce/,
  ],
  [
    'stale rollouts of REINFORCE',
    { objective: { kind: 'reinforce' }, rolloutLag: 2 },
    /importanceWeights: expected weights with objective reinforce and a rolloutLag/,
  ],
  [
    'stale group preferences',
    { objective: { kind: 'groupPreference' }, klCoef: 0, rolloutLag: 1 },
    /rolloutLag: expected 0 with objective groupPreference/,
  ],
  [
    'k2 on stale rollouts',
    { klEstimator: 'k2', rolloutLag: 1 },
    /klEstimator: expected k3Unbiased or k3 with a rolloutLag/,
  ],
  [
    'filtered completions in a softmax',
    { objective: { kind: 'groupPreference' }, klCoef: 0, overlongFiltering: true },
    /overlongFiltering: expected false with objective groupPreference/,
  ],
  [
    'a penalty that begins before the first token',
    { sampling: { maxNewTokens: 8 }, overlongPenalty: { cacheTokens: 9 } },
    /overlongPenalty\.cacheTokens: expected at most sampling\.maxNewTokens/,
  ],
];

describe('settings that make sense together', () => {
  for (const [claim, values] of Object.entries(SOUND)) {
    test(claim, () => assert.deepEqual(faults(values), []));
  }
});

describe('settings that make none are refused, each with its reason and nothing else', () => {
  for (const [claim, values, fault] of BROKEN) {
    test(claim, () => {
      const found = faults(values);
      assert.equal(found.length, 1, found.join('\n'));
      assert.match(found[0] ?? '', fault);
    });
  }
});
