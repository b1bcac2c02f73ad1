/** `posttrain/rewards`: what a reward is, built-in rewards, loading and running them. Text and numbers only. */
export {
  withWeights,
  type NamedReward,
  type RewardFunction,
  type RewardInput,
  type Turn,
} from './reward.js';
export {
  scoreCompletions,
  type RewardFailure,
  type RewardScores,
  type ScoreOptions,
} from './scoreCompletions.js';
export {
  exactMatch,
  formatMatch,
  lengthReward,
  numericMatch,
  type ExactMatchOptions,
  type LengthRewardOptions,
  type NumericMatchOptions,
} from './builtin.js';
export {
  BUILTIN_REWARDS,
  parseRewardSpec,
  parseRewardWeight,
  type RewardSpec,
} from './rewardSpec.js';
export { loadReward, type LoadRewardOptions } from './loadReward.js';
