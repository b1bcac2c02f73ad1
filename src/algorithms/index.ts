/** `posttrain/algorithms`: the objectives and estimates of post-training as pure functions of tensors. */
export { tokenWeights, type BatchTotals, type LossReduction } from './tokenWeights.js';
export {
  adaptiveKlCoef,
  klEstimate,
  klLoss,
  type AdaptiveKlCoefInputs,
  type KlEstimateInputs,
  type KlEstimator,
  type KlLossEstimator,
  type KlLossInputs,
  type KlLossStats,
} from './kl.js';
export {
  penalizedScores,
  shapeRewards,
  softOverlongPenalty,
  type PenalizedScoreInputs,
  type SoftOverlongInputs,
} from './rewards.js';
export {
  batchWhitenedAdvantages,
  discountedReturns,
  gae,
  monteCarloAdvantages,
  type AdvantagesAndReturns,
  type BatchWhitenedInputs,
  type DiscountedReturnsInputs,
  type GaeInputs,
  type MonteCarloInputs,
} from './returns.js';
export { whiten, type WhitenInputs } from './whiten.js';
export {
  groupAdvantages,
  type AdvantageScale,
  type GroupAdvantagesInputs,
} from './groupAdvantages.js';
export {
  bestMinusSecondAdvantages,
  greedyBaselineAdvantages,
  leaveOneOutAdvantages,
  type GreedyBaselineInputs,
  type GroupRewards,
} from './baselines.js';
export {
  ppoClipLoss,
  type ClipRange,
  type PolicyLossOutput,
  type PolicyLossStats,
  type PpoClipLossInputs,
  type RatioStats,
} from './ppo.js';
export { gspoLoss, type GspoLossInputs } from './gspo.js';
export {
  cispoLoss,
  reinforceLoss,
  type CispoClip,
  type CispoLossInputs,
  type ReinforceLossInputs,
  type ReinforceStats,
} from './reinforce.js';
export {
  groupPreferenceLoss,
  topKGoodMask,
  type GroupPreferenceInputs,
  type GroupPreferenceStats,
} from './groupPreference.js';
export { dpoLoss, type DpoLossInputs, type DpoLossOutput } from './dpo.js';
export {
  DPO_VARIANTS,
  DPO_VARIANT_TRAITS,
  type DpoVariant,
  type DpoVariantTraits,
} from './dpoVariants.js';
export { F_DIVERGENCES, type FDivergence } from './fDivergences.js';
export { type PreferenceLossOutput } from './preferencePairs.js';
export { ktoLoss, type KtoLossInputs, type KtoLossOutput } from './kto.js';
export {
  cpoLoss,
  orpoLoss,
  simpoLoss,
  type CpoLossInputs,
  type OrpoLossInputs,
  type OrpoLossOutput,
  type SimpoLossInputs,
} from './referenceFreePreferences.js';
export {
  offPolicySequenceMask,
  truncatedImportanceWeights,
  type ImportanceWeightInputs,
  type OffPolicySequenceMaskInputs,
} from './offPolicy.js';
export {
  entropyBonus,
  topEntropyMask,
  type EntropyBonusInputs,
  type EntropyStats,
  type TopEntropyMaskInputs,
} from './entropy.js';
export { valueLoss, type ValueLossInputs, type ValueLossStats } from './valueLoss.js';
export {
  bradleyTerryLoss,
  type BradleyTerryInputs,
  type BradleyTerryStats,
} from './bradleyTerry.js';
export {
  aggregateStepScores,
  processRewardLoss,
  type ProcessRewardInputs,
  type ProcessRewardStats,
  type StepAggregation,
  type StepScoreInputs,
} from './processReward.js';
export { sequenceLogprob, type SequenceLogprobInputs } from './sequenceLogprob.js';
export {
  majorityAtK,
  passAtK,
  type MajorityAtKInputs,
  type PassAtKInputs,
} from './sampleMetrics.js';
