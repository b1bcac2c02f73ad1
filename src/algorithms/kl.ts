/** Per-token estimates of KL(policy ‖ reference) and the loss made of them. Where they may stand: docs/algorithms/kl.md. */
import { ValueRangeError } from '../errors/index.js';
import { assertPositive, assertSameShape, zerosLike, type Tensor } from '../torch/index.js';
import { countedEntries, countedWeights, maskedLogRatio, weightedSum } from './counted.js';

/** Estimates of the KL at one sampled token from l = logprobs − refLogprobs. */
export type KlEstimator = 'k1' | 'k2' | 'k3';

/** What can stand in the loss: an estimator, or k3 times the importance ratio. */
export type KlLossEstimator = KlEstimator | 'k3Unbiased';

/** Largest exponent of k3, e²⁰ ≈ 4.9e8: a token that the policy has all but given up must not overflow the loss. */
const MAX_EXPONENT = 20;

/** What `klEstimate` reads. */
export interface KlEstimateInputs {
  /** [...] nats. log π_θ of the sampled tokens, from the current policy. The only input that receives a gradient. */
  readonly logprobs: Tensor;
  /** [...] nats. The same tokens under the frozen reference. Constant. */
  readonly refLogprobs: Tensor;
  /** Which estimate. */
  readonly estimator: KlEstimator;
  /** [...] above 0 where the token counts; the result is 0 elsewhere. All tokens count when omitted. */
  readonly mask?: Tensor | undefined;
}

/** What `klLoss` reads. */
export interface KlLossInputs {
  /** [B, T] nats. log π_θ of the sampled tokens, from the current policy. The only input that receives a gradient. */
  readonly logprobs: Tensor;
  /** [B, T] nats. The same tokens under the policy that sampled. Constant. Read by `k3Unbiased`, which needs it. */
  readonly oldLogprobs?: Tensor | undefined;
  /** [B, T] nats. The same tokens under the frozen reference. Constant. */
  readonly refLogprobs: Tensor;
  /** [B, T] wₜ from `tokenWeights`. A token with weight 0 is never read. Constant. */
  readonly tokenWeights: Tensor;
  /** Which estimate, or `k3Unbiased`. */
  readonly estimator: KlLossEstimator;
}

/** Detached [] scalars, weighted like the loss: add them over micro-batches. */
export type KlLossStats = {
  /** Σ w·kl: the value of the loss. */
  readonly kl: Tensor;
  /** Σ w over tokens whose exponent was capped; 0 for k1 and k2. */
  readonly klCapFraction: Tensor;
};

/**
 * An estimate of KL(π_θ ‖ π_ref) at each sampled token, with l = logprobs − refLogprobs.
 *
 *     k1 = l      k2 = l²/2      k3 = e⁻ˡ − 1 + l
 *
 * k1 and k3 are unbiased under π_θ, k2 is not. Their gradients as a loss are another matter: see docs/algorithms/kl.md.
 * k3 is evaluated at max(l, −20) and has no gradient below; k1 and k2 are never clamped.
 *
 * Source: Schulman 2020, "Approximating KL Divergence". The cap is ours: e⁻ˡ overflows float32 at l = −89.
 *
 * @returns [...] nats
 * @throws ShapeError unless all tensors have the shape of logprobs; ValueRangeError for an unknown estimator
 */
export function klEstimate({ logprobs, refLogprobs, estimator, mask }: KlEstimateInputs): Tensor {
  const layout = `[${logprobs.shape.map((_, index) => 'BT'[index] ?? '…').join(', ')}]`;
  assertSameShape('klEstimate', layout, { logprobs, refLogprobs, ...(mask && { mask }) });
  const logRatio = mask
    ? maskedLogRatio(logprobs, refLogprobs, countedEntries(mask))
    : logprobs.sub(refLogprobs.detach()); // the reference is frozen
  return estimate('klEstimate', estimator, logRatio);
}

/**
 * The KL penalty as a term of the loss. The coefficient is the caller's.
 *
 *     L = Σₜ wₜ · klₜ        k3Unbiased = ρ·k3 with ρ = exp(logprobs − oldLogprobs), differentiated too
 *
 * `k3Unbiased` is the one whose gradient is that of the reverse KL; k2 has it on-policy, k3 has that of another
 * divergence, and k1 has none. Where the exponent is capped the whole term is a constant: the gradient that is left,
 * without that of the exponential, would point away from the reference.
 *
 * Source: k3 in the loss: Shao et al. 2024, arXiv:2402.03300, Eq. 4. k3Unbiased: DeepSeek-V3.2, arXiv:2512.02556, §3.1,
 * Eq. 7. k2 in the loss: docs/algorithms/kl.md.
 *
 * @throws ShapeError unless all tensors have the shape [B, T] of logprobs
 * @throws ValueRangeError for an unknown estimator, or `k3Unbiased` without oldLogprobs
 */
