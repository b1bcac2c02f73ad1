/** Simulated annotators: rankings of completions by a reward, and preference rows made of rankings. */
export { agreementCeiling } from './agreementCeiling.js';
export { preferencePairs, type PreferencePair, type RankedCompletions } from './preferencePairs.js';
export { rankByReward, type RankByRewardOptions } from './rankByReward.js';
