import {
  attendAfter,
  attendPrompted,
  cat,
  ones,
  scaledDotProductAttention,
  type Tensor,
} from '../torch/index.js';
import type { LayerNorm } from './layerNorm.js';
import { readNormalised, type Linear, type NamedLinear } from './linear.js';
import { Module } from './module.js';
import type { RMSNorm } from './rmsNorm.js';
import { applyRope, type Rotation } from './rope.js';

/** The parts of one attention layer. */
export interface AttentionParts {
  /** width → queries, keys and values, H·D, Hkv·D and Hkv·D numbers: three layers in this order, or one that has all. */
  readonly projections: readonly NamedLinear[];
  /** [width, H·D] */
  readonly output: NamedLinear;
  /** Normalises each query head over D before the rotation (Qwen3, Gemma 3); null without. */
  readonly qNorm: RMSNorm | null;
  /** The same for keys. */
  readonly kNorm: RMSNorm | null;
}

/** How an attention layer computes its scores. */
export interface ScoreOptions {
  /** Multiplies q·k. */
  readonly scale: number;
  /** c: scores become c·tanh(score/c), which lies between −c and c (Gemma 2); null leaves them as they are. */
  readonly softcap: number | null;
}

/** The sizes of an attention layer. */
export interface AttentionSettings extends ScoreOptions {
  /** H */
  readonly numHeads: number;
  /** Hkv */
  readonly numKeyValueHeads: number;
  /** D */
  readonly headDim: number;
}

/**
 * What stands in x [N, width] where several rows continue the same prompt: P prompts of Lp columns, then the parts, each
 * B rows of T columns. Padding stands at the right of a prompt and of a row.
 */
export interface SharedPrompts {
  readonly prompts: {
    /** P */
    readonly rows: number;
    /** Lp */
    readonly columns: number;
    /** [1, 1, Lp, Lp] bool, true where a query may look; without it every query looks at itself and what is before it. */
    readonly mask: Tensor | null;
    /** Of each prompt, without its padding. */
    readonly lengths: readonly number[];
  };
  readonly parts: readonly PromptedRows[];
}

/** Rows of nearly the same length, each of which continues a prompt. */
export interface PromptedRows {
  /** B */
  readonly rows: number;
  /** T */
  readonly columns: number;
  /** [B]: which of the P prompts each row continues. */
  readonly promptOf: readonly number[];
  /** Null where every query looks at its whole prompt and at its row up to itself, and `attendPrompted` computes that. */
  readonly masked: {
    /** [B or 1, 1, T, Lp + T] 0 where a query may look, −∞ elsewhere; the prompt's columns come first. */
    readonly mask: Tensor;
    /** `promptOf`, [B] int64. */
    readonly promptOf: Tensor;
  } | null;
}

/**
 * Causal self-attention, in which H/Hkv query heads share one head of keys and values.
 *
 * Source: Ainslie et al. 2023 (grouped-query attention), arXiv:2305.13245.
 */
export class Attention extends Module {
  readonly projections: readonly Linear[];
  readonly output: Linear;
  readonly qNorm: RMSNorm | null;
  readonly kNorm: RMSNorm | null;
  readonly settings: AttentionSettings;

  constructor(parts: AttentionParts, settings: AttentionSettings) {
    super();
    this.projections = parts.projections.map(([name, layer]) => this.child(name, layer));
    this.output = this.child(...parts.output);
    this.qNorm = parts.qNorm && this.child('q_norm', parts.qNorm);
    this.kNorm = parts.kNorm && this.child('k_norm', parts.kNorm);
    this.settings = settings;
  }

  /**
   * @param x [B, L, width], or [N, width] with shared prompts
   * @param rotation of the L or N positions; null where positions are not rotary
   * @param sight [B or 1, 1, L, L] bool, true where a query may look; null: every query looks at itself and what is
   *   before it; or the prompts that rows share
   * @param norm what normalises x before; null for nothing
   * @returns the shape of x
   */
  forward(
    x: Tensor,
    rotation: Rotation | null,
    sight: Tensor | null | SharedPrompts,
    norm: RMSNorm | LayerNorm | null = null,
  ): Tensor {
    const lead = x.shape.slice(0, -1);
    const [q, k, v] = this.project(x, norm).map((projected) =>
      projected.view([...lead, -1, this.settings.headDim]),
    ) as [Tensor, Tensor, Tensor];
    const placed = (heads: Tensor, norm: RMSNorm | null): Tensor => {
      const normed = norm?.forward(heads) ?? heads;
      return rotation === null ? normed : applyRope(normed, rotation);
    };
    const [query, key] = [placed(q, this.qNorm), placed(k, this.kNorm)];
    if (sight !== null && 'parts' in sight) {
      const blocks = attendShared(query, key, v, { sight, ...this.scoring });
      // Block by block, since the output layer keeps what it reads, and put together that would be a second copy. An adapter
      // computes something of its own at every call.
      return this.output.lora === null
        ? cat(blocks.map((block) => this.output.forward(block)))
        : this.output.forward(cat(blocks));
    }
    const attended = attend(query.transpose(1, 2), key.transpose(1, 2), v.transpose(1, 2), {
      ...{ mask: sight, causal: sight === null },
      ...this.scoring,
    });
    return this.output.forward(attended.transpose(1, 2).reshape([...lead, -1]));
  }

