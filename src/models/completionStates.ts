/**
 * Which hidden state precedes which completion token: what log-probabilities and values of completions are read from.
 * Internal to this folder.
 */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { assertRank, ones, tensor, tidy, zeros, type Dtype, type Tensor } from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import { continuedPlaces, planContinuation, type ContinuationPlan } from './continuation.js';
import { frequenciesDependOnLength } from './decoder.js';
import { rowEnds } from './rowEnds.js';

/** Sequences of prompt and completion. Row i is prompt ⊕ completion without a gap, then padding. */
export interface CompletionRows {
  /**
   * [B, L] int64, or fewer lines where rows are packed. What stands beyond a row's length must be some id of the
   * vocabulary and changes nothing.
   */
  readonly inputIds: Tensor;
  /** B numbers of at least 1: tokens of the prompt. A token needs something before it to be predicted from. */
  readonly promptLengths: readonly number[];
  /** B numbers from promptLengths[i] to L: tokens of prompt and completion together. */
  readonly lengths: readonly number[];
  /** Where the rows stand when a line of `inputIds` holds several of them. What is computed of a row stays the same. */
  readonly packed?: PackedRows | undefined;
  /**
   * B numbers: rows with the same one begin with the same prompt, which is then computed once. What is computed of a row
   * stays the same, to rounding. Not together with `packed`.
   */
  readonly sharedPrompts?: readonly number[] | undefined;
}

/** Rows side by side in the lines of one tensor. */
export interface PackedRows {
  /** [lines, L], like `inputIds`: see `CausalLmInput`. */
  readonly sequenceIds: Tensor;
  /** Of each of the B rows: its line, and the column of its first token. */
  readonly places: readonly RowPlace[];
}

/** Where a row begins. */
export interface RowPlace {
  readonly line: number;
  readonly start: number;
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
  const { rows, width, end, places, targets, predictors } = layoutOf(where, input);
  const { device } = model;
  const dtype = scoreDtype(model);
  const place = indexOf(places, device);
  const spread = (flat: Tensor): Tensor =>
    tidy(() =>
      zeros([rows * width], { dtype, device })
        .scatter(0, place, flat)
        .view([rows, width]),
    );
  const plan = planOf(model, input);
  return {
    count: places.length,
    states: plan ? sharedStates(model, input, plan) : ownStates(model, input, { end, predictors }),
    targets: indexOf(targets, device),
    dtype,
    spread,
    mask: spread(ones([places.length], { dtype, device })),
  };
}

function indexOf(values: readonly number[], device: string): Tensor {
  return tensor(Float64Array.from(values), { dtype: 'int64', device });
}

/** The states before the tokens, every row computed by itself. */
function ownStates(
  model: CausalLm,
  input: CompletionRows,
  { end, predictors }: Pick<Layout, 'end' | 'predictors'>,
): Tensor {
  // The last token of a row predicts nothing that is asked for.
  const columns = Math.max(1, end - 1);
  const used = (ids: Tensor): Tensor => ids.narrow(1, 0, columns);
  const ends = rowEnds(
    model,
    [input.inputIds.size(0), columns],
    input.lengths.map((length, row) => {
      const { line, start } = input.packed?.places[row] ?? { line: row, start: 0 };
      return { line, start, length: Math.max(1, length - 1) };
    }),
  );
  return model
    .hiddenStates({
      inputIds: used(input.inputIds),
      sequenceIds: ends ?? (input.packed && used(input.packed.sequenceIds)),
    })
    .flatten(0, 1)
    .indexSelect(0, indexOf(predictors, model.device));
}

/** The same where every prompt is computed once. */
function sharedStates(model: CausalLm, input: CompletionRows, plan: ContinuationPlan): Tensor {
  const { device } = model;
  const { sources, predictors } = continuedPlaces(plan, input, input.inputIds.size(1));
  const ids = input.inputIds.to({ device }).flatten().indexSelect(0, indexOf(sources, device));
  return model
    .continuedStates({ inputIds: ids, prompts: plan.prompts, parts: plan.parts })
    .indexSelect(0, indexOf(predictors, device));
}

