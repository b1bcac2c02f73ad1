/** The clipped surrogate on the ratio of whole sequences. */
import { ValueRangeError } from '../errors/index.js';
import { assertSameShape, type Tensor } from '../torch/index.js';
import {
  constantWhere,
  countedEntries,
  countedWeights,
  maskedLogRatio,
  rowMean,
  weightedSum,
} from './counted.js';
import {
  assertClip,
  clippedSurrogate,
  ratioStats,
  type PolicyLossOutput,
  type PpoClipLossInputs,
} from './ppo.js';

/** What `gspoLoss` reads: the inputs of `ppoClipLoss`, with a clip range of the order of 3e-4. */
export interface GspoLossInputs extends Omit<PpoClipLossInputs, 'dualClip'> {
  /** `sequence`: one advantage per row. `token`: the same ratio, each token with its own gradient and advantage. */
  readonly level: 'sequence' | 'token';
  /** [B, T] above 0 for the tokens that the ratio is the mean of; those with a weight above 0 when omitted. */
  readonly mask?: Tensor | undefined;
}

/**
 * Clipped surrogate on the geometric mean of a row's ratios.
 *
 *     sequence   log sᵢ = mean over the row of (logprobs − oldLogprobs)
 *     token      log sₜ = sg[log sᵢ] + logprobsₜ − sg[logprobsₜ]
 *     L          = −Σₜ wₜ · min(s Âₜ, clip(s, 1 − εlow, 1 + εhigh) Âₜ)
 *
 * Source: Zheng et al. 2025, arXiv:2507.18071, Eq. 5–7 (`sequence`) and Eq. 13–14 (`token`, GSPO-token). The statistics
 * are those of s.
 *
 * @throws ShapeError unless all tensors have the shape [B, T] of logprobs
 * @throws ValueRangeError for a negative bound or an unknown level
 */
export function gspoLoss(inputs: GspoLossInputs): PolicyLossOutput {
  const { logprobs, oldLogprobs, advantages, tokenWeights, clip, level, mask } = inputs;
  const tensors = { logprobs, oldLogprobs, advantages, tokenWeights, ...(mask && { mask }) };
  assertSameShape('gspoLoss', '[B, T]', tensors);
  assertClip('gspoLoss', clip);

  const { counted, weights } = countedWeights(tokenWeights);
  const averaged = mask ? countedEntries(mask) : counted;
  const rowLogRatio = rowMean(maskedLogRatio(logprobs, oldLogprobs, averaged), averaged); // [B, 1]
  const logRatio = spread(rowLogRatio, level, logprobs, counted);
  const surrogate = clippedSurrogate(logRatio, constantWhere(advantages, counted), clip);
  return {
    loss: weightedSum(surrogate.objective, weights).neg(),
    stats: {
      ...ratioStats(logRatio, weights),
      clipFractionLow: weightedSum(surrogate.clippedLow, weights),
      clipFractionHigh: weightedSum(surrogate.clippedHigh, weights),
    },
  };
}

/** [B, T] the row's log-ratio at each counted token, 0 elsewhere. */
function spread(
  rowLogRatio: Tensor,
  level: GspoLossInputs['level'],
  logprobs: Tensor,
  counted: Tensor,
): Tensor {
  switch (level) {
    case 'sequence':
      return rowLogRatio.expand(logprobs.shape).where(counted, 0);
    case 'token':
      // The value is the row's, the gradient the token's own: logprobs − sg[logprobs] is 0 with gradient 1.
      return rowLogRatio
        .detach()
        .add(maskedLogRatio(logprobs, logprobs, counted))
        .where(counted, 0);
    default:
      throw unknownLevel(level);
  }
}

function unknownLevel(level: never): ValueRangeError {
  return new ValueRangeError(
    `gspoLoss: expected level to be sequence or token, received ${JSON.stringify(level)}.`,
  );
}
