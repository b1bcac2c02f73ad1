/** Which settings of the GRPO family make no sense together, and why. */
import type { GrpoConfig } from './grpo.js';
import type { JobWide } from './sharedSettings.js';
import { KL_RULES, ON_POLICY_RULES, type Rule } from './rules.js';

const NEEDS_A_GROUP = ['groupMean', 'leaveOneOut', 'secondBest'];

/** The rules of the GRPO family. */
export const GRPO_RULES: readonly Rule<Omit<GrpoConfig, JobWide>>[] = [
  ...ON_POLICY_RULES,
  {
    path: ['groupSize'],
    reads: ['groupSize', 'baseline', 'objective'],
    holds: ({ groupSize, baseline, objective }) =>
      groupSize >= 2 || (!NEEDS_A_GROUP.includes(baseline) && objective.kind !== 'groupPreference'),
    expected:
      'an integer of at least 2 with a baseline from the group: of a group of one the mean is the sample itself',
  },
  {
    path: ['groupSize'],
    reads: ['groupSize', 'dynamicSampling', 'dropGroupsWithoutVariance', 'normalizeRewards'],
    holds: ({ groupSize, dynamicSampling, dropGroupsWithoutVariance, normalizeRewards }) =>
      groupSize >= 2 || !(dynamicSampling || dropGroupsWithoutVariance || normalizeRewards),
    expected:
      'an integer of at least 2 with dynamicSampling, dropGroupsWithoutVariance or normalizeRewards: a group of one has no variance',
  },
  {
    path: ['advantageScale'],
    reads: ['advantageScale', 'baseline'],
    holds: ({ advantageScale, baseline }) => baseline === 'groupMean' || advantageScale === 'none',
    expected:
      'none with another baseline than groupMean: their advantages are differences to one reward or to the other rewards, which a std of the whole group would blow up or shrink; whitenAdvantages standardises them',
  },
  {
    path: ['normalizeRewards'],
    reads: ['normalizeRewards', 'baseline'],
    holds: ({ normalizeRewards, baseline }) => !normalizeRewards || baseline !== 'greedy',
    expected:
      'false with baseline greedy: the reward of the greedy completion would be subtracted from numbers of another scale',
  },
  {
    path: ['whitenAdvantages'],
    reads: ['whitenAdvantages', 'baseline', 'objective'],
    holds: ({ whitenAdvantages, baseline, objective }) =>
      whitenAdvantages || baseline !== 'none' || objective.kind === 'groupPreference',
    expected:
      'true with baseline none: without a baseline every completion with a positive reward is reinforced, the worst too',
  },
  ...KL_RULES,
  {
    path: ['dropGroupsWithoutVariance'],
    reads: ['dropGroupsWithoutVariance', 'baseline', 'klCoef', 'klPlacement', 'normalizeRewards'],
    holds: ({ dropGroupsWithoutVariance, baseline, klCoef, klPlacement, normalizeRewards }) =>
      !dropGroupsWithoutVariance ||
      (NEEDS_A_GROUP.includes(baseline) &&
        (klCoef === 0 || klPlacement === 'loss') &&
        !normalizeRewards),
    expected:
      'false unless the advantage is the difference of the reward to others of its group: with another baseline, a KL in the reward or normalizeRewards a group of equal rewards teaches something',
  },
  {
    path: ['clip'],
    reads: ['clip', 'objective'],
    holds: ({ clip, objective }) =>
      ['ppoClip', 'gspo'].includes(objective.kind) || (clip.low === 0.2 && clip.high === 0.2),
    expected:
      'nothing with an objective that does not read it: cispo has objective.low and objective.high, bounds of the ratio itself; reinforce and groupPreference have none',
  },
  {
    path: ['minibatchSize'],
    reads: ['minibatchSize', 'objective'],
    holds: ({ minibatchSize, objective }) =>
      minibatchSize === null || objective.kind !== 'reinforce',
    expected:
      'null with objective reinforce: it has no ratio, so that every update but the first would be biased',
  },
  {
    path: ['importanceWeights'],
    reads: ['importanceWeights', 'objective', 'rolloutLag'],
    holds: ({ importanceWeights, objective, rolloutLag }) =>
      importanceWeights !== null || rolloutLag === 0 || objective.kind !== 'reinforce',
    expected: 'weights with objective reinforce and a rolloutLag: nothing else corrects for it',
  },
  {
    path: ['rolloutLag'],
    reads: ['rolloutLag', 'objective'],
    holds: ({ rolloutLag, objective }) => rolloutLag === 0 || objective.kind !== 'groupPreference',
    expected: '0 with objective groupPreference, which has no ratio',
  },
  {
    path: ['klEstimator'],
    reads: ['klEstimator', 'klPlacement', 'klCoef', 'rolloutLag'],
    holds: ({ klEstimator, klPlacement, klCoef, rolloutLag }) =>
      klCoef === 0 || klPlacement !== 'loss' || klEstimator !== 'k2' || rolloutLag === 0,
    expected: 'k3Unbiased or k3 with a rolloutLag: the gradient of k2 is right on-policy only',
  },
  {
    path: ['overlongFiltering'],
    reads: ['overlongFiltering', 'objective'],
    holds: ({ overlongFiltering, objective }) =>
      !overlongFiltering || objective.kind !== 'groupPreference',
    expected:
      'false with objective groupPreference: a completion that is left out would still be in the softmax of its group',
  },
  {
    path: ['clip'],
    reads: ['clip', 'objective'],
    holds: ({ clip, objective }) =>
      objective.kind !== 'gspo' || (clip.low <= 0.1 && clip.high <= 0.1),
    expected:
      'low and high of at most 0.1 with gspo: its ratio is a geometric mean over the completion, on which PPO’s 0.2 never binds. The paper takes 0.0003 and 0.0004',
  },
  {
    path: ['importanceWeights'],
    reads: ['importanceWeights', 'ratioAgainst'],
    holds: ({ importanceWeights, ratioAgainst }) =>
      importanceWeights === null || ratioAgainst === 'old',
    expected:
      'null with ratioAgainst rollout: the ratio corrects for the weights that drew the sample already',
  },
  {
    path: ['offPolicyMask'],
    reads: ['offPolicyMask', 'baseline'],
    holds: ({ offPolicyMask, baseline }) => offPolicyMask === null || baseline !== 'none',
    expected:
      'null with baseline none: whether a completion is bad is judged by one advantage for all of its tokens',
  },
  {
    path: ['updatesPerRollout'],
    reads: ['updatesPerRollout', 'objective'],
    holds: ({ updatesPerRollout, objective }) =>
      updatesPerRollout === 1 || objective.kind !== 'reinforce',
    expected:
      '1 with objective reinforce: it has no ratio, so that a second pass over the same samples would be biased',
  },
  {
    path: ['klCoef'],
    reads: ['klCoef', 'objective'],
    holds: ({ klCoef, objective }) => klCoef === 0 || objective.kind !== 'groupPreference',
    expected:
      '0 with objective groupPreference: the reference is in its objective, and objective.beta is its weight',
  },
  {
    path: ['objective', 'goodCompletions'],
    reads: ['groupSize', 'objective'],
    holds: ({ groupSize, objective }) =>
      objective.kind !== 'groupPreference' || (objective.goodCompletions ?? 0) < groupSize,
    expected: 'less than groupSize: where all completions are good there is nothing to learn',
  },
  {
    path: ['objective', 'kind'],
    reads: ['objective', 'importanceWeights', 'offPolicyMask', 'whitenAdvantages'],
    holds: ({ objective, importanceWeights, offPolicyMask, whitenAdvantages }) =>
      objective.kind !== 'groupPreference' ||
      (importanceWeights === null && offPolicyMask === null && !whitenAdvantages),
    expected:
      'another one than groupPreference with importanceWeights, offPolicyMask or whitenAdvantages: it has no advantages and no ratio',
  },
  {
    path: ['referenceEvery'],
    reads: ['referenceEvery', 'klCoef', 'objective'],
    holds: ({ referenceEvery, klCoef, objective }) =>
      referenceEvery === null || klCoef > 0 || objective.kind === 'groupPreference',
    expected: 'null with klCoef 0: there is no reference to replace',
  },
  {
    path: ['overlongPenalty', 'cacheTokens'],
    reads: ['overlongPenalty', 'sampling'],
    holds: ({ overlongPenalty, sampling }) =>
      (overlongPenalty?.cacheTokens ?? 0) <= sampling.maxNewTokens,
    expected: 'at most sampling.maxNewTokens, which is where the penalty is −1',
  },
];
