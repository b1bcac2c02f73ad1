/** One trainer per method, and the steps that they share. */
export { SftTrainer, type SftParts } from './sftTrainer.js';
export { GrpoTrainer } from './grpoTrainer.js';
export type { GrpoParts } from './grpoParts.js';
export type { SampleRecord, StepReport, TokenStreams, Trainer } from './trainer.js';
export type { RolloutOptions, RolloutRow } from './rollout.js';
export type { RatioDeviation } from './ratioInvariant.js';
export type { TokenRow, TokenTensors } from './tokenRows.js';
