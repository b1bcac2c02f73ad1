/** Which settings of the GRPO family make no sense together, and why. */
import type { GrpoConfig } from './grpo.js';
import { KL_RULES, ON_POLICY_RULES, type Rule } from './rules.js';

const NEEDS_A_GROUP = ['groupMean', 'leaveOneOut', 'secondBest'];

/** The rules of the GRPO family. */
export const GRPO_RULES: readonly Rule<GrpoConfig>[] = [
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
    path: ['clip', 'high'],
    reads: ['clip', 'objective'],
    holds: ({ clip, objective }) => objective.kind !== 'gspo' || clip.high <= 0.1,
    expected:
      'a number of at most 0.1 with gspo: its ratio is a geometric mean over the completion, on which PPO’s 0.2 never binds. The paper takes 0.0003 and 0.0004',
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
      objective.kind !== 'groupPreference' || objective.goodCompletions < groupSize,
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