export function klLoss(inputs: KlLossInputs): { loss: Tensor; stats: KlLossStats } {
  const { logprobs, oldLogprobs, refLogprobs, tokenWeights, estimator } = inputs;
  const given = { logprobs, refLogprobs, ...(oldLogprobs && { oldLogprobs }), tokenWeights };
  assertSameShape('klLoss', '[B, T]', given);

  const { counted, weights } = countedWeights(tokenWeights);
  const logRatio = maskedLogRatio(logprobs, refLogprobs, counted);
  const isCapped = logRatio.detach().lt(-MAX_EXPONENT);
  const kl =
    estimator === 'k3Unbiased'
      ? importanceRatio(logprobs, oldLogprobs, counted, isCapped).mul(k3(logRatio))
      : estimate('klLoss', estimator, logRatio);
  const loss = weightedSum(kl, weights);
  const value = loss.detach(); // a metric carries no gradient
  const hasExponent = estimator === 'k3' || estimator === 'k3Unbiased';
  const klCapFraction = hasExponent ? weightedSum(isCapped, weights) : zerosLike(value);
  return { loss, stats: { kl: value, klCapFraction } };
}

function estimate(where: string, estimator: KlEstimator, logRatio: Tensor): Tensor {
  switch (estimator) {
    case 'k1':
      return logRatio;
    case 'k2':
      return logRatio.square().div(2);
    case 'k3':
      return k3(logRatio);
    default:
      throw unknownEstimator(where, estimator);
  }
}

/** e⁻ˡ − 1 + l at max(l, −20). expm1 keeps the digits that e⁻ˡ − 1 loses near l = 0. */
function k3(logRatio: Tensor): Tensor {
  const capped = logRatio.clamp(-MAX_EXPONENT);
  return capped.neg().expm1().add(capped);
}

/** ρ, differentiable where k3 is: a constant where its exponent was capped. */
function importanceRatio(
  logprobs: Tensor,
  oldLogprobs: Tensor | undefined,
  counted: Tensor,
  isCapped: Tensor,
): Tensor {
  if (oldLogprobs === undefined) {
    throw new ValueRangeError(
      'klLoss: expected oldLogprobs with the estimator k3Unbiased, received none.',
      { hint: 'k3Unbiased multiplies k3 by exp(logprobs − oldLogprobs).' },
    );
  }
  const logRatio = maskedLogRatio(logprobs, oldLogprobs, counted);
  return logRatio.detach().where(isCapped, logRatio).exp(); // detached: see klLoss on the cap
}

function unknownEstimator(where: string, estimator: never): ValueRangeError {
  return new ValueRangeError(
    `${where}: expected estimator to be k1, k2, k3${where === 'klLoss' ? ' or k3Unbiased' : ''}, received ${JSON.stringify(estimator)}.`,
  );
}

/** What `adaptiveKlCoef` reads. */
export interface AdaptiveKlCoefInputs {
  /** The coefficient of the step that was measured. */
  readonly coef: number;
  /** Nats per sequence, measured. */
  readonly kl: number;
  /** Nats per sequence, wanted. Above 0. */
  readonly target: number;
  /** Sequences over which the coefficient may change by a factor of about 1.2. Above 0. */
  readonly horizon: number;
  /** Sequences since the last change. */
  readonly sequences: number;
}

/** Largest relative error that moves the coefficient. */
const MAX_RELATIVE_ERROR = 0.2;

/**
 * The next KL coefficient: higher where the policy has drifted further than wanted.
 *
 *     e = clip(kl/target − 1, ±0.2)      coef·(1 + e·sequences/horizon)
 *
 * Source: Ziegler et al. 2019, arXiv:1909.08593, §2.2, in the form of trl and verl.
 *
 * @returns the coefficient of the next step
 * @throws ValueRangeError for a target or horizon that is not positive, or another value that is negative or not finite
 */
export function adaptiveKlCoef(inputs: AdaptiveKlCoefInputs): number {
  const { coef, kl, target, horizon, sequences } = inputs;
  for (const [name, value] of Object.entries({ coef, sequences })) {
    if (!(value >= 0 && Number.isFinite(value))) {
      throw new ValueRangeError(
        `adaptiveKlCoef: expected ${name} to be a finite number of at least 0, received ${value}.`,
      );
    }
  }
  if (!Number.isFinite(kl)) {
    throw new ValueRangeError(`adaptiveKlCoef: expected kl to be finite, received ${kl}.`);
  }
  assertPositive('adaptiveKlCoef', 'target', target);
  assertPositive('adaptiveKlCoef', 'horizon', horizon);
  const relative = kl / target - 1;
  const error = Math.min(Math.max(relative, -MAX_RELATIVE_ERROR), MAX_RELATIVE_ERROR);
  return coef * (1 + (error * sequences) / horizon);
}
