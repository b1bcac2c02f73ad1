/** Sampling from decoders: tokens with their log-probabilities, and text. */
export { batchRows, sample, type SampledCompletion, type SampleOptions } from './sample.js';
export {
  defaultMaxNewTokens,
  encodePrompt,
  endTokenIds,
  generate,
  recommendedSampling,
  type Completion,
  type GenerateOptions,
} from './generate.js';
export {
  sampleEpisodes,
  type Episode,
  type EpisodeOptions,
  type EpisodeSampling,
} from './episodes.js';
export {
  resolveSampling,
  truncatesSampling,
  type FinishReason,
  type ResolvedSampling,
  type SamplingSettings,
} from './settings.js';
export { drawTokens, type DrawnTokens, type DrawOptions } from './drawTokens.js';
export { DecodeSession } from './decodeSession.js';
export {
  FrozenLinear,
  rolloutWeights,
  type RolloutLayer,
  type RolloutWeights,
} from './rolloutWeights.js';