  private get scoring(): ScoreOptions {
    const { scale, softcap } = this.settings;
    return { scale, softcap };
  }

  /** [..., width] → queries [..., H·D], keys and values [..., Hkv·D]. */
  private project(x: Tensor, norm: RMSNorm | LayerNorm | null): Tensor[] {
    const { numHeads, numKeyValueHeads, headDim } = this.settings;
    const outputs = readNormalised(x, norm, this.projections);
    const [all] = outputs;
    if (all === undefined || outputs.length > 1) return outputs;
    const keys = numKeyValueHeads * headDim;
    return all.split([numHeads * headDim, keys, keys], -1);
  }
}

/**
 * What each query reads from the values.
 *
 *     softmax(cap(scale · q·kᵀ) + mask) · v
 *
 * @param query [B, H, Lq, D]
 * @param key [B, Hkv, Lk, D]
 * @param value [B, Hkv, Lk, D]
 * @param options.mask broadcasts to [B, 1, Lq, Lk]: bool, true where a query may look; or float, added to the scores
 * @param options.causal query i looks at keys 0 … i; instead of a mask
 * @returns [B, H, Lq, D]
 */
export function attend(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: ScoreOptions & { mask: Tensor | null; causal?: boolean },
): Tensor {
  const { mask, causal = false, scale, softcap } = options;
  if (softcap === null)
    return scaledDotProductAttention(query, key, value, {
      ...(mask === null ? { causal } : { mask }),
      scale,
      // Without repeating keys and values the CPU's fused kernel gives the same bits and a backward pass twice as fast.
      groupedQuery: query.size(1) !== key.size(1),
    });
  const [batch, heads, queries, dim] = query.shape as [number, number, number, number];
  const keyHeads = key.size(1);
  const grouped = query.reshape([batch, keyHeads, heads / keyHeads, queries, dim]);
  const scores = grouped.matmul(key.unsqueeze(2).transpose(-1, -2)).mul(scale);
  const capped = scores.div(softcap).tanh().mul(softcap);
  const visible = causal ? causalMask(queries, query.device) : mask;
  const dtype = query.dtype === 'float64' ? 'float64' : 'float32';
  const weights = masked(capped, visible).softmax(-1, { dtype }).to(query.dtype);
  return weights.matmul(value.unsqueeze(2)).reshape([batch, heads, queries, dim]);
}

/**
 * Attention of rows that share prompts: the keys and values of a prompt are computed once and read by each of its rows.
 *
 * @param query [N, H, D]
 * @param key [N, Hkv, D]
 * @param value [N, Hkv, D]
 * @returns [n, H·D] of the prompts, then of each part, N rows together
 */
function attendShared(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  { sight, ...scoring }: ScoreOptions & { sight: SharedPrompts },
): Tensor[] {
  const { prompts, parts } = sight;
  let start = 0;
  /** The heads of the next rows, [rows, heads, columns, D]. */
  const next = ({ rows, columns }: { rows: number; columns: number }): Tensor[] => {
    const block = [query, key, value].map((heads) =>
      heads
        .narrow(0, start, rows * columns)
        .view([rows, columns, heads.size(1), heads.size(2)])
        .transpose(1, 2),
    );
    start += rows * columns;
    return block;
  };
  const flat = (attended: Tensor): Tensor => attended.transpose(1, 2).flatten(0, 1).flatten(1);
  const [q, promptKeys, promptValues] = next(prompts) as [Tensor, Tensor, Tensor];
  const { mask } = prompts;
  const ofPrompts = attend(q, promptKeys, promptValues, {
    mask,
    causal: mask === null,
    ...scoring,
  });
  const ofParts = parts.map((part) => {
    const [own, keys, values] = next(part) as [Tensor, Tensor, Tensor];
    const ofPrompt = { keys: promptKeys, values: promptValues };
    const { scale, softcap } = scoring;
    if (part.masked === null) {
      const options = { promptOf: part.promptOf, lengths: prompts.lengths, scale };
      return flat(attendPrompted(own, ofPrompt, { keys, values }, options));
    }
    const [mask, { promptOf }] = [part.masked.mask.to(own.dtype), part.masked];
    if (softcap === null)
      return flat(attendAfter(own, ofPrompt, promptOf, { keys, values }, { mask, scale }));
    const after = (before: Tensor, heads: Tensor): Tensor =>
      cat([before.indexSelect(0, promptOf), heads], 2);
    const [seenKeys, seenValues] = [after(promptKeys, keys), after(promptValues, values)];
    return flat(attend(own, seenKeys, seenValues, { mask, scale, softcap }));
  });
  return [flat(ofPrompts), ...ofParts];
}

/** @param scores [B, Hkv, G, Lq, Lk] */
function masked(scores: Tensor, mask: Tensor | null): Tensor {
  if (mask === null) return scores;
  const perGroup = mask.unsqueeze(2);
  return mask.dtype === 'bool'
    ? scores.maskedFill(perGroup.logicalNot(), -Infinity)
    : scores.add(perGroup);
}

function causalMask(length: number, device: string): Tensor {
  return ones([length, length], { dtype: 'bool', device }).tril().unsqueeze(0).unsqueeze(0);
}
