/** Labelling: people compare completions in a terminal, and what they say becomes preference data. */
export { label, sessionInputs, type LabelOptions, type LabelResult } from './label.js';
export type { InputStream } from './answers.js';
export type { LabelSummary } from './labelPrompts.js';
export type { LabelMode } from './ranking.js';
