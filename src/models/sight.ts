/** Where tokens stand and which of them each query of a decoder looks at. Internal to this folder. */
import type { SharedPrompts } from '../nn/index.js';
import { arange, eye, ones, tidy, type Tensor } from '../torch/index.js';
import type { CausalLmInput } from './causalLm.js';
import type { DecoderConfig, LayerKind } from './decoderConfig.js';

/** What a decoder's layers need to know of a batch besides its tokens. */
export interface Sight {
  /** [L] or [B, L] int64 */
  readonly positions: Tensor;
  /** [B, L] int64: tokens of the row, or the sequence, that a token belongs to; null where it is L everywhere. */
  readonly lengths: Tensor | null;
  /** [B or 1, 1, L, L] bool per kind of layer: true where a query may look; null for itself and all before it. */
  readonly masks: Readonly<Record<LayerKind, Tensor | null>>;
}

/** What the attention of one layer is told, see `Attention.forward`. */
export type LayerSight = Tensor | null | SharedPrompts;

/** The tensors of a sight, in an order that `withSightTensors` knows. */
export function sightTensors(sight: LayerSight): Tensor[] {
  if (sight === null) return [];
  if (!('parts' in sight)) return [sight];
  const { mask } = sight.prompts;
  const ofParts = sight.parts.flatMap(({ masked }) => masked ?? []);
  return [...(mask ? [mask] : []), ...ofParts.flatMap(({ mask, promptOf }) => [promptOf, mask])];
}

/** The same sight with other tensors. */
export function withSightTensors(sight: LayerSight, tensors: readonly Tensor[]): LayerSight {
  if (sight === null || !('parts' in sight)) return tensors[0] ?? null;
  const rest = [...tensors];
  const take = (): Tensor => rest.shift() as Tensor; // as many as sightTensors gave
  const prompts = { ...sight.prompts, mask: sight.prompts.mask && take() };
  return {
    prompts,
    parts: sight.parts.map((part) => ({
      ...part,
      masked: part.masked && { promptOf: take(), mask: take() },
    })),
  };
}

type Base = Omit<Sight, 'masks'> & { readonly mask: Tensor | null };

/**
 * A query looks at tokens of its row or sequence up to itself, in a sliding layer at the last `slidingWindow` of them, and
 * always at itself, so that the softmax of padding has something to look at and stays finite.
 */
export function sightOf(
  { slidingWindow, layerKinds }: Pick<DecoderConfig, 'slidingWindow' | 'layerKinds'>,
  { inputIds, attentionMask, sequenceIds }: CausalLmInput,
  device: string,
): Sight {
  const length = inputIds.size(1);
  const { mask: full, ...base } =
    sequenceIds !== undefined
      ? packedSight(sequenceIds.to({ device }))
      : attentionMask !== undefined
        ? paddedSight(attentionMask.to({ device }).ne(0))
        : { positions: arange(0, length, { device }), lengths: null, mask: null };
  const slides = slidingWindow !== null && slidingWindow < length && layerKinds.includes('sliding');
  if (!slides) return { ...base, masks: { full, sliding: full } };
  const sliding = tidy(() => {
    const window = causal(length, device).triu(1 - slidingWindow);
    // Padding and other sequences stand at the ends: columns between two tokens are as many as tokens.
    return full === null ? window.unsqueeze(0).unsqueeze(0) : full.logicalAnd(window);
  });
  return { ...base, masks: { full, sliding } };
}

function causal(length: number, device: string): Tensor {
  return ones([length, length], { dtype: 'bool', device }).tril();
}

/** @param valid [B, L] bool, true at tokens */
function paddedSight(valid: Tensor): Base {
  const length = valid.size(1);
  const { device } = valid;
  const self = eye(length, { dtype: 'bool', device });
  return {
    positions: valid.cumsum(1, { dtype: 'int64' }).sub(1).clamp(0),
    lengths: valid.sum(1, { keepDim: true, dtype: 'int64' }).expand(valid.shape),
    mask: valid.unsqueeze(1).unsqueeze(1).logicalAnd(causal(length, device)).logicalOr(self),
  };
}

/**
 * @param sequenceIds [B, L]: a query looks at tokens of its own sequence up to itself, as many as its position says; 0 is
 *   padding, which stands at position 0 however much there is of it
 */
function packedSight(sequenceIds: Tensor): Base {
  const same = sequenceIds.unsqueeze(2).eq(sequenceIds.unsqueeze(1));
  const mask = same.logicalAnd(causal(sequenceIds.size(1), sequenceIds.device));
  return {
    positions: mask.sum(2, { dtype: 'int64' }).sub(1).mul(sequenceIds.ne(0)),
    lengths: same.sum(2, { dtype: 'int64' }),
    mask: mask.unsqueeze(1),
  };
}
