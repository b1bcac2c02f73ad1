/** Language models: families, checkpoints in Hugging Face's layout, log-probabilities of given tokens. */
export type { CausalLm, CausalLmInput, SaveOptions } from './causalLm.js';
export {
  adaptedNames,
  addLora,
  loraLayers,
  mergedParameters,
  type Adapter,
  type AddLoraOptions,
} from './adapter.js';
export type { AdapterConfig, AdapterTask, LoraOptions } from './adapterConfig.js';
export {
  applyAdapter,
  baseFolderOf,
  baseReference,
  isAdapterFolder,
  openModelFolder,
  readAdapterFolder,
  tokenizerFolderOf,
  type AdapterFolder,
} from './adapterFolder.js';
export { backwardTokenLogprobs } from './backwardTokenLogprobs.js';
export type { CompletionRows, PackedRows, RowPlace } from './completionStates.js';
export { paddedTokens, sharingPays } from './continuation.js';
export type { ComputeSettings } from './computeSettings.js';
export { createModel, type CreateModelOptions } from './createModel.js';
export { capLogits, Decoder, frequenciesDependOnLength } from './decoder.js';
export {
  parseDecoderConfig,
  ropeSettings,
  type DecoderConfig,
  type LayerKind,
  type RopeBase,
} from './decoderConfig.js';
export { DecoderLayer, type DecoderLayerParts, type Norm } from './decoderLayer.js';
export { MODEL_TYPES, type ExpertSettings, type ModelType } from './families.js';
export { makeDecoderConfig, type DecoderOptions } from './makeDecoderConfig.js';
export { storedDtype } from './checkpoint.js';
export { readGenerationConfig, type GenerationConfig } from './generationConfig.js';
export { loadModel, type LoadModelOptions } from './loadModel.js';
export { modelPositions, modelVocabulary } from './modelPositions.js';
export { readDecoderConfig } from './readDecoderConfig.js';
export { isScalarModelFolder, loadScalarModel } from './loadScalarModel.js';
export {
  createScalarHead,
  type ScalarHeadOptions,
  type ScalarModelOptions,
  type ShiftedHead,
} from './scalarHead.js';
export type { HeadOptions } from './head.js';
export { HeadedModel } from './headedModel.js';
export { createScalarModel, ScalarModel } from './scalarModel.js';
export {
  sequenceScores,
  tokenValues,
  type ScalarParts,
  type SequenceRows,
  type TokenValues,
} from './scalarValues.js';
export {
  createStepModel,
  isStepModelFolder,
  loadStepModel,
  stepLogits,
  StepModel,
  type StepModelOptions,
  type StepParts,
  type StepRows,
} from './stepModel.js';
export { tokenLogprobs, type TokenLogprobs, type TokenLogprobsInput } from './tokenLogprobs.js';
export type { TopTokensRequest } from './topTokens.js';
export type { TokenSupport } from './tokenSupports.js';
export { checkpointNames } from './checkpointNames.js';
export { parameterShapes, type ParameterKind, type ParameterShape } from './parameterShapes.js';
export { ropeInverseFrequencies, type RopeScaling } from '../nn/index.js';
export { saveMerged } from './saveMerged.js';
export { shareWeights } from './shareWeights.js';
export { requireSameBase, weightsSha256 } from './weightsSha256.js';
export { whileAwake } from './whileAwake.js';
