/** `posttrain/algorithms`: the objectives and estimates of post-training as pure functions of tensors. */
export { tokenWeights, type BatchTotals, type LossReduction } from './tokenWeights.js';
export {
  klEstimate,
  klLoss,
  type KlEstimateInputs,
  type KlEstimator,
  type KlLossEstimator,
  type KlLossInputs,
  type KlLossStats,
} from './kl.js';
export {
  groupAdvantages,
  type AdvantageScale,
  type GroupAdvantagesInputs,
} from './groupAdvantages.js';
export {
  ppoClipLoss,
  type ClipRange,
  type PolicyLossOutput,
  type PolicyLossStats,
  type PpoClipLossInputs,
  type RatioStats,
} from './ppo.js';
export {
  majorityAtK,
  passAtK,
  type MajorityAtKInputs,
  type PassAtKInputs,
} from './sampleMetrics.js';
