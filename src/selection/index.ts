/** Choosing among completions by their scores: the rules, and best-of-n sampling. */
export {
  bestOfNKlBound,
  rankByScore,
  selectCompletions,
  type Candidate,
  type KeepRule,
  type SelectOptions,
} from './selectCompletions.js';
export {
  bestOfN,
  type BestOfNOptions,
  type BestOfNPrompt,
  type BestOfNResult,
  type ScoredCompletion,
} from './bestOfN.js';
export {
  sampleMetrics,
  selectedRow,
  selectSamples,
  withRanks,
  type Provenance,
  type Sample,
  type SelectionSettings,
} from './samples.js';
