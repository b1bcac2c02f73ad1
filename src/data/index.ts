/** Rows of the user's data: reading, checking, tokenizing, ordering and batching them. Plain values, no tensors. */
export {
  readRows,
  storeRows,
  type ReadingListener,
  type ReadingState,
  type StoredRows,
} from './readRows.js';
export type { DataSelection } from './dataFiles.js';
export { describeValue, placeOf, rowsFromObjects, type Row } from './row.js';
export {
  booleanOf,
  detectFormat,
  isOfFormat,
  validateFormat,
  validateRow,
  validateRows,
  type DataFormat,
  type DataFormatName,
} from './format.js';
export { forVocabulary, type Message, type TextTokenizer } from './textTokenizer.js';
export { promptOf } from './tokenizeText.js';
export {
  SftReader,
  tokenizeForSft,
  tokenizePrompts,
  type PromptExample,
  type PromptReport,
  type PromptTokenizeOptions,
  type SftExample,
  type SftReport,
  type SftTokenizeOptions,
} from './tokenizeRows.js';
export type { ExampleReader } from './exampleReader.js';
export {
  PairReader,
  tokenizeCompletions,
  tokenizePreferences,
  tokenizeUnpaired,
  UnpairedReader,
  type CompletionExample,
  type JudgedReport,
  type PreferenceExample,
  type PreferenceFault,
  type PreferenceReport,
  type PreferenceTokenizeOptions,
  type UnpairedExample,
  type UnpairedReport,
} from './tokenizePreferences.js';
export {
  groupComparisons,
  type ComparedCompletion,
  type ComparedPair,
  type Comparison,
} from './comparisons.js';
export {
  splitSteps,
  StepEncoder,
  StepReader,
  tokenizeSteps,
  type StepExample,
  type StepFault,
  type StepReport,
  type StepTokenizeOptions,
  type StepTokens,
  type TextStep,
} from './tokenizeSteps.js';
export {
  BatchOrder,
  type BatchOrderOptions,
  type BatchPosition,
  type Mixture,
} from './batchOrder.js';
export {
  padRight,
  splitRows,
  tokenBudgetBatches,
  type PaddedIds,
  type SplitSize,
} from './batches.js';
export { examineRows, type Examination, type Finding } from './examineRows.js';
export { packBestFit } from './packing.js';
export { SeededRandom } from './random.js';
