/**
 * Returns and advantages over the tokens of a completion. Uncounted tokens inside a row (tool output) are skipped and
 * the recursion is carried through them: what comes after belongs to the token before.
 */
import { assertSameShape, type Tensor } from '../torch/index.js';
import { constantWhere, countedEntries } from './counted.js';
import { assertFraction, fromHost, hostRows, toHost } from './hostValues.js';
import { assertRows, scoreAtLastToken } from './rewards.js';
import { whiten } from './whiten.js';

/** What `discountedReturns` reads. */
export interface DiscountedReturnsInputs {
  /** [B, T] reward of each token. Constant. */
  readonly rewards: Tensor;
  /** [B, T] above 0 where the token counts. */
  readonly mask: Tensor;
  /** γ in [0, 1], applied once per counted token. */
  readonly discount: number;
}

/**
 * The discounted sum of the rewards from each token on, over counted tokens.
 *
 *     Rₜ = rₜ + γ·Rₜ₊₁
 *
 * Source: Sutton & Barto 2018, Eq. 3.9.
 *
 * @returns [B, T], 0 where nothing counts; a constant
 * @throws ShapeError unless rewards and mask are [B, T] alike; ValueRangeError unless 0 ≤ γ ≤ 1
 */
export function discountedReturns({ rewards, mask, discount }: DiscountedReturnsInputs): Tensor {
  assertSameShape('discountedReturns', '[B, T]', { rewards, mask });
  assertFraction('discountedReturns', 'discount', discount);
  const returns = hostRows(constantWhere(rewards, countedEntries(mask)));
  const counts = hostRows(mask);
  returns.forEach((row, b) => {
    let next = 0;
    for (const t of countedBackwards(counts[b])) {
      next = (row[t] as number) + discount * next; // t lies within the row
      row[t] = next;
    }
  });
  return fromHost(flat(returns), rewards.shape, rewards);
}

/** The positions above 0, from the last to the first. */
function countedBackwards(mask: Float64Array = new Float64Array()): number[] {
  const positions: number[] = [];
  for (let t = mask.length - 1; t >= 0; t--) if ((mask[t] as number) > 0) positions.push(t);
  return positions;
}

function flat(rows: readonly Float64Array[]): number[] {
  return rows.flatMap((row) => Array.from(row));
}

/** Both are [B, T], 0 where nothing counts, and constants. */
export interface AdvantagesAndReturns {
  /** How much better the token was than the state before it promised. */
  readonly advantages: Tensor;
  /** What the value of that state is trained towards. */
  readonly returns: Tensor;
}

/** What `gae` reads. */
export interface GaeInputs {
  /** [B, T] reward of each token, for example of `shapeRewards`. Constant. */
  readonly rewards: Tensor;
  /** [B, T] V of the state *before* token t, read at the hidden state of token t − 1. Constant. */
  readonly values: Tensor;
  /** [B, T] above 0 where the token counts. */
  readonly mask: Tensor;
  /** γ in [0, 1]. */
  readonly discount: number;
  /** λ in [0, 1]: 0 trusts the values, 1 the rewards. */
  readonly gaeLambda: number;
  /** [B] V after the last counted token, for rows that were cut off. 0 for all rows when omitted. Constant. */
  readonly bootstrapValues?: Tensor | undefined;
}

/**
 * Generalised advantage estimation over counted tokens.
 *
 *     δₜ = rₜ + γ·Vₜ₊₁ − Vₜ      Aₜ = δₜ + γλ·Aₜ₊₁      returnsₜ = Aₜ + Vₜ
 *
 * Source: Schulman et al. 2016, arXiv:1506.02438, Eq. 16.
 *
 * @throws ShapeError unless the tensors are [B, T] alike and bootstrapValues [B]
 * @throws ValueRangeError unless γ and λ are from 0 to 1
 */
