/**
 * What libtorch computes in several passes over memory, in one on the CPU (native/src/gated.cpp, norm.cpp, rope.cpp, scores.cpp).
 * Other devices and dtypes get libtorch's own operators. Values agree to rounding.
 */
import * as aten from './operators.generated.js';
import { optionalSlot, wrap, type Tensor } from './tensor.js';

/** Of a gate: silu, or gelu by its tanh approximation. */
export type GateActivation = 'silu' | 'geluTanh';

/**
 * act(gate) · up. Keeps gate and up for its backward pass, nothing else.
 *
 * @param gate [..., I]; or [..., 2I], gate and up side by side, where `up` is null
 * @param up [..., I], or null
 * @returns [..., I]
 */
export function gatedActivation(
  gate: Tensor,
  up: Tensor | null,
  activation: GateActivation,
): Tensor {
  const second = optionalSlot('gatedActivation', 'up', up);
  return wrap(aten.posttrainGatedActivation(gate.slot, second, NAMES[activation]));
}

const NAMES = { silu: 'silu', geluTanh: 'gelu_tanh' } as const;

/** What normalises a layer's input: `rmsNorm` by a weight [D]. */
export interface NormFactors {
  readonly weight: Tensor;
  readonly eps: number;
}

/**
 * A whole feed-forward layer with a gate.
 *
 *     (act(h·gateᵀ) · (h·upᵀ)) · downᵀ,  h = rmsNorm(x), or x without a norm
 *
 * Keeps x, h·gateᵀ and h·upᵀ for its backward pass; h and the product are computed again, one pass over memory each. On the
 * CPU there is no gradient of its gradient: `grad` with `createGraph` is refused.
 *
 * @param x [..., D]
 * @param weights.gate [I, D]
 * @param weights.up [I, D]
 * @param weights.down [D', I]
 * @returns [..., D']
 */
export function gatedMlp(
  x: Tensor,
  weights: { readonly gate: Tensor; readonly up: Tensor; readonly down: Tensor },
  activation: GateActivation,
  norm: NormFactors | null = null,
): Tensor {
  const { gate, up, down } = weights;
  const [name, normSlot] = [NAMES[activation], optionalSlot('gatedMlp', 'norm', norm?.weight)];
  return wrap(
    aten.posttrainGatedMlp(x.slot, gate.slot, up.slot, down.slot, name, normSlot, norm?.eps ?? 0),
  );
}

/**
 * Several linear layers that read the same normalised input.
 *
 *     y = rmsNorm(x) · weightᵀ + bias, each
 *
 * Keeps x for its backward pass, and normalises it again. On the CPU in float32 and bfloat16 there is no gradient of its
 * gradient: `grad` with `createGraph` is refused.
 *
 * @param x [..., D]
 * @param layers.weight [I, D], which may differ in I
 * @param layers.bias [I]; all have one or none
 * @returns [..., I], as many as there are layers
 */
export function normLinears(
  x: Tensor,
  { weight, eps }: NormFactors,
  layers: readonly { readonly weight: Tensor; readonly bias: Tensor | null }[],
): Tensor[] {
  const weights = layers.map((layer) => layer.weight.slot);
  const biases = layers.flatMap(({ bias }) => (bias === null ? [] : [bias.slot]));
  return aten.posttrainNormLinears(x.slot, weight.slot, eps, weights, biases).map(wrap);
}

/**
 * Turns pairs of dimensions by their angles; what stands beyond the first R numbers of a head stays.
 *
 *     y[i] = x[i]·cos[i] − x[i + R/2]·sin[i];  y[i + R/2] = x[i + R/2]·cos[i + R/2] + x[i]·sin[i + R/2]
 *
 * @param x [..., L, H, D]
 * @param cos [..., L, 1, R]; no gradient flows to it on the CPU's fast path, which a constant takes
 * @param sin like cos
 * @returns the shape of x
 */
export function rotateHalf(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  return wrap(aten.posttrainRotateHalf(x.slot, cos.slot, sin.slot));
}

/** Keys and values of attention. */
export interface KeysAndValues {
  /** [., Hkv, L, D] */
  readonly keys: Tensor;
  /** like keys */
  readonly values: Tensor;
}

/**
 * What queries of rows read that share prompts: they look at keys of their prompt, and after those at keys of their own.
 *
 *     softmax(scale · q·kᵀ + mask) · v
 *
 * Where libtorch has its fused kernel for the CPU, keys and values are put together again for the backward pass, in place of
 * being kept once per row; there is no gradient of that gradient.
 *
 * @param query [B, H, Lq, D]; H/Hkv consecutive query heads share a key head
 * @param prompts [P, Hkv, L, D]
 * @param promptOf [B] int64: the prompt of each row
 * @param own [B, Hkv, Lq, D]
 * @param options.mask [B or 1, 1, Lq, L + Lq] added to the scores, of their dtype
 * @returns [B, H, Lq, D]
 */
