/** Optimizers, learning rates and gradient clipping. */
export { AdamW, decayGroups, type AdamWOptions, type ParameterGroup } from './adamW.js';
export { clipGradNorm } from './clipGradNorm.js';
export { learningRateAt, type Schedule } from './schedule.js';