export function gae(inputs: GaeInputs): AdvantagesAndReturns {
  const { rewards, values, mask, discount, gaeLambda, bootstrapValues } = inputs;
  assertSameShape('gae', '[B, T]', { rewards, values, mask });
  if (bootstrapValues) assertRows('gae', { bootstrapValues }, mask);
  assertFraction('gae', 'discount', discount);
  assertFraction('gae', 'gaeLambda', gaeLambda);

  const counted = countedEntries(mask);
  const counts = hostRows(mask);
  const advantages = hostRows(constantWhere(rewards, counted)); // each reward makes way for its advantage
  const returns = hostRows(constantWhere(values, counted)); // and each value for its return
  const bootstrap = bootstrapValues && toHost(bootstrapValues);
  advantages.forEach((row, b) => {
    const returnsRow = returns[b] as Float64Array; // same shape
    let nextValue = bootstrap?.[b] ?? 0;
    let nextAdvantage = 0;
    for (const t of countedBackwards(counts[b])) {
      const value = returnsRow[t] as number; // t lies within the row
      const delta = (row[t] as number) + discount * nextValue - value;
      nextAdvantage = delta + discount * gaeLambda * nextAdvantage;
      nextValue = value;
      row[t] = nextAdvantage;
      returnsRow[t] = nextAdvantage + value;
    }
  });
  const toTensor = (rows: Float64Array[]) => fromHost(flat(rows), mask.shape, rewards, values);
  return { advantages: toTensor(advantages), returns: toTensor(returns) };
}

/** What `monteCarloAdvantages` reads. */
export interface MonteCarloInputs {
  /** [B] score of each completion. Constant. */
  readonly scores: Tensor;
  /** [B, T] V of the state *before* token t. Constant. */
  readonly values: Tensor;
  /** [B, T] above 0 where the token counts. */
  readonly mask: Tensor;
  /** γ in [0, 1]. */
  readonly discount: number;
}

/**
 * The discounted score as the return of every token, without bootstrapping. Equals `gae` with λ = 1 for every γ when the
 * score is the only reward.
 *
 *     R̂ₜ = γⁿ·score with n counted tokens after t in the row      Aₜ = R̂ₜ − Vₜ
 *
 * Source: Sutton & Barto 2018, §5.1 and Eq. 3.9. The last counted token gets the score undiscounted.
 *
 * @throws ShapeError unless values and mask are [B, T] alike and scores [B]
 * @throws ValueRangeError unless 0 ≤ γ ≤ 1, or where a row with a counted token has a score that is not finite
 */
export function monteCarloAdvantages(inputs: MonteCarloInputs): AdvantagesAndReturns {
  const { scores, values, mask, discount } = inputs;
  const where = 'monteCarloAdvantages';
  assertSameShape(where, '[B, T]', { values, mask });
  assertRows(where, { scores }, mask);
  assertFraction(where, 'discount', discount);
  const rewards = scoreAtLastToken(where, scores, mask);
  const returns = discountedReturns({ rewards, mask, discount });
  return { advantages: returns.sub(constantWhere(values, countedEntries(mask))), returns };
}

/** What `batchWhitenedAdvantages` reads. */
export interface BatchWhitenedInputs {
  /** [B, T] of `shapeRewards`. Constant. */
  readonly shapedRewards: Tensor;
  /** [B, T] above 0 where the token counts. */
  readonly mask: Tensor;
  /** γ in [0, 1]. */
  readonly discount: number;
}

/**
 * The advantages of REINFORCE++: the discounted returns of the shaped rewards, whitened over the counted tokens of the
 * batch. Takes the whole batch: whitening couples its rows.
 *
 * Source: Hu et al. 2025, arXiv:2501.03262, §3.
 *
 * @returns [B, T], 0 where nothing counts; a constant
 * @throws ShapeError unless both are [B, T] alike; ValueRangeError unless 0 ≤ γ ≤ 1
 */
export function batchWhitenedAdvantages(inputs: BatchWhitenedInputs): Tensor {
  const { shapedRewards, mask, discount } = inputs;
  assertSameShape('batchWhitenedAdvantages', '[B, T]', { shapedRewards, mask });
  assertFraction('batchWhitenedAdvantages', 'discount', discount);
  const returns = discountedReturns({ rewards: shapedRewards, mask, discount });
  return whiten({ values: returns, mask, keepMean: false });
}
