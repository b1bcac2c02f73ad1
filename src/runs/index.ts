/** Runs: their directory, the loop around a trainer, and whole runs from a model folder and a data file. */
export {
  readRunRecord,
  readRunStatus,
  RunDirectory,
  type RunDescription,
  type RunRecord,
  type RunState,
  type RunStatus,
} from './runDirectory.js';
export { listCheckpoints, type Checkpoint, type TornCheckpoint } from './checkpoints.js';
export { gitCommit, packageVersion, versions, type Versions } from './environment.js';
export {
  formatNumber,
  formatSeconds,
  headline,
  Progress,
  type ProgressOptions,
  type ProgressStream,
} from './progress.js';
export {
  runTraining,
  type RunResult,
  type RunTrainingOptions,
  type StepListener,
} from './runTraining.js';
export { readMetrics } from './stage.js';
export { restoreTrainer, saveTrainer } from './trainerState.js';
export { requireMemory, type MemoryNeeds, type MemorySettings } from './requireMemory.js';
export { Run, type TrainOptions } from './run.js';
export { mergeAdapter, type MergeAdapterOptions, type MergeAdapterResult } from './mergeAdapter.js';
export { createSftRun, type SftRunOptions } from './sftRun.js';
export { createRewardRun, type RewardRunOptions } from './rewardRun.js';
export { createPrmRun, type PrmRunOptions } from './prmRun.js';
export { createGrpoRun, type GrpoRunOptions } from './grpoRun.js';
export { createPpoRun, type PpoRunOptions } from './ppoRun.js';
export {
  createCpoRun,
  createDpoRun,
  createOrpoRun,
  createSimpoRun,
  type PreferenceRunOptions,
} from './pairRuns.js';
export { createKtoRun } from './ktoRun.js';
export { createOnlineDpoRun, type OnlineDpoRunOptions } from './onlineDpoRun.js';
export {
  createRejectionRun,
  RejectionRun,
  type RejectionResult,
  type RejectionRunOptions,
} from './rejectionRun.js';
export { requireSameVocabulary, type OnPolicyRunOptions } from './onPolicyInputs.js';
export { readRewards, type LoadedRewardModel, type RewardSources } from './rewardSources.js';
export { markedText } from './examplePreview.js';
export { requiredColumns, type RewardLike, type RunData } from './runInputs.js';
export {
  createRlhfRun,
  RlhfRun,
  type RlhfResult,
  type RlhfReward,
  type RlhfRunOptions,
} from './rlhfRun.js';
export { withInputs, type RlhfGivenInputs } from './rlhfInputs.js';
export { rlhfReport, type RlhfInputsNamed } from './rlhfReport.js';
export type {
  RlhfEstimate,
  RlhfMeasurement,
  RlhfStageName,
  RlhfStageRecord,
} from './rlhfRecord.js';
