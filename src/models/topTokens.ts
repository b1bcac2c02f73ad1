/** The most likely tokens at each place of some completions. Internal to this folder. */
import { ValueRangeError } from '../errors/index.js';
import {
  assertIntegerAtLeast,
  cat,
  noGrad,
  scoreTokens,
  tensor,
  tidy,
  type Tensor,
} from '../torch/index.js';
import type { Scoring } from './completionTokens.js';
import { outsideSupports } from './tokenSupports.js';

/** Which of a batch's rows, and how many tokens at each place. */
export interface TopTokensRequest {
  /** k: at least 1; the whole vocabulary where that is smaller. */
  readonly count: number;
  /** Rows of the batch, in any order. */
  readonly rows: readonly number[];
}

/** The most likely tokens of the rows that were asked for: n places in all, row after row as they were asked for. */
export interface TopTokens {
  /** [n, k] int64, most likely first. */
  readonly topIds: Tensor;
  /** [n, k] nats; −∞ where fewer than k tokens were left by a truncated sampler. The dtype of the other scores. */
  readonly topLogprobs: Tensor;
}

/** Of all rows of the batch. */
interface Lengths {
  readonly promptLengths: readonly number[];
  readonly lengths: readonly number[];
}

/**
 * The k most likely tokens before each completion token of the rows, of the distribution that scores the token: divided
 * by the temperature, and on its support where there is one. Their logits are computed once more, so that this costs one
 * product with the output layer for the rows' tokens and no gradient knows of it.
 *
 * @param states [N, D] of all completion tokens, row after row
 * @throws ValueRangeError for a row that is not in the batch, or a count below 1
 */
export function topTokens(
  scoring: Scoring,
  states: Tensor,
  { rows, chunkTokens, ...request }: TopTokensRequest & Lengths & { chunkTokens: number },
): TopTokens {
  assertIntegerAtLeast('tokenLogprobs', 'topTokens.count', request.count, 1);
  const { model } = scoring;
  const count = Math.min(request.count, model.config.vocabSize);
  const places = placesOf(rows, request);
  return noGrad(() => {
    const parts: TopTokens[] = [];
    for (let start = 0; start < Math.max(1, places.length); start += chunkTokens) {
      const chunk = { places: places.slice(start, start + chunkTokens), count };
      parts.push(tidy(() => topOfChunk(scoring, states, chunk)));
    }
    return {
      topIds: cat(parts.map(({ topIds }) => topIds)),
      topLogprobs: cat(parts.map(({ topLogprobs }) => topLogprobs)),
    };
  });
}

function topOfChunk(
  { model, temperature, dtype, supports }: Scoring,
  states: Tensor,
  { places, count }: { places: readonly number[]; count: number },
): TopTokens {
  const index = tensor(Float64Array.from(places), { dtype: 'int64', device: model.device });
  const logits = model.lmHead(states.detach().indexSelect(0, index)); // no part of the loss
  const outside =
    supports &&
    outsideSupports(
      logits,
      places.map((place) => supports[place] ?? null),
    );
  const kept = outside ? logits.maskedFill(outside, -Infinity) : logits;
  // The order is that of the logits, whatever their dtype and the temperature: only k of each are widened and divided.
  const { values, indices } = kept.topk(count);
  const first = indices.select(1, 0);
  const { normalizers } = scoreTokens(kept, first, { temperature, withEntropy: false });
  const scaled = values.to(dtype).div(temperature);
  return { topIds: indices, topLogprobs: scaled.sub(normalizers.to(dtype).unsqueeze(1)) };
}

/** Where the tokens of the rows stand among those of all rows. */
function placesOf(rows: readonly number[], { promptLengths, lengths }: Lengths): number[] {
  const counts = lengths.map((length, row) => length - (promptLengths[row] ?? 0));
  const starts: number[] = [];
  counts.reduce((sum, count) => (starts.push(sum), sum + count), 0);
  return rows.flatMap((row) => {
    const start = starts[row];
    if (start === undefined)
      throw new ValueRangeError(
        `tokenLogprobs: expected topTokens.rows from 0 to ${counts.length - 1}, received ${row}.`,
      );
    return Array.from({ length: counts[row] ?? 0 }, (_, at) => start + at);
  });
}
