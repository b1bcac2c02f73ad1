/** Scores of completions as rewards: with the KL to the reference, spread over tokens, less a penalty for length. */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { assertIntegerAtLeast, assertRank, assertSameShape, type Tensor } from '../torch/index.js';
import { countedEntries, maskedLogRatio } from './counted.js';
import { fromHost, toHost } from './hostValues.js';

/** What `shapeRewards` and `penalizedScores` read. */
export interface PenalizedScoreInputs {
  /** [B] score of each completion. Constant. */
  readonly scores: Tensor;
  /** [B, T] nats. log π_θ of the sampled tokens when they were sampled. Constant: this is a reward, not a loss. */
  readonly logprobs: Tensor;
  /** [B, T] nats. The same tokens under the frozen reference. Constant. */
  readonly refLogprobs: Tensor;
  /** [B, T] above 0 where the token counts. */
  readonly mask: Tensor;
  /** β ≥ 0: the price of one nat. */
  readonly klCoef: number;
}

/**
 * The reward of each token: the KL penalty everywhere, and the score at the last counted token of the row.
 *
 *     rₜ = −β·(logprobsₜ − refLogprobsₜ) + [t is the last counted token]·score
 *
 * The penalty is k1 and no other: k2 and k3 in the reward optimise something else (docs/algorithms/kl.md).
 *
 * Source: Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, §3.5, Eq. 2, per token as in Ziegler et al. 2019,
 * arXiv:1909.08593.
 *
 * @returns [B, T], 0 where nothing counts; a constant
 * @throws ShapeError unless the tensors are [B, T] and scores is [B]
 * @throws ValueRangeError where a row with a counted token has a score that is not finite, or klCoef is negative
 */
export function shapeRewards(inputs: PenalizedScoreInputs): Tensor {
  const { scores, mask, klCoef } = inputs;
  const penalty = klPenalty('shapeRewards', inputs);
  return scoreAtLastToken('shapeRewards', scores, mask).sub(penalty.mul(klCoef));
}

/**
 * The score of each completion less the price of its whole KL.
 *
 *     R = score − β·Σₜ (logprobsₜ − refLogprobsₜ)
 *
 * A NaN score stays NaN, so that `leaveOneOutAdvantages` leaves the row out.
 *
 * Source: Ahmadian et al. 2024 (RLOO), arXiv:2402.14740, §2.1, Eq. 3.
 *
 * @returns [B]; a constant
 * @throws ShapeError unless the tensors are [B, T] and scores is [B]; ValueRangeError for a negative klCoef
 */
export function penalizedScores(inputs: PenalizedScoreInputs): Tensor {
  const penalty = klPenalty('penalizedScores', inputs).sum(1);
  return inputs.scores.detach().sub(penalty.mul(inputs.klCoef));
}

/** [B, T] k1 at counted tokens, 0 elsewhere; a constant. */
function klPenalty(where: string, inputs: PenalizedScoreInputs): Tensor {
  const { scores, logprobs, refLogprobs, mask, klCoef } = inputs;
  assertSameShape(where, '[B, T]', { logprobs, refLogprobs, mask });
  assertRows(where, { scores }, mask);
  if (!(klCoef >= 0)) {
    throw new ValueRangeError(`${where}: expected klCoef to be at least 0, received ${klCoef}.`);
  }
  return maskedLogRatio(logprobs.detach(), refLogprobs, countedEntries(mask));
}

/**
 * The score of each row at its last counted token, 0 elsewhere.
 *
 * @returns [B, T], the scores' dtype; a constant
 * @throws ValueRangeError where a row with a counted token has a score that is not finite
 */
export function scoreAtLastToken(where: string, scores: Tensor, mask: Tensor): Tensor {
  const counted = countedEntries(mask);
  const isRead = counted.any(1);
  const read = scores.detach().where(isRead, 0);
  const row = toHost(read).findIndex((score) => !Number.isFinite(score));
  if (row !== -1) {
    throw new ValueRangeError(
      `${where}: expected a finite score for every row that has a counted token, received ${toHost(read)[row]} in row ${row}.`,
      { hint: 'Mask the tokens of an unscored completion: its score is then not read.' },
    );
  }
  const position = counted.cumsum(1); // 1, 2, … at counted tokens
  const isLast = counted.logicalAnd(position.eq(position.amax(1, { keepDim: true })));
  return read.unsqueeze(1).expand(mask.shape).where(isLast, 0);
}

/** Every tensor has one entry per row of `mask`. @throws ShapeError */
export function assertRows(
  where: string,
  tensors: Readonly<Record<string, Tensor>>,
  mask: Tensor,
): void {
  assertRank(where, '[B]', tensors);
  for (const [name, { shape }] of Object.entries(tensors)) {
    if (shape[0] !== mask.size(0)) {
      throw new ShapeError(
        `${where}: expected ${name} to have shape [B] = [${mask.size(0)}], one per row, received [${shape[0]}].`,
      );
    }
  }
}

/** What `softOverlongPenalty` reads. */
export interface SoftOverlongInputs {
  /** [B] completion lengths in tokens. */
  readonly lengths: Tensor;
  /** Lmax: from here on the penalty is −1. */
  readonly maxLength: number;
  /** Lcache ≤ Lmax: how long before Lmax the penalty begins. 0 makes it a step. */
  readonly cacheLength: number;
}

/**
 * A penalty that grows as a completion nears the length limit, to be added to its reward.
 *
 *     0 up to Lmax − Lcache;  ((Lmax − Lcache) − L)/Lcache up to Lmax;  −1 beyond
 *
 * Source: Yu et al. 2025 (DAPO), arXiv:2503.14476, §3.4, Eq. 13.
 *
 * @returns [B] in [−1, 0], the floating dtype of lengths (else float32); a constant
 * @throws ShapeError unless lengths is [B]
 * @throws ValueRangeError unless 0 ≤ cacheLength ≤ maxLength are integers and maxLength ≥ 1
 */
export function softOverlongPenalty(inputs: SoftOverlongInputs): Tensor {
  const { lengths, maxLength, cacheLength } = inputs;
  assertRank('softOverlongPenalty', '[B]', { lengths });
  assertIntegerAtLeast('softOverlongPenalty', 'maxLength', maxLength, 1);
  assertIntegerAtLeast('softOverlongPenalty', 'cacheLength', cacheLength, 0);
  if (cacheLength > maxLength) {
    throw new ValueRangeError(
      `softOverlongPenalty: expected cacheLength to be at most maxLength ${maxLength}, received ${cacheLength}.`,
    );
  }
  const start = maxLength - cacheLength;
  const penalties = toHost(lengths).map((length) =>
    length <= start ? 0 : Math.max(-1, (start - length) / cacheLength),
  );
  return fromHost(penalties, lengths.shape, lengths);
}
