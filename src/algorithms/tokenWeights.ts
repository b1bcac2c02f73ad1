/** How a loss over tokens becomes one number. */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { assertIntegerAtLeast, assertPositive, assertRank, type Tensor } from '../torch/index.js';
import { countedEntries, floatingDtype } from './counted.js';

/**
 * How the tokens' terms xₜ become one number, L = Σ wₜ xₜ. Lᵢ counts the tokens of row i, B the rows, P the prompts.
 */
export type LossReduction =
  /** w = 1/(B·Lᵢ): every completion counts the same. GRPO, arXiv:2402.03300, Eq. 3; GSPO, arXiv:2507.18071, Eq. 5. */
  | { readonly kind: 'sequenceMean' }
  /** w = 1/ΣLᵢ: every token counts the same, so long completions count more. PPO, and DAPO as its code computes it. */
  | { readonly kind: 'tokenMean' }
  /** w = 1/(B·budget): neither length nor padding matters. Dr. GRPO, arXiv:2503.20783, §3.1. */
  | { readonly kind: 'constant'; readonly budget: number }
  /** w = 1/B: a row's term is the sum over its tokens. REINFORCE over sequences and RLOO, arXiv:2402.14740. */
  | { readonly kind: 'sequenceSum' }
  /** w = 1/(P·tokens of the prompt): every prompt counts the same, and every token of a prompt. ScaleRL; DAPO Eq. 12. */
  | { readonly kind: 'promptMean'; readonly groupSize: number };

/** What the whole optimizer step holds, where one call sees only a part of it (a rank of several). */
export interface BatchTotals {
  /** B: rows, those without a counted token included. */
  readonly sequences: number;
  /** Σ Lᵢ: counted tokens. */
  readonly tokens: number;
  /** P: prompts, those without a counted token included. */
  readonly prompts: number;
}

/**
 * The weight that each token carries in the loss, L = Σ wₜ xₜ. Compute it once for the whole optimizer step and slice it
 * with the data: the losses of micro-batches then add up to the loss of the whole exactly, whatever the reduction.
 *
 *     sequenceMean  1/(B·Lᵢ)      tokenMean    1/Σ Lᵢ      constant  1/(B·budget)
 *     sequenceSum   1/B           promptMean   1/(P·Σ L of the prompt's rows)
 *
 * A row without a counted token (filtered, unscored) has weight 0 and still counts in B and P.
 *
 * Source: the papers named at `LossReduction`.
 *
 * @param completionMask [B, T] any dtype; above 0 where the token counts, 0 for prompt, tool output and padding. For
 *   `promptMean` the rows of one prompt are contiguous
 * @param totals of the whole optimizer step; those of `completionMask` when omitted
 * @returns [B, T] wₜ ≥ 0, exactly 0 where nothing counts; the mask's floating dtype, else float32; a constant
 * @throws ShapeError unless the mask is [B, T] and, for `promptMean`, B is a multiple of groupSize
 * @throws ValueRangeError where no token counts in the whole batch, or budget, groupSize or a total is not positive
 */
export function tokenWeights(
  completionMask: Tensor,
  reduction: LossReduction,
  totals?: BatchTotals,
): Tensor {
  assertRank('tokenWeights', '[B, T]', { completionMask });
  const counted = countedEntries(completionMask).to('float64'); // exact counts, whatever the mask's dtype
  const lengths = counted.sum(1, { keepDim: true }); // [B, 1]
  const tokens = totals?.tokens ?? lengths.sum().item();
  if (tokens === 0) {
    throw new ValueRangeError(
      'tokenWeights: expected at least one counted token in the batch, received none.',
      { hint: 'Every completion was masked. Leave such a batch out of the update.' },
    );
  }
  const divisor = tokenDivisor(lengths, reduction, { ...totals, tokens });
  return counted.div(divisor).to(floatingDtype(completionMask));
}

/** [B, 1] or a number: what 1 is divided by to give the weight of a row's tokens. Never 0. */
function tokenDivisor(
  lengths: Tensor,
  reduction: LossReduction,
  totals: Partial<BatchTotals>,
): Tensor | number {
  const rows = lengths.size(0);
  const total = (name: keyof BatchTotals, local: number): number => {
    const value = totals[name] ?? local;
    assertPositive('tokenWeights', `totals.${name}`, value);
    return value;
  };
  switch (reduction.kind) {
    case 'sequenceMean':
      return lengths.clamp(1).mul(total('sequences', rows));
    case 'tokenMean':
      return total('tokens', 0);
    case 'constant':
      assertPositive('tokenWeights', 'budget', reduction.budget);
      return total('sequences', rows) * reduction.budget;
    case 'sequenceSum':
      return total('sequences', rows);
    case 'promptMean': {
      const { groupSize } = reduction;
      const prompts = promptCount(rows, groupSize);
      const promptTokens = lengths.view([prompts, groupSize]).sum(1); // [P]
      const ofRow = promptTokens.repeatInterleave(groupSize, 0).unsqueeze(1); // [B, 1]
      return ofRow.clamp(1).mul(total('prompts', prompts));
    }
    default:
      throw unknownReduction(reduction);
  }
}

function promptCount(rows: number, groupSize: number): number {
  assertIntegerAtLeast('tokenWeights', 'groupSize', groupSize, 1);
  if (rows % groupSize !== 0) {
    throw new ShapeError(
      `tokenWeights: expected B to be a multiple of groupSize ${groupSize}, received ${rows} rows.`,
    );
  }
  return rows / groupSize;
}

function unknownReduction(reduction: never): ValueRangeError {
  const received = JSON.stringify((reduction as { kind?: unknown }).kind);
  return new ValueRangeError(
    `tokenWeights: expected reduction.kind to be sequenceMean, tokenMean, constant, sequenceSum or promptMean, received ${received}.`,
  );
}