export function attendAfter(
  query: Tensor,
  prompts: KeysAndValues,
  promptOf: Tensor,
  own: KeysAndValues,
  { mask, scale }: { mask: Tensor; scale: number },
): Tensor {
  return wrap(
    aten.posttrainAttendAfter(
      ...([query.slot, prompts.keys.slot, prompts.values.slot, promptOf.slot] as const),
      ...([own.keys.slot, own.values.slot, mask.slot, scale] as const),
    ),
  );
}

/**
 * What `attendAfter` gives where each token looks at its prompt, as long as it is, and at its row up to itself. Nothing is put
 * together or repeated, and rows of one prompt that stand beside each other read it in one product. There is no gradient of its
 * gradient.
 *
 * float32 on the CPU, or bfloat16, which is widened and rounded once.
 *
 * @param query [B, H, Lq, D]; H/Hkv consecutive query heads share a key head
 * @param prompts [P, Hkv, L, D]
 * @param options.promptOf B numbers: the prompt of each row
 * @param options.lengths P numbers: how many columns of each prompt are no padding
 * @param own [B, Hkv, Lq, D]
 * @returns [B, H, Lq, D]
 * @throws NativeError for another dtype or device, shapes that do not fit, and a prompt or length that is not there
 */
export function attendPrompted(
  query: Tensor,
  prompts: KeysAndValues,
  own: KeysAndValues,
  options: {
    readonly promptOf: readonly number[];
    readonly lengths: readonly number[];
    readonly scale: number;
  },
): Tensor {
  const { promptOf, lengths, scale } = options;
  return wrap(
    aten.posttrainAttendPrompted(
      ...([query.slot, prompts.keys.slot, prompts.values.slot, promptOf, lengths] as const),
      ...([own.keys.slot, own.values.slot, scale] as const),
    ),
  );
}

/** What `scoreTokens` finds in rows of logits. All [N], the dtype of the logits, or float32 of narrower ones. */
export interface TokenScores {
  /** nats */
  readonly logprobs: Tensor;
  /** nats; null unless asked for */
  readonly entropies: Tensor | null;
  /** log Σ e^z */
  readonly normalizers: Tensor;
}

/**
 * The log-probability of one token per row, and the entropy of the row's distribution. Not recorded for gradients; see
 * `scoreGradient_`.
 *
 *     z = logits/τ;  log p = z − log Σ e^z;  H = −Σ p·log p, where 0·log 0 = 0
 *
 * @param logits [N, V] −∞ where nothing may be drawn
 * @param targets [N] int64
 * @throws NativeError for other shapes, a target outside of 0 … V − 1, τ ≤ 0, and where a gradient would be recorded
 */
export function scoreTokens(
  logits: Tensor,
  targets: Tensor,
  { temperature, withEntropy }: { temperature: number; withEntropy: boolean },
): TokenScores {
  const [logprobs, entropies, normalizers] = aten
    .posttrainScoreTokens(logits.slot, targets.slot, temperature, withEntropy)
    .map(wrap) as [Tensor, Tensor, Tensor];
  return { logprobs, entropies: withEntropy ? entropies : null, normalizers };
}

/** What `scoreGradient_` needs beside the logits. */
export interface ScoreGradient {
  /** [N] int64 */
  readonly targets: Tensor;
  readonly temperature: number;
  /** What `scoreTokens` found for the same logits. */
  readonly scores: TokenScores;
  /** [N] dL/d(log p), null for none. */
  readonly ofLogprobs: Tensor | null;
  /** [N] dL/dH, null for none; needs the entropies. */
  readonly ofEntropies: Tensor | null;
}

/**
 * Puts the gradient of the logits in their place. Rows whose two factors are 0 become 0, whatever stood there.
 *
 *     dL/dlogits[j] = (dL/d(log p)·(δ_j − p_j) − dL/dH·p_j·(log p_j + H)) / τ
 *
 * @param logits [N, V] as `scoreTokens` saw them
 * @throws NativeError as `scoreTokens`, and for a gradient of another shape or dtype
 */
export function scoreGradient_(logits: Tensor, gradient: ScoreGradient): void {
  const { targets, temperature, scores, ofLogprobs, ofEntropies } = gradient;
  const where = 'scoreGradient_';
  aten.posttrainScoreGradient_(
    logits.slot,
    targets.slot,
    temperature,
    scores.normalizers.slot,
    optionalSlot(where, 'entropies', scores.entropies),
    optionalSlot(where, 'ofLogprobs', ofLogprobs),
    optionalSlot(where, 'ofEntropies', ofEntropies),
  );
}
