/** The quickstart's model and settings. Tried on two cores over seeds 0, 1, 2; the results are in docs/quickstart.md. */
import type { GrpoConfigInput, SftConfigInput } from '../config/index.js';
import type { DecoderOptions } from '../models/index.js';

/** A Llama-shaped decoder with 0.6 million parameters. Special tokens and vocabulary come from the tokenizer. */
export const MODEL: Omit<DecoderOptions, 'vocabSize'> = {
  hiddenSize: 128,
  intermediateSize: 352,
  numLayers: 3,
  numHeads: 4,
  tieWordEmbeddings: true,
  maxPositionEmbeddings: 64,
  // Wider than the usual 0.02: with that, a model this small does not leave the digits' mean within the 700 steps.
  initializerRange: 0.05,
};

/** Share of the demonstrations that forget to carry. */
export const CARRY_FAILURE_SHARE = 0.6;

/** Imitation: 700 batches of 128 demonstrations. */
export const SFT: SftConfigInput = {
  maxSteps: 700,
  batchSize: 128,
  maxLength: 32,
  learningRate: 1e-3,
  warmupSteps: 50,
  schedule: { kind: 'linear', minRatio: 0.1 },
  weightDecay: 0.01,
  checkpointEvery: 350,
};

/** Reinforcement: DAPO's clip range and token mean, no KL term, a learning rate for a model this small. */
export const GRPO: GrpoConfigInput = {
  steps: 75,
  promptsPerStep: 32,
  groupSize: 8,
  sampling: { maxNewTokens: 6 },
  maxPromptLength: 32,
  klCoef: 0,
  clip: { low: 0.2, high: 0.28 },
  reduction: { kind: 'tokenMean' },
  learningRate: 3e-4,
  evalEvery: 25,
  checkpointEvery: 25,
};

/** Most tokens of an answer: four digits, the end, and one to spare. */
export const MAX_NEW_TOKENS = 6;
/** Samples per held-out problem, and so the largest k. */
export const SAMPLES = 8;
