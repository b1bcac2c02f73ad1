/** Layers: parameters with a forward pass. They know tensors and nothing of checkpoints, tokens or training. */
export { Module } from './module.js';
export { Linear } from './linear.js';
export { Embedding } from './embedding.js';
export { RMSNorm } from './rmsNorm.js';
export { Attention, type AttentionParts } from './attention.js';
export { GatedMlp } from './gatedMlp.js';
export {
  applyRope,
  ropeInverseFrequencies,
  ropeRotation,
  type RopeScaling,
  type RopeSettings,
  type Rotation,
} from './rope.js';
