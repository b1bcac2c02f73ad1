/**
 * One token per row from a batch of logits. Knows distributions; knows nothing of models, caches or text.
 *
 * A token is drawn by inverting the cumulative distribution at one uniform number per row. `torch.multinomial` draws an
 * exponential number per vocabulary entry instead, which on the CPU costs more than the rest of a small model's step.
 */
import { NumericsError } from '../errors/index.js';
import { cat, drawRows, noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { truncatesSampling, type ResolvedSampling } from './settings.js';

/** The tokens drawn, one per row. */
export interface DrawnTokens {
  ids: number[];
  /**
   * Natural log of the probability each token was drawn with: after penalty, temperature and truncation. With
   * temperature 0 nothing is drawn, and it is the log-probability under the softmax of the (penalised) logits.
   */
  logprobs: number[];
  /** The ids that each token was drawn among, ascending; present if asked for and some truncation is active. */
  supports?: Int32Array[];
}

/** What `drawTokens` may be told besides the settings. */
export interface DrawOptions {
  /** [B, V] bool, tokens that occur in the row already; needed when there is a repetition penalty. */
  seen?: Tensor | undefined;
  /** Also return the support of every row. One more transfer from the device, and none where nothing is truncated. */
  keepSupport?: boolean | undefined;
}

/**
 * @param logits [B, V] any floating dtype; 16-bit ones are widened to float32 first
 * @param uniforms one number in (0, 1) per row
 * @throws NumericsError when a row has no finite distribution
 */
export function drawTokens(
  logits: Tensor,
  uniforms: readonly number[],
  settings: ResolvedSampling,
  { seen, keepSupport = false }: DrawOptions = {},
): DrawnTokens {
  const truncates = truncatesSampling(settings, logits.size(-1));
  const keeps = keepSupport && truncates;
  const { flat, inside } = tidy(() => {
    const penalises = seen !== undefined && settings.repetitionPenalty !== 1;
    const greedy = settings.temperature === 0;
    if (!truncates && !penalises && hasKernel(logits)) {
      const points = tensor(Float64Array.from(uniforms));
      const drawn = noGrad(() => drawRows(logits, points, settings.temperature));
      return { flat: Array.from(drawn.toTypedArray()), inside: undefined };
    }
    let scores = logits.dtype === 'float64' ? logits : logits.to('float32');
    if (penalises) scores = penalise(scores, seen, settings.repetitionPenalty);
    if (!greedy) scores = truncate(scores.div(settings.temperature), settings);
    const logprobs = scores.logSoftmax(-1);
    const ids = greedy ? logprobs.argmax(-1, { keepDim: true }) : invert(logprobs, uniforms);
    const drawn = logprobs.gather(-1, ids);
    return {
      // One transfer for both: float64 holds a token id and a float32 exactly.
      flat: Array.from(cat([ids.to('float64'), drawn.to('float64')], 0).toTypedArray()),
      inside: keeps ? scores.isfinite().nonzero().to('int32').toTypedArray() : undefined,
    };
  });
  const rows = flat.length / 2;
  const ids = flat.slice(0, rows);
  const logprobs = flat.slice(rows);
  const broken = logprobs.findIndex((value) => !Number.isFinite(value));
  if (broken !== -1) {
    throw new NumericsError(
      `drawTokens: row ${broken} has no finite distribution over the next token (log-probability ${logprobs[broken]}).`,
      {
        hint: 'The weights hold NaN or infinity, or 16-bit logits overflowed. Look at the last update.',
      },
    );
  }
  return { ids, logprobs, ...(inside && { supports: splitSupports(inside, rows) }) };
}

/** Whether one call draws from plain logits. */
function hasKernel({ device, dtype }: Tensor): boolean {
  return device === 'cpu' && (dtype === 'float32' || dtype === 'bfloat16');
}

/** @param pairs row and id, in order of rows and, within a row, of ids */
function splitSupports(pairs: ArrayLike<number>, rows: number): Int32Array[] {
  const counts = new Int32Array(rows);
  for (let at = 0; at < pairs.length; at += 2) {
    const row = pairs[at] ?? 0;
    counts[row] = (counts[row] ?? 0) + 1;
  }
  let start = 0;
  return Array.from(counts, (count) => {
    const first = start;
    start += count;
    return Int32Array.from({ length: count }, (_, index) => pairs[2 * (first + index) + 1] ?? 0);
  });
}

function penalise(scores: Tensor, seen: Tensor, penalty: number): Tensor {
  const penalised = scores.div(penalty).where(scores.gt(0), scores.mul(penalty));
  return penalised.where(seen, scores);
}

/** The first token whose cumulative probability exceeds the uniform number. [B, 1] int64. */
function invert(logprobs: Tensor, uniforms: readonly number[]): Tensor {
  // float64: over a large vocabulary the sum of float32 probabilities would lose the tail.
  const cumulative = logprobs.exp().cumsum(-1, { dtype: 'float64' });
  const total = cumulative.narrow(-1, cumulative.size(-1) - 1, 1);
  const points = tensor(Float64Array.from(uniforms), {
    shape: [uniforms.length, 1],
    device: logprobs.device,
  });
  // Strictly below the total, so that a token without probability at the end is never reached by rounding.
  const limit = total.mul(1 - 1e-15);
  const ids = cumulative.searchsorted(points.mul(total).minimum(limit), { right: true });
  return ids.clamp(0, cumulative.size(-1) - 1); // a row of NaN points beyond the end; the caller reports it
}

/** Scores with −∞ for every token that top-k, top-p or min-p leaves out. */
function truncate(scores: Tensor, { topK, topP, minP }: ResolvedSampling): Tensor {
  const vocabulary = scores.size(-1);
  let kept = scores;
  if (topK > 0 && topK < vocabulary) {
    const smallest = kept.topk(topK).values.narrow(-1, topK - 1, 1);
    kept = kept.maskedFill(kept.lt(smallest), -Infinity);
  }
  if (topP < 1) {
    kept = kept.maskedFill(kept.lt(nucleusThreshold(kept, topP, topK)), -Infinity);
  }
  if (minP > 0) {
    // p ≥ minP·p_max is, in logits, s ≥ s_max + log minP: no softmax needed.
    const threshold = kept.amax(-1, { keepDim: true }).add(Math.log(minP));
    kept = kept.maskedFill(kept.lt(threshold), -Infinity);
  }
  return kept;
}

/**
 * The smallest score inside the nucleus of each row. [B, 1]
 *
 * Sorting a vocabulary costs far more than the model; the nucleus mostly lies in the first few hundred tokens. So the
 * largest ones are taken, and more only when some row's nucleus reaches beyond them. The result is that of a full sort.
 */
function nucleusThreshold(scores: Tensor, topP: number, topK: number): Tensor {
  const vocabulary = scores.size(-1);
  const normaliser = scores.logsumexp(-1, { keepDim: true });
  for (
    let count = topK > 0 ? Math.min(topK, vocabulary) : Math.min(256, vocabulary);
    ;
    count *= 8
  ) {
    const taken = Math.min(count, vocabulary);
    const top = scores.topk(taken).values;
    const probabilities = top.sub(normaliser).exp();
    // A token belongs to the nucleus while the mass before it is still below p; the first one always does.
    const before = probabilities.cumsum(-1, { dtype: 'float64' }).sub(probabilities);
    const inside = before.lt(topP);
    const reachesEnd =
      inside
        .narrow(-1, taken - 1, 1)
        .any()
        .item() === 1;
    if (!reachesEnd || taken === vocabulary || (topK > 0 && taken >= topK)) {
      return top.maskedFill(inside.logicalNot(), Infinity).amin(-1, { keepDim: true });
    }
  }
}
