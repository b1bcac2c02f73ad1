/** Evaluation: accuracy, pass@k, maj@k and perplexity, with confidence intervals over problems. */
export {
  evaluate,
  type CompletionStats,
  type EvaluateOptions,
  type Evaluation,
  type JudgedCompletion,
} from './evaluate.js';
export { bootstrapInterval, wilsonInterval, type Estimate } from './intervals.js';
export { perplexity, type Perplexity, type PerplexityOptions } from './perplexity.js';
