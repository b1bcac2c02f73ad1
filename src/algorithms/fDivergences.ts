/** The implicit reward of a completion under another divergence to the reference than the reverse KL. */
import { ValueRangeError } from '../errors/index.js';
import { zeros, type Tensor } from '../torch/index.js';

/** Every divergence, with TRL's names. */
export const F_DIVERGENCES = [
  'reverse_kl',
  'forward_kl',
  'js_divergence',
  'alpha_divergence',
] as const;

/** A divergence between policy and reference. */
export type FDivergence = (typeof F_DIVERGENCES)[number];

/** What `divergenceScores` reads. */
export interface DivergenceScoreInputs {
  /** [B] nats. log u = log π_θ − log π_ref. The gradient flows through. */
  readonly logRatio: Tensor;
  /** Which divergence. */
  readonly fDivergence: FDivergence;
  /** α of `alpha_divergence`, which needs it. */
  readonly alphaDivergenceCoef: number | undefined;
  /** Largest exponent, above which the score is constant. */
  readonly maxExponent: number;
}

/**
 * f′(u) at u = π_θ/π_ref.
 *
 *     reverse_kl        log u
 *     forward_kl        1 − 1/u
 *     js_divergence     log(2u/(1 + u)) = log 2 + log σ(log u)
 *     alpha_divergence  (u^(α − 1) − 1)/(α − 1), and log u at α = 1
 *
 * Source: Wang et al. 2023, arXiv:2309.16240, Table 1 and Eq. 10; the α form is that of TRL, of which α = 0 is the
 * forward and α = 1 the reverse KL. TRL takes log u within 1e-6 of α = 1.
 *
 * @returns `scores` [B], and `isCapped` [B] bool: where the exponent was capped and the score has no gradient
 * @throws ValueRangeError for an unknown divergence, or `alpha_divergence` without a finite α
 */
export function divergenceScores(inputs: DivergenceScoreInputs): {
  scores: Tensor;
  isCapped: Tensor;
} {
  const { logRatio, fDivergence, alphaDivergenceCoef, maxExponent } = inputs;
  switch (fDivergence) {
    case 'reverse_kl':
      return uncapped(logRatio);
    case 'forward_kl':
      return powerScores(logRatio, -1, maxExponent);
    case 'js_divergence':
      return uncapped(logRatio.logSigmoid().add(Math.LN2));
    case 'alpha_divergence': {
      const power = checkedAlpha(alphaDivergenceCoef) - 1;
      return power === 0 ? uncapped(logRatio) : powerScores(logRatio, power, maxExponent);
    }
    default:
      throw unknownDivergence(fDivergence);
  }
}

/**
 * (u^power − 1)/power. expm1 keeps the digits that u^power − 1 loses near u = 1; its gradient, computed as expm1 + 1, would
 * lose those of a small u^power.
 */
function powerScores(logRatio: Tensor, power: number, maxExponent: number) {
  const exponent = logRatio.mul(power);
  const capped = exponent.clamp(null, maxExponent);
  const isNear = capped.detach().abs().lt(1);
  return {
    scores: capped.expm1().where(isNear, capped.exp().sub(1)).div(power),
    isCapped: exponent.detach().gt(maxExponent), // a count carries no gradient
  };
}

function uncapped(scores: Tensor) {
  return { scores, isCapped: zeros(scores.shape, { dtype: 'bool', device: scores.device }) };
}

function checkedAlpha(coefficient: number | undefined): number {
  if (coefficient !== undefined && Number.isFinite(coefficient)) return coefficient;
  throw new ValueRangeError(
    `dpoLoss: expected alphaDivergenceCoef to be a finite number with alpha_divergence, received ${coefficient ?? 'none'}.`,
  );
}

function unknownDivergence(fDivergence: never): ValueRangeError {
  return new ValueRangeError(
    `dpoLoss: expected fDivergence to be one of ${F_DIVERGENCES.join(', ')}, received ${JSON.stringify(fDivergence)}.`,
  );
}