function planOf(model: CausalLm, input: CompletionRows): ContinuationPlan | null {
  const { sharedPrompts, promptLengths, lengths, packed } = input;
  if (!sharedPrompts || packed || frequenciesDependOnLength(model.config)) return null;
  return planContinuation({ promptLengths, lengths, sharedPrompts });
}

/** The dtype of what is computed from a model's states: at least float32. */
export function scoreDtype({ dtype }: CausalLm): Dtype {
  return dtype === 'float64' ? 'float64' : 'float32';
}

interface Layout {
  readonly rows: number;
  /** T */
  readonly width: number;
  /** Columns that hold a token: of the longest line. */
  readonly end: number;
  /** Of every completion token: where it goes in the flattened [B, T] … */
  readonly places: readonly number[];
  /** … where it stands in the flattened [B, L] … */
  readonly targets: readonly number[];
  /** … and where the hidden state that predicts it stands in the flattened [B, end − 1]. */
  readonly predictors: readonly number[];
}

function layoutOf(
  where: string,
  { inputIds, promptLengths, lengths, packed, sharedPrompts }: CompletionRows,
): Layout {
  assertRank(where, '[B, L]', { inputIds });
  const [lines, columns] = [inputIds.size(0), inputIds.size(1)];
  const placed = packed?.places ?? lengths.map((_, line): RowPlace => ({ line, start: 0 }));
  const rows = packed === undefined ? lines : placed.length;
  if (promptLengths.length !== rows || lengths.length !== rows)
    throw new ShapeError(
      `${where}: expected ${rows} promptLengths and lengths, one per ${packed ? 'packed row' : 'row of inputIds'}, received ${promptLengths.length} and ${lengths.length}.`,
    );
  if (sharedPrompts && (packed || sharedPrompts.length !== rows))
    throw new ShapeError(
      `${where}: expected ${rows} sharedPrompts, one per row, and no packed rows, received ${sharedPrompts.length}${packed ? ' for packed rows' : ''}.`,
    );
  placed.forEach(({ line, start }, row) => {
    const fits = Number.isInteger(line) && line >= 0 && line < lines;
    if (!fits || !Number.isInteger(start) || start < 0 || start >= columns)
      throw new ValueRangeError(
        `${where}: expected packed.places[${row}] in ${lines} lines of ${columns} tokens, received line ${line}, start ${start}.`,
      );
  });
  lengths.forEach((length, row) => {
    const prompt = promptLengths[row] ?? 0;
    const most = columns - (placed[row]?.start ?? 0);
    const fits = Number.isInteger(prompt) && Number.isInteger(length);
    if (!fits || prompt < 1 || length < prompt || length > most)
      throw new ValueRangeError(
        `${where}: expected 1 ≤ promptLengths[${row}] ≤ lengths[${row}] ≤ ${most}, received ${prompt} and ${length}.`,
      );
  });
  const lengthOfPrompt = new Map<number, number>();
  sharedPrompts?.forEach((prompt, row) => {
    const length = promptLengths[row] ?? 0;
    const first = lengthOfPrompt.get(prompt) ?? length;
    lengthOfPrompt.set(prompt, first);
    if (length !== first)
      throw new ValueRangeError(
        `${where}: expected rows with sharedPrompts ${prompt} to begin with the same prompt of ${first} tokens, received promptLengths[${row}] of ${length}.`,
      );
  });
  const end = Math.max(...lengths.map((length, row) => length + (placed[row]?.start ?? 0)));
  const width = Math.max(...lengths.map((length, row) => length - (promptLengths[row] ?? 0)));
  const places: number[] = [];
  const targets: number[] = [];
  const predictors: number[] = [];
  lengths.forEach((length, row) => {
    const prompt = promptLengths[row] ?? 0;
    const { line, start } = placed[row] ?? { line: row, start: 0 };
    for (let position = prompt; position < length; position++) {
      places.push(row * width + position - prompt);
      targets.push(line * columns + start + position);
      predictors.push(line * (end - 1) + start + position - 1);
    }
  });
  return { rows, width, end, places, targets, predictors };
}
