/** `posttrain/rewards`: what a reward is, built-in rewards, loading and running them. Text and numbers only. */
export {
  withWeights,
  type JudgedPart,
  type NamedReward,
  type RewardFunction,
  type RewardInput,
  type RewardPart,
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
  rewardColumn,
  type RewardSpec,
} from './rewardSpec.js';
export {
  judgePairs,
  type JudgeFailure,
  type JudgeInput,
  type Judgements,
  type JudgeOptions,
  type PairwiseJudge,
  type Verdict,
} from './judge.js';
export { loadJudge } from './loadJudge.js';
export { loadReward, type LoadRewardOptions } from './loadReward.js';
export { bleu, type BleuOptions, type BleuSettings } from './textMetrics/bleu.js';
export {
  rougeL,
  rougeN,
  type RougeLOptions,
  type RougeNOptions,
  type RougeScore,
} from './textMetrics/rouge.js';
export {
  cider,
  ciderD,
  documentFrequencies,
  type CiderDOptions,
  type CiderOptions,
  type DocumentFrequencies,
  type DocumentFrequencyOptions,
} from './textMetrics/cider.js';
export {
  bleuReward,
  ciderDReward,
  ciderReward,
  rougeLReward,
  rougeNReward,
  type BleuRewardOptions,
  type CiderDRewardOptions,
  type CiderRewardOptions,
  type RougeLRewardOptions,
  type RougeNRewardOptions,
} from './textMetrics/metricRewards.js';
