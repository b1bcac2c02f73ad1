/**
 * Which hidden state precedes which completion token: what log-probabilities and values of completions are read from.
 * Internal to this folder.
 */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { assertRank, ones, tensor, tidy, zeros, type Dtype, type Tensor } from '../torch/index.js';
import type { CausalLm } from './causalLm.js';

/** Sequences of prompt and completion. Row i is prompt ⊕ completion without a gap, then padding. */
export interface CompletionRows {
  /** [B, L] int64. What stands beyond a row's length must be some id of the vocabulary and changes nothing. */
  readonly inputIds: Tensor;
  /** B numbers of at least 1: tokens of the prompt. A token needs something before it to be predicted from. */
  readonly promptLengths: readonly number[];
  /** B numbers from promptLengths[i] to L: tokens of prompt and completion together. */
  readonly lengths: readonly number[];
}

/** The completion tokens of a batch, one after the other, N in all, and the states before them. */
export interface CompletionStates {
  readonly count: number;
  /** [N, D] The hidden state before each token. Gradients flow into the model. */
  readonly states: Tensor;
  /** [N] int64: where each token stands in the flattened `inputIds`. */
  readonly targets: Tensor;
  /** Of everything that is computed from the states: float64 for a float64 model, else float32. */
  readonly dtype: Dtype;
  /** [N] → [B, T], exactly 0 where there is no token. */
  readonly spread: (flat: Tensor) => Tensor;
  /** [B, T] */
  readonly mask: Tensor;
}

/**
 * Runs a model up to the hidden state before every completion token. Called in a `tidy`.
 *
 * @param where the function whose input this is
 * @throws ShapeError unless the input fits together; ValueRangeError for a length out of range
 */
export function completionStates(
  where: string,
  model: CausalLm,
  input: CompletionRows,
): CompletionStates {
  const { rows, width, longest, places, targets, predictors } = layoutOf(where, input);
  const { device } = model;
  const dtype = scoreDtype(model);
  const index = (values: readonly number[]): Tensor =>
    tensor(Float64Array.from(values), { dtype: 'int64', device });
  const place = index(places);
  const spread = (flat: Tensor): Tensor =>
    tidy(() =>
      zeros([rows * width], { dtype, device })
        .scatter(0, place, flat)
        .view([rows, width]),
    );
  // The last token of the longest row predicts nothing that is asked for.
  const used = input.inputIds.narrow(1, 0, Math.max(1, longest - 1));
  return {
    count: places.length,
    states: model.hiddenStates({ inputIds: used }).flatten(0, 1).indexSelect(0, index(predictors)),
    targets: index(targets),
    dtype,
    spread,
    mask: spread(ones([places.length], { dtype, device })),
  };
}

/** The dtype of what is computed from a model's states: at least float32. */
export function scoreDtype({ dtype }: CausalLm): Dtype {
  return dtype === 'float64' ? 'float64' : 'float32';
}

interface Layout {
  readonly rows: number;
  /** T */
  readonly width: number;
  /** Tokens of the longest row. */
  readonly longest: number;
  /** Of every completion token: where it goes in the flattened [B, T] … */
  readonly places: readonly number[];
  /** … where it stands in the flattened [B, L] … */
  readonly targets: readonly number[];
  /** … and where the hidden state that predicts it stands in the flattened [B, longest − 1]. */
  readonly predictors: readonly number[];
}

function layoutOf(where: string, { inputIds, promptLengths, lengths }: CompletionRows): Layout {
  assertRank(where, '[B, L]', { inputIds });
  const [rows, columns] = [inputIds.size(0), inputIds.size(1)];
  if (promptLengths.length !== rows || lengths.length !== rows)
    throw new ShapeError(
      `${where}: expected ${rows} promptLengths and lengths, one per row of inputIds, received ${promptLengths.length} and ${lengths.length}.`,
    );
  lengths.forEach((length, row) => {
    const prompt = promptLengths[row] ?? 0;
    const fits = Number.isInteger(prompt) && Number.isInteger(length);
    if (!fits || prompt < 1 || length < prompt || length > columns)
      throw new ValueRangeError(
        `${where}: expected 1 ≤ promptLengths[${row}] ≤ lengths[${row}] ≤ ${columns}, received ${prompt} and ${length}.`,
      );
  });
  const longest = Math.max(...lengths);
  const width = Math.max(...lengths.map((length, row) => length - (promptLengths[row] ?? 0)));
  const places: number[] = [];
  const targets: number[] = [];
  const predictors: number[] = [];
  lengths.forEach((length, row) => {
    const prompt = promptLengths[row] ?? 0;
    for (let position = prompt; position < length; position++) {
      places.push(row * width + position - prompt);
      targets.push(row * columns + position);
      predictors.push(row * (longest - 1) + position - 1);
    }
  });
  return { rows, width, longest, places, targets, predictors };
}
