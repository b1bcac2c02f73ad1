/** How well a model predicts text that is already written. */
import { padRight, tokenBudgetBatches, type SftExample } from '../data/index.js';
import { ValueRangeError } from '../errors/index.js';
import { tokenLogprobs, type CausalLm } from '../models/index.js';
import { noGrad, tensor, tidy } from '../torch/index.js';

/** What to measure. */
export interface PerplexityOptions {
  readonly model: CausalLm;
  /** Sequences, of which everything from `completionStart` on is predicted. */
  readonly examples: readonly SftExample[];
  /** Most tokens, padding included, of one forward pass. 4096 unless set. */
  readonly microBatchTokens?: number | undefined;
}

/** What was measured. */
export interface Perplexity {
  /** nats per predicted token. */
  readonly loss: number;
  /** e^loss. */
  readonly perplexity: number;
  /** Tokens that were predicted. */
  readonly tokens: number;
}

/**
 * Mean negative log-likelihood of the predicted tokens and its exponential. Every token counts the same, however long
 * its sequence is.
 *
 *     loss = −Σᵢ Σₜ log π(yᵢₜ | xᵢ, yᵢ,₍<ₜ₎) / Σᵢ Lᵢ
 *
 * @throws ValueRangeError if nothing is to be predicted
 */
export function perplexity(options: PerplexityOptions): Perplexity {
  const { model, examples, microBatchTokens = 4096 } = options;
  const tokens = examples.reduce(
    (sum, { inputIds, completionStart }) => sum + inputIds.length - completionStart,
    0,
  );
  if (tokens === 0) {
    throw new ValueRangeError('perplexity: expected at least one token to predict, received none.');
  }
  const lengths = examples.map(({ inputIds }) => inputIds.length);
  let sum = 0;
  for (const indices of tokenBudgetBatches(lengths, microBatchTokens)) {
    const rows = indices.flatMap((index) => examples[index] ?? []);
    sum += noGrad(() => tidy(() => sumOfLogprobs(model, rows)));
  }
  const loss = -sum / tokens;
  return { loss, perplexity: Math.exp(loss), tokens };
}

function sumOfLogprobs(model: CausalLm, rows: readonly SftExample[]): number {
  // Padding is never looked at: lengths say where rows end.
  const padded = padRight(
    rows.map(({ inputIds }) => inputIds),
    0,
  );
  const shape = [padded.rows, padded.columns];
  const { logprobs } = tokenLogprobs(model, {
    inputIds: tensor(padded.ids, { shape, dtype: 'int64', device: model.device }),
    promptLengths: rows.map(({ completionStart }) => completionStart),
    lengths: padded.lengths,
  });
  return Number(logprobs.sum(undefined, { dtype: 'float64' }).item());
}
