/** `posttrain/torch`: tensors of libtorch for TypeScript, with PyTorch's names in camelCase. */
export { Tensor, type NestedNumbers } from './tensor.js';
export type { Operand } from './pointwise.js';
export type { ReduceOptions, ValuesAndIndices } from './reductions.js';
export { DTYPE_BYTES, isFloatingPoint, type Dtype } from './dtype.js';
export type { Ints } from './bind.js';
export type { PackedKernel } from './runtime.js';
export type { RuntimeInfo, SourceArray, TargetArray } from './native.js';
export { keep, keepOwned, tidy } from './scope.js';
export type { NotPromise } from './synchronous.js';
export {
  arange,
  empty,
  eye,
  fromBytes,
  full,
  fullLike,
  linspace,
  mapFile,
  ones,
  onesLike,
  rand,
  randint,
  randn,
  randperm,
  tensor,
  zeros,
  zerosLike,
  type RandomOptions,
  type TensorData,
  type TensorOptions,
} from './factories.js';
export {
  attendRows,
  cat,
  complex,
  embedding,
  fewRowsLinear,
  packedLinear,
  packLinearWeight,
  scaledDotProductAttention,
  stack,
  where,
  type AttentionOptions,
} from './linearAlgebra.js';
export {
  decodeAttention,
  decodeMlp,
  drawRows,
  type AttentionWeights,
  type DecodeNorms,
  type DecodePlace,
  type FrozenWeight,
  type MlpWeights,
  type SharedColumns,
} from './decode.js';
export {
  gatedActivation,
  attendAfter,
  attendPrompted,
  gatedMlp,
  normLinears,
  rotateHalf,
  scoreGradient_,
  scoreTokens,
  type GateActivation,
  type KeysAndValues,
  type NormFactors,
  type ScoreGradient,
  type TokenScores,
} from './fused.js';
export { checkpoint } from './checkpoint.js';
export {
  autocast,
  enableGrad,
  grad,
  inferenceMode,
  isAutocastOnCpu,
  isGradEnabled,
  noGrad,
} from './autograd.js';
export {
  deriveSeed,
  Generator,
  getRngState,
  manualSeed,
  setRngState,
  uniformAt,
} from './random.js';
export {
  cudaIsAvailable,
  getNumThreads,
  giveBackHostMemory,
  hostMemory,
  memory,
  releaseHostMemory,
  runtimeInfo,
  setNumThreads,
  synchronize,
  useOneDnnLinear,
  usePackedKernel,
  useWidenedProducts,
  type HostMemory,
  type MemoryUse,
} from './runtime.js';
export {
  assertIntegerAtLeast,
  assertPositive,
  assertRank,
  assertSameShape,
  showShape,
} from './assert.js';
export { putToRest, restingTensors } from './restingTensors.js';
export { readSafetensors, replaceFile, SafetensorsFile, writeSafetensors } from './safetensors.js';
