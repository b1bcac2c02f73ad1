/** What a decoder computes for one new token per row on the CPU, in few calls: native/src/decode.cpp and draw.cpp. */
import * as aten from './operators.generated.js';
import { optionalSlot, wrap, type Tensor } from './tensor.js';

/** A matrix product's frozen weight: plain [out, in] or from `packLinearWeight`; float32 or bfloat16. */
export interface FrozenWeight {
  readonly weight: Tensor;
  /** [out] */
  readonly bias: Tensor | null;
}

/** How a layer's halves normalise: x/√(mean(x²) + eps) · weight. Weights are float32. */
export interface DecodeNorms {
  /** Of what is read, [D]. */
  readonly input: Tensor;
  /** Of what was computed, before it is added, [D]; null where a family has none. */
  readonly output: Tensor | null;
  readonly eps: number;
  /** Whether a value is rounded to its dtype after it was scaled, or before. */
  readonly roundsLast: boolean;
}

/** The attention of one layer. */
export interface AttentionWeights {
  readonly norms: DecodeNorms;
  /** Of each head's queries and keys, [d] float32; null where a family has none. */
  readonly queryNorm: Tensor | null;
  readonly keyNorm: Tensor | null;
  /** D → (H + 2·Hkv)·d: queries and keys in pair order, values. */
  readonly queryKeyValue: FrozenWeight;
  readonly output: FrozenWeight;
  readonly scale: number;
  readonly softcap: number | null;
}

/** Columns that rows share: the keys and values of their prompts. */
export interface SharedColumns {
  /** [P, Hkv, L, d] */
  readonly keys: Tensor;
  readonly values: Tensor;
  /** [P, L] float32, added to the scores. */
  readonly mask: Tensor | null;
  /** [B] int32: the prompt of each row. */
  readonly rows: Tensor;
}

/** Where the new token stands and what it sees. */
export interface DecodePlace {
  /** [B or 1, R] float32: cos θ, sin θ, … of each pair of neighbours; null where nothing turns. */
  readonly turns: Tensor | null;
  /** What stands before all columns of a row's own; null where nothing does. */
  readonly shared: SharedColumns | null;
  /** [B, Hkv, capacity, d], as keys and values in the dtype of the weights; written at `column`. */
  readonly keys: Tensor;
  readonly values: Tensor;
  /** [B, capacity] float32, added to the scores. */
  readonly mask: Tensor | null;
  readonly column: number;
  /** The first column that is seen, shared ones counted before the row's own. */
  readonly first: number;
}

/**
 * hidden + output(attention(norm(hidden))) for one new token per row.
 *
 * @param hidden [B, D] float32 or bfloat16
 * @returns [B, D], the dtype of hidden
 * @throws NativeError for other shapes, dtypes and devices, and where a gradient would be recorded: there is none
 */
export function decodeAttention(
  hidden: Tensor,
  weights: AttentionWeights,
  place: DecodePlace,
): Tensor {
  const { norms, queryNorm, keyNorm, queryKeyValue, output, scale, softcap } = weights;
  const where = 'decodeAttention';
  return wrap(
    aten.posttrainDecodeAttention(
      hidden.slot,
      norms.input.slot,
      queryKeyValue.weight.slot,
      optionalSlot(where, 'bias', queryKeyValue.bias),
      optionalSlot(where, 'queryNorm', queryNorm),
      optionalSlot(where, 'keyNorm', keyNorm),
      output.weight.slot,
      optionalSlot(where, 'bias', output.bias),
      optionalSlot(where, 'output', norms.output),
      norms.eps,
      norms.roundsLast,
      optionalSlot(where, 'turns', place.turns),
      place.keys.slot,
      place.values.slot,
      optionalSlot(where, 'mask', place.mask),
      optionalSlot(where, 'keys', place.shared?.keys),
      optionalSlot(where, 'values', place.shared?.values),
      optionalSlot(where, 'mask', place.shared?.mask),
      optionalSlot(where, 'rows', place.shared?.rows),
      place.column,
      place.first,
      scale,
      softcap ?? 0,
    ),
  );
}

/** The feed-forward half of one layer. */
export interface MlpWeights {
  readonly norms: DecodeNorms;
  /** D → 2·I, the rows of gate and of up, or D → I. */
  readonly input: FrozenWeight;
  /** I → D */
  readonly output: FrozenWeight;
  readonly gated: boolean;
  readonly activation: 'silu' | 'geluTanh';
}

/**
 * hidden + output(act(gate(x)) · up(x)) with x = norm(hidden); not gated, hidden + output(act(input(x))).
 *
 * @param hidden [B, D] float32 or bfloat16
 * @returns [B, D], the dtype of hidden
 * @throws NativeError for other shapes, dtypes and devices, and where a gradient would be recorded: there is none
 */
export function decodeMlp(hidden: Tensor, weights: MlpWeights): Tensor {
  const { norms, input, output, gated, activation } = weights;
  const where = 'decodeMlp';
  return wrap(
    aten.posttrainDecodeMlp(
      hidden.slot,
      norms.input.slot,
      input.weight.slot,
      optionalSlot(where, 'bias', input.bias),
      output.weight.slot,
      optionalSlot(where, 'bias', output.bias),
      optionalSlot(where, 'output', norms.output),
      norms.eps,
      norms.roundsLast,
      gated,
      activation === 'geluTanh',
    ),
  );
}

/**
 * A token per row, drawn by inverting the cumulative distribution of softmax(logits / temperature).
 *
 * @param logits [B, V] float32 or bfloat16 on the CPU
 * @param uniforms [B] float64 in (0, 1)
 * @param temperature 0 takes the first of the largest logits, and its log-probability under softmax(logits)
 * @returns [2, B] float64: ids, and the natural logs of their probabilities; NaN for a row without a finite distribution
 * @throws NativeError for other shapes, dtypes and devices, and where a gradient would be recorded: there is none
 */
export function drawRows(logits: Tensor, uniforms: Tensor, temperature: number): Tensor {
  return wrap(aten.posttrainDrawRows(logits.slot, uniforms.slot, temperature));
}
