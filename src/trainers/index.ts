/** One trainer per method, and the steps that they share. */
export { SftTrainer, type SftParts } from './sftTrainer.js';
export { isSource, type ExampleSource, type TrainingExamples } from './trainingRows.js';
export { RewardTrainer, type RewardParts } from './rewardTrainer.js';
export { PrmTrainer, type PrmParts } from './prmTrainer.js';
export { GrpoTrainer } from './grpoTrainer.js';
export { DpoTrainer, needsReferenceModel, type DpoParts } from './dpoTrainer.js';
export type { PairMethod } from './pairObjective.js';
export { KtoTrainer, type KtoParts } from './ktoTrainer.js';
export { OnlineDpoTrainer, type OnlineDpoParts } from './onlineDpoTrainer.js';
export { PpoTrainer } from './ppoTrainer.js';
export type { PpoParts } from './ppoParts.js';
export { needsReference, type GrpoParts } from './grpoParts.js';
export { forecastNullGroups, nullGroupWarning, type NullGroupForecast } from './nullGroups.js';
export type { LossRecord } from './lossSettings.js';
export { tokenTexts } from './tokenTexts.js';
export type {
  GivenRecord,
  PairRecord,
  PairSide,
  SampleRecord,
  StepReport,
  StepScore,
  TopTokenRecord,
  TokenStreams,
  Trainer,
} from './trainer.js';
export {
  checkRewardParts,
  describeFailures,
  requireScores,
  rollout,
  type RolloutOptions,
  type RolloutRow,
  type RolloutSampling,
} from './rollout.js';
export {
  scoreRows,
  type RewardModel,
  type ScoredRows,
  type ScoreRowsOptions,
} from './scoreRows.js';
export type { RolloutParts } from './rolloutSource.js';
export type { RatioDeviation } from './ratioInvariant.js';
export { longerOfPair, requirePositions, type PlacedSequence } from './requirePositions.js';
export { logprobPass, type TokenRow, type TokenTensors } from './tokenRows.js';
