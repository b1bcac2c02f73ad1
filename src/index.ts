/** `posttrain`: models, tokenizers, sampling, runs and evaluation. Tensors, losses and rewards have entries of their own. */
export {
  createModel,
  loadModel,
  makeDecoderConfig,
  type CausalLm,
  type CausalLmInput,
  type CreateModelOptions,
  type DecoderConfig,
  type DecoderOptions,
  type LoadModelOptions,
  type SaveOptions,
} from './models/index.js';
export {
  createBpeTokenizer,
  createCharacterTokenizer,
  loadTokenizer,
  type BpeTokenizerOptions,
  type CharacterTokenizerOptions,
  type ChatMessage,
  type ChatTemplateOptions,
  type Tokenizer,
} from './tokenizers/index.js';
export {
  generate,
  type Completion,
  type FinishReason,
  type GenerateOptions,
  type SamplingSettings,
} from './generation/index.js';
export {
  bestOfN,
  bestOfNKlBound,
  selectCompletions,
  type BestOfNOptions,
  type BestOfNPrompt,
  type BestOfNResult,
  type Candidate,
  type KeepRule,
  type ScoredCompletion,
  type SelectOptions,
} from './selection/index.js';
export { readRows, splitRows, type Row } from './data/index.js';
export {
  describeConfig,
  GRPO_PRESETS,
  GrpoConfig,
  PpoConfig,
  RewardConfig,
  SftConfig,
  type GrpoConfigInput,
  type GrpoPreset,
  type PpoConfigInput,
  type RewardConfigInput,
  type SettingRow,
  type SftConfigInput,
} from './config/index.js';
export {
  createGrpoRun,
  createPpoRun,
  createRewardRun,
  createSftRun,
  type GrpoRunOptions,
  type OnPolicyRunOptions,
  type PpoRunOptions,
  type RewardLike,
  type Run,
  type RunData,
  type RunResult,
  type RewardRunOptions,
  type SftRunOptions,
  type StepListener,
  type TrainOptions,
} from './runs/index.js';
export type {
  RewardModel,
  SampleRecord,
  StepReport,
  TokenStreams,
  Trainer,
} from './trainers/index.js';
export {
  calibrationError,
  evaluate,
  evaluatePreferences,
  perplexity,
  scoreSequences,
  type Estimate,
  type CalibrationInputs,
  type EvaluateOptions,
  type EvaluatePreferencesOptions,
  type Evaluation,
  type Perplexity,
  type PerplexityOptions,
  type PreferenceEvaluation,
} from './eval/index.js';
export {
  tokenizeForSft,
  tokenizePreferences,
  tokenizePrompts,
  tokenizeUnpaired,
  type PreferenceExample,
  type PromptExample,
  type SftExample,
  type UnpairedExample,
} from './data/index.js';
export {
  createScalarModel,
  loadScalarModel,
  type ScalarModel,
  type ScalarModelOptions,
} from './models/index.js';
export {
  calculatorEnvironment,
  loadEnvironment,
  type Environment,
  type EnvironmentStep,
  type EpisodeStart,
  type ModelTurn,
} from './environments/index.js';
export type { NamedReward, RewardFunction, RewardInput, Turn } from './rewards/index.js';
export {
  CheckpointError,
  ConfigError,
  DataError,
  DisposedError,
  DtypeError,
  IoError,
  NativeError,
  NumericsError,
  PosttrainError,
  RewardError,
  ShapeError,
  UsageError,
  ValueRangeError,
  type ErrorCode,
} from './errors/index.js';
