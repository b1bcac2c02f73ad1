/** Layers: parameters with a forward pass. They know tensors and nothing of checkpoints, tokens or training. */
export { Module } from './module.js';
export { Linear, type NamedLinear } from './linear.js';
export {
  createLora,
  LoraAdapter,
  loraDtype,
  loraScaling,
  withLoraDropout,
  type LoraInit,
  type LoraParts,
} from './lora.js';
export { Embedding } from './embedding.js';
export { RMSNorm, type RMSNormOptions } from './rmsNorm.js';
export { LayerNorm } from './layerNorm.js';
export {
  attend,
  Attention,
  type AttentionParts,
  type AttentionSettings,
  type ScoreOptions,
  type PromptedRows,
  type SharedPrompts,
} from './attention.js';
export { type Activation } from './activation.js';
export { innerValues, Mlp, type MlpParts, type MlpSettings } from './mlp.js';
export { ExpertMlp, mixExperts, type Routing } from './expertMlp.js';
export {
  applyRope,
  ropeAttentionFactor,
  ropeInverseFrequencies,
  ropeLength,
  ropeRotation,
  type RopeScaling,
  type RopeSettings,
  type Rotation,
} from './rope.js';
