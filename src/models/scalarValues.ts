/** What a scalar head reads from sequences: a value before every completion token, a score of the whole. */
import { ShapeError } from '../errors/index.js';
import { assertRank, tensor, tidy, type Tensor } from '../torch/index.js';
import type { CausalLm } from './causalLm.js';
import { completionStates, scoreDtype, type CompletionRows } from './completionStates.js';
import { readScalars, type ShiftedHead } from './scalarHead.js';
import { rowEnds } from './rowEnds.js';
import { checkRowLengths } from './rowLengths.js';

/** A trunk and a head on its states: a `ScalarModel`, or a policy beside its value head. */
export interface ScalarParts extends ShiftedHead {
  readonly trunk: CausalLm;
}

/** What `tokenValues` returns. T is the longest completion. */
export interface TokenValues {
  /** [B, T] V of the state before token t, exactly 0 beyond a row's completion. float32, float64 for a float64 model. */
  readonly values: Tensor;
  /** [B, T] 1 at tokens of the completion, 0 beyond; the dtype of `values`. */
  readonly mask: Tensor;
}

/**
 * The value of the state before every completion token.
 *
 *     values[i][t] = head(h[i][p − 1]) + scoreShift,  p = promptLengths[i] + t
 *
 * The action is the token at p, so its state is everything before it: reading V at p would let it see what it is to
 * judge. The value of the state after the last token, which bootstrapping a truncated completion needs, is what
 * `sequenceScores` gives.
 *
 * @returns gradients flow to trunk and head
 * @throws ShapeError unless the inputs fit together; ValueRangeError for a length out of range
 */
export function tokenValues(parts: ScalarParts, input: CompletionRows): TokenValues {
  const { trunk } = parts;
  return tidy(() => {
    const { states, dtype, spread, mask } = completionStates('tokenValues', trunk, input);
    return { values: spread(readScalars('tokenValues', parts, states, dtype)), mask };
  });
}

/** What `sequenceScores` reads. */
export interface SequenceRows {
  /** [B, L] int64. What stands beyond a row's length must be some id of the vocabulary and changes nothing. */
  readonly inputIds: Tensor;
  /** B numbers from 1 to L: tokens of each row, which begins at the left. */
  readonly lengths: readonly number[];
}

/**
 * What the head reads at the last token of every row: the score of a reward model, and equally V of the state after the
 * last token.
 *
 *     scores[i] = head(h[i][lengths[i] − 1]) + scoreShift
 *
 * The last token is found by length. A search for the padding token would stop short where it also ends a text.
 *
 * @returns [B] float32, float64 for a float64 model; gradients flow to trunk and head
 * @throws ShapeError unless the inputs fit together; ValueRangeError for a length out of range
 */
export function sequenceScores(parts: ScalarParts, { inputIds, lengths }: SequenceRows): Tensor {
  const { trunk } = parts;
  assertRank('sequenceScores', '[B, L]', { inputIds });
  const [rows, columns] = [inputIds.size(0), inputIds.size(1)];
  if (lengths.length !== rows)
    throw new ShapeError(
      `sequenceScores: expected ${rows} lengths, one per row of inputIds, received ${lengths.length}.`,
    );
  checkRowLengths('sequenceScores', lengths, columns, trunk.config);
  const longest = Math.max(...lengths);
  const last = lengths.map((length, row) => row * longest + length - 1);
  return tidy(() => {
    const index = tensor(Float64Array.from(last), { dtype: 'int64', device: trunk.device });
    const spans = lengths.map((length, line) => ({ line, start: 0, length }));
    const states = trunk.hiddenStates({
      inputIds: inputIds.narrow(1, 0, longest),
      sequenceIds: rowEnds(trunk, [rows, longest], spans),
    });
    const ends = states.flatten(0, 1).indexSelect(0, index);
    return readScalars('sequenceScores', parts, ends, scoreDtype(trunk));
  });
}
