/**
 * Rows of tokens between the sampler and the losses. They are plain numbers: a row can be scored, sorted, logged and put
 * into any micro-batch, and becomes tensors only for the pass that needs it.
 */
import { tokenWeights, type LossReduction } from '../algorithms/index.js';
import type { GrpoConfig } from '../config/index.js';
import {
  sequenceScores,
  tokenLogprobs,
  tokenValues,
  whileAwake,
  type CausalLm,
  type Decoder,
  type PackedRows,
  type ScalarParts,
} from '../models/index.js';
import { noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { alternativesOf, type Alternatives } from './alternatives.js';
import { microBatches, promptNumbers, type BatchOptions } from './microBatches.js';

/** A prompt and its completion. */
export interface TokenRow {
  readonly promptIds: readonly number[];
  /** Not empty. What an environment wrote in between is part of it. */
  readonly completionIds: readonly number[];
  /** 1 where the model drew the token, 0 where an environment wrote it; all are the model's when omitted. */
  readonly completionMask?: readonly number[] | undefined;
  /** Where sampling was truncated: the tokens that were left at each step, null at tokens that were not drawn. */
  readonly supports?: readonly (Int32Array | null)[] | undefined;
}

/** Rows as tensors: prompt and completion side by side, padding at the right. */
export interface TokenTensors {
  /** [B, L] int64 */
  readonly inputIds: Tensor;
  readonly promptLengths: readonly number[];
  /** Prompt and completion together. */
  readonly lengths: readonly number[];
  /** T: the longest completion. */
  readonly columns: number;
  /** See `TokenRow`; present where a row has them. */
  readonly supports?: readonly (readonly (Int32Array | null)[] | undefined)[];
  /** Where the rows stand when a line of `inputIds` holds several of them. */
  readonly packed?: PackedRows;
  /** Rows with the same number begin with the same prompt. */
  readonly sharedPrompts?: readonly number[];
}

/** Rows as tensors. What fills the padding is never read: attention is causal and lengths are known. */
export function collate(rows: readonly TokenRow[], device: string): TokenTensors {
  const promptLengths = rows.map((row) => row.promptIds.length);
  const lengths = rows.map((row) => row.promptIds.length + row.completionIds.length);
  const width = Math.max(...lengths);
  const flat = new Int32Array(rows.length * width);
  rows.forEach(({ promptIds, completionIds }, index) => {
    flat.set(promptIds, index * width);
    flat.set(completionIds, index * width + promptIds.length);
  });
  const inputIds = tensor(flat, { shape: [rows.length, width], dtype: 'int64', device });
  const columns = Math.max(...rows.map((row) => row.completionIds.length));
  const shape = { inputIds, promptLengths, lengths, columns, sharedPrompts: promptNumbers(rows) };
  return rows.some(({ supports }) => supports)
    ? { ...shape, supports: rows.map(({ supports }) => supports) }
    : shape;
}

/** Tokens of a row that the model drew. */
export function drawnTokens({ completionIds, completionMask }: TokenRow): number {
  return completionMask?.reduce((sum, flag) => sum + flag, 0) ?? completionIds.length;
}

/**
 * One number per completion token as [B, T], 0 beyond a row's end.
 *
 * @param like gives T, dtype and device
 * @param valuesOf the numbers of a row, or one number for all of its tokens
 */
export function perToken<Row extends TokenRow>(
  rows: readonly Row[],
  like: Tensor,
  valuesOf: (row: Row) => readonly number[] | number,
): Tensor {
  const columns = like.size(1);
  const flat = new Float64Array(rows.length * columns);
  rows.forEach((row, index) => {
    const values = valuesOf(row);
    const start = index * columns;
    if (typeof values === 'number') flat.fill(values, start, start + row.completionIds.length);
    else flat.set(values, start);
  });
  return tensor(flat, { shape: [rows.length, columns], dtype: like.dtype, device: like.device });
}

/** The rows of a [B, T] tensor as arrays cut to each completion's length. */
export function rowsOf(values: Tensor, rows: readonly TokenRow[]): number[][] {
  const columns = values.size(1);
  const flat = values.detach().toTypedArray();
  return rows.map(({ completionIds }, index) =>
    Array.from(flat.subarray(index * columns, index * columns + completionIds.length)),
  );
}

/**
 * The weight of every completion token in the loss of a whole optimizer step. Rows that do not count weigh nothing and
 * still count as rows, see `tokenWeights`.
 *
 * @returns [B, T] float64, to be sliced with the rows
 */
export function lossWeights<Row extends TokenRow>(
  rows: readonly Row[],
  settings: ReductionSettings,
  { device, counts }: { device: string; counts: (row: Row) => boolean },
): Tensor {
  const columns = Math.max(...rows.map((row) => row.completionIds.length));
  return tidy(() =>
    tokenWeights(completionMask(rows, columns, counts, device), lossReduction(settings)),
  );
}

/** Settings that say how token losses become one number. */
export interface ReductionSettings extends Pick<GrpoConfig, 'reduction' | 'groupSize'> {
  readonly sampling: { readonly maxNewTokens: number };
}

function lossReduction({ reduction, groupSize, sampling }: ReductionSettings): LossReduction {
  if (reduction.kind === 'promptMean') return { ...reduction, groupSize };
  if (reduction.kind === 'constant') {
    return { ...reduction, budget: reduction.budget ?? sampling.maxNewTokens };
  }
  return reduction;
}

/**
 * The weights of some of the rows.
 *
 * @param weights [B, T] of the whole optimizer step
 * @param like [b, t] the log-probabilities of the rows; t may be smaller than T
 * @returns [b, t], the dtype of `like`
 */
export function weightsOfRows(weights: Tensor, indices: readonly number[], like: Tensor): Tensor {
  const places = tensor(Int32Array.from(indices), { device: weights.device });
  return weights.indexSelect(0, places).narrow(1, 0, like.size(1)).to(like.dtype);
}

/**
 * [B, T] float64, 1 at the tokens that the model drew, of rows that count.
 *
 * @param columns T
 */
export function completionMask<Row extends TokenRow>(
  rows: readonly Row[],
  columns: number,
  counts: (row: Row) => boolean,
  device = 'cpu',
): Tensor {
  const flat = new Float64Array(rows.length * columns);
  rows.forEach((row, index) => {
    if (!counts(row)) return;
    if (row.completionMask) flat.set(row.completionMask, index * columns);
    else flat.fill(1, index * columns, index * columns + row.completionIds.length);
  });
  return tensor(flat, { shape: [rows.length, columns], dtype: 'float64', device });
}

/**
 * Log-probabilities of the completions' tokens under a model that is not being trained here: the policy before the
 * updates, or the reference.
 *
 * @returns nats, one array per row
 */
export function logprobPass(
  model: Decoder,
  rows: readonly TokenRow[],
  options: { temperature: number; maxTokens: number },
): number[][] {
  const { temperature, maxTokens } = options;
  return pass(model, rows, { maxTokens }, (batch, part) =>
    rowsOf(tokenLogprobs(model, { ...batch, temperature }).logprobs, part),
  );
}

/**
 * The same with the most likely tokens at every place.
 *
 * @param options.alternatives how many; none where it is 0
 */
export function recordPass(
  model: Decoder,
  rows: readonly TokenRow[],
  options: { temperature: number; maxTokens: number; alternatives: number },
): { logprobs: readonly number[]; alternatives?: Alternatives | undefined }[] {
  const { temperature, maxTokens, alternatives: count } = options;
  return pass(model, rows, { maxTokens }, (batch, part) => {
    const topTokens = count === 0 ? undefined : { count, rows: [...part.keys()] };
    const scored = tokenLogprobs(model, { ...batch, temperature, topTokens });
    const alternatives = alternativesOf(scored, part);
    return rowsOf(scored.logprobs, part).map((logprobs, at) => ({
      logprobs,
      alternatives: alternatives?.[at],
    }));
  });
}

/**
 * The value of the state before every token of the completions.
 *
 * @returns one array per row
 */
export function valuePass(
  model: ScalarParts,
  rows: readonly TokenRow[],
  maxTokens: number,
): number[][] {
  return pass(model.trunk, rows, { maxTokens }, (batch, part) =>
    rowsOf(tokenValues(model, batch).values, part),
  );
}

/**
 * What a scalar model reads at the last token of every row: the score of a reward model, the value after the end of a
 * value model.
 */
export function scorePass(
  model: ScalarParts,
  rows: readonly TokenRow[],
  maxTokens: number,
): number[] {
  return pass(model.trunk, rows, { maxTokens, through: false }, (batch) =>
    Array.from(sequenceScores(model, batch).toTypedArray(), Number),
  );
}

/** One result per row from passes without a gradient over micro-batches. A model that rests is left at rest. */
function pass<Result>(
  model: CausalLm,
  rows: readonly TokenRow[],
  { maxTokens, through = [model] }: { maxTokens: number } & Pick<BatchOptions, 'through'>,
  compute: (batch: TokenTensors, part: readonly TokenRow[]) => readonly Result[],
): Result[] {
  const result: Result[] = [];
  whileAwake(model, () => {
    for (const indices of microBatches(rows, maxTokens, { through })) {
      const part = indices.map((index) => rows[index] as TokenRow);
      const values = noGrad(() =>
        tidy(() => ({ found: compute(collate(part, model.device), part) })),
      );
      indices.forEach((index, place) => {
        result[index] = values.found[place] as Result; // one per row
      });
    }
  });
  return result;
}

/**
 * Fills in `oldLogprobs` where they are not known yet. With one update per rollout the policy before the updates is that
 * of the update, whose own pass gives them, however old the weights are that drew the rows.
 */
export function rememberOldLogprobs(
  rows: readonly (TokenRow & { oldLogprobs: readonly number[] })[],
  logprobs: Tensor,
): void {
  if (rows.every((row) => row.oldLogprobs.length > 0)) return;
  const values = rowsOf(logprobs, rows);
  rows.forEach((row, index) => {
    row.oldLogprobs = values[index] ?? [];
  });
}
