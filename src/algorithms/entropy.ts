/** Entropy of the policy's next-token distributions: as a bonus, and as a choice of tokens. */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { assertRank, assertSameShape, showShape, type Tensor } from '../torch/index.js';
import { countedEntries, countedWeights, weightedSum } from './counted.js';
import { assertFraction, fromHost, toHost } from './hostValues.js';

/** What `entropyBonus` reads: exactly one of `logits` and `entropy`. */
export interface EntropyBonusInputs {
  /** [B, T, V] from the current policy, at the temperature of the objective. Receives the gradient. */
  readonly logits?: Tensor | undefined;
  /** [B, T] nats, H of the same distributions. Receives the gradient. */
  readonly entropy?: Tensor | undefined;
  /** [B, T] wₜ from `tokenWeights`. A token with weight 0 is never read. Constant. */
  readonly tokenWeights: Tensor;
  /** How much a nat is worth. 0 gives the statistic alone. */
  readonly coef: number;
}

/** Detached [] scalar, weighted like the loss: add it over micro-batches. */
export type EntropyStats = {
  /** Σ w·H in nats. */
  readonly entropy: Tensor;
};

/**
 * Rewards the policy for staying undecided.
 *
 *     L = −coef · Σₜ wₜ · Hₜ        H = −Σᵥ pᵥ log pᵥ
 *
 * A logit of −∞ (a token outside of the sampling support) has p = 0 and adds nothing.
 *
 * Source: Mnih et al. 2016, arXiv:1602.01783, §4; Schulman et al. 2017, arXiv:1707.06347, Eq. 9.
 *
 * @throws ShapeError unless entropy and tokenWeights are [B, T] alike and logits [B, T, V]
 * @throws ValueRangeError unless exactly one of logits and entropy is given and coef is finite
 */
export function entropyBonus(inputs: EntropyBonusInputs): { loss: Tensor; stats: EntropyStats } {
  const { logits, entropy, tokenWeights, coef } = inputs;
  if (!Number.isFinite(coef)) {
    throw new ValueRangeError(`entropyBonus: expected coef to be finite, received ${coef}.`);
  }
  const { counted, weights } = countedWeights(tokenWeights);
  const mean = weightedSum(entropyAt(counted, logits, entropy), weights);
  return { loss: mean.mul(-coef), stats: { entropy: mean.detach() } }; // a metric carries no gradient
}

/** [B, T] H where it counts, 0 elsewhere. */
function entropyAt(counted: Tensor, logits: Tensor | undefined, entropy: Tensor | undefined) {
  if (entropy !== undefined && logits === undefined) {
    assertSameShape('entropyBonus', '[B, T]', { tokenWeights: counted, entropy });
    return entropy.where(counted, 0);
  }
  if (logits === undefined || entropy !== undefined) {
    const received = logits === undefined ? 'neither' : 'both';
    throw new ValueRangeError(
      `entropyBonus: expected either logits or entropy, received ${received}.`,
    );
  }
  assertRank('entropyBonus', '[B, T]', { tokenWeights: counted });
  assertRank('entropyBonus', '[B, T, V]', { logits });
  const expected = showShape(counted.shape);
  if (showShape(logits.shape.slice(0, 2)) !== expected) {
    throw new ShapeError(
      `entropyBonus: expected logits to have shape [B, T, V] with [B, T] = ${expected} like tokenWeights, received ${showShape(logits.shape)}.`,
    );
  }
  const logprobs = logits.where(counted.unsqueeze(2), 0).logSoftmax(2);
  const finite = logprobs.where(logprobs.ne(-Infinity), 0); // 0 · −∞ is NaN, and p log p tends to 0
  return logprobs.exp().mul(finite).sum(2).neg().where(counted, 0);
}

/** What `topEntropyMask` reads. */
export interface TopEntropyMaskInputs {
  /** [B, T] nats. Constant. */
  readonly entropy: Tensor;
  /** [B, T] above 0 where the token counts. */
  readonly mask: Tensor;
  /** From 0 to 1. 0.8 when omitted: the fifth of the tokens with the highest entropy. */
  readonly quantile?: number | undefined;
}

/**
 * The tokens at which the policy was most undecided: counted tokens whose entropy is at least the quantile of those of
 * all counted tokens, linearly interpolated. Takes the whole batch: the quantile couples its rows.
 *
 * Source: Wang et al. 2025, arXiv:2506.01939, §5: "the top 20% of high-entropy tokens".
 *
 * @returns [B, T] of 0 and 1 in the floating dtype of entropy; a constant
 * @throws ShapeError unless both are [B, T] alike; ValueRangeError unless the quantile is from 0 to 1
 */
export function topEntropyMask({ entropy, mask, quantile = 0.8 }: TopEntropyMaskInputs): Tensor {
  assertSameShape('topEntropyMask', '[B, T]', { entropy, mask });
  assertFraction('topEntropyMask', 'quantile', quantile);
  const counted = toHost(countedEntries(mask));
  const values = toHost(entropy);
  const threshold = quantileOf(
    values.filter((_, i) => counted[i] === 1),
    quantile,
  );
  const chosen = values.map((value, i) => (counted[i] === 1 && value >= threshold ? 1 : 0));
  return fromHost(chosen, entropy.shape, entropy);
}

/** The q-quantile, linearly interpolated between neighbours; NaN of nothing. */
function quantileOf(values: Float64Array, q: number): number {
  const sorted = values.toSorted();
  const position = q * (sorted.length - 1);
  const below = sorted[Math.floor(position)] ?? NaN;
  const above = sorted[Math.ceil(position)] ?? NaN;
  return below + (above - below) * (position - Math.floor(position));
}
