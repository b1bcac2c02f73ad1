/** Evaluation: accuracy, pass@k, maj@k, perplexity and agreement with preferences, with confidence intervals over problems. */
export {
  evaluate,
  type CompletionStats,
  type EvaluateOptions,
  type Evaluation,
  type JudgedCompletion,
} from './evaluate.js';
export type { ScoringModel } from './drawCompletions.js';
export {
  finishedTokens,
  winRate,
  type ComparedPair,
  type Opponent,
  type WinRate,
  type WinRateOptions,
} from './winRate.js';
export { bootstrapInterval, wilsonInterval, type Estimate } from './intervals.js';
export { perplexity, type Perplexity, type PerplexityOptions } from './perplexity.js';
export { calibrationError, type CalibrationInputs } from './calibration.js';
export {
  evaluatePreferences,
  preferenceMetrics,
  type EvaluatePreferencesOptions,
  type PreferenceEvaluation,
} from './evaluatePreferences.js';
export { scoreSequences } from './scoreSequences.js';
export {
  evaluateSteps,
  stepMetrics,
  type EvaluateStepsOptions,
  type StepEvaluation,
} from './evaluateSteps.js';
export {
  aggregateSteps,
  judgeSteps,
  scoreSteps,
  stepLogOdds,
  type JudgedStep,
  type JudgeStepsOptions,
  type ScoreStepsOptions,
} from './judgeSteps.js';
