/**
 * Numbers per token that follow from what was recorded, by the formulas of src/algorithms in plain numbers. A test
 * compares them with these functions.
 */
import type { LossSettings, SampleStreams, Stream } from './protocol.js';

/** Largest exponent of k3, as in src/algorithms/kl.ts. */
const MAX_EXPONENT = 20;

type Numbers = (number | null)[];

/** The recorded streams with those that follow. What is missing makes missing. */
export function withDerived(streams: SampleStreams, loss: LossSettings | null): SampleStreams {
  const ratio = ratios(streams, loss);
  const withRatio = { ...streams, ...(ratio && { ratio }) };
  const clipped = loss && clippedSides(withRatio, loss);
  const kl = perToken(streams, ({ policy, reference }) =>
    policy === null || reference === null ? null : policy - reference,
  );
  const estimate = loss && klEstimates(withRatio, loss);
  const errors = loss && valueErrors(streams, loss);
  const factors = loss && policyFactors(streams, loss);
  const implicit =
    loss?.beta === undefined ? undefined : kl?.map((value) => scaled(value, loss.beta ?? 0));
  return {
    ...withRatio,
    ...(clipped && { clipped }),
    ...(kl && { klPolicyReference: kl }),
    ...(estimate && { klEstimate: estimate }),
    ...(factors && { policyFactors: factors }),
    ...errors,
    ...(implicit && { implicitRewards: implicit }),
  };
}

/** Whether a token is trained. All are where nothing says so. */
export function isCounted({ mask }: SampleStreams, at: number): boolean {
  return mask === undefined || mask[at] === 1;
}

/** ρ = exp(log π − log π_old); with GSPO exp of its mean over the completion. */
function ratios(streams: SampleStreams, loss: LossSettings | null): Numbers | undefined {
  const { logprobs } = streams;
  const against = loss?.ratioAgainst === 'rollout' ? streams.rolloutLogprobs : streams.oldLogprobs;
  if (logprobs === undefined || against === undefined) return undefined;
  const logs = logprobs.map((value, at) => {
    const old = against[at] ?? null;
    return value === null || old === null || !isCounted(streams, at) ? null : value - old;
  });
  if (loss?.objective !== 'gspo') return logs.map((log) => (log === null ? null : Math.exp(log)));
  const mean = meanOf(logs);
  return logs.map((log) => (log === null ? null : Math.exp(mean)));
}

/** −1 below the lower bound, 1 above the upper one, 0 within; where the sign of the advantage makes the bound count. */
export function clippedSides(
  streams: SampleStreams,
  { objective, clipLow = 0, clipHigh = 0, dualClip = null }: LossSettings,
): Numbers | undefined {
  const { ratio, advantages } = streams;
  const isBounded = objective === 'ppoClip' || objective === 'gspo' || objective === 'cispo';
  if (ratio === undefined || advantages === undefined || !isBounded) return undefined;
  return ratio.map((value, at) => {
    const advantage = advantages[at] ?? null;
    if (value === null || advantage === null) return null;
    // The bounds of CISPO are of the ratio itself, whatever the advantage.
    if (objective === 'cispo') return value < clipLow ? -1 : value > clipHigh ? 1 : 0;
    if (advantage < 0 && value < 1 - clipLow) return -1;
    if (advantage > 0 && value > 1 + clipHigh) return 1;
    return dualClip !== null && advantage < 0 && value > dualClip ? 1 : 0;
  });
}

/**
 * u·m: the truncated importance weight exp(log π_old − log π_rollout) of a token, or the geometric mean of its row; times 0
 * for a bad sample that the policy has moved away from by more than the threshold per token.
 */
function policyFactors(streams: SampleStreams, loss: LossSettings): Numbers | undefined {
  const { importanceCap: cap, offPolicyThreshold: threshold } = loss;
  const { logprobs, oldLogprobs, rolloutLogprobs, advantages } = streams;
  if ((cap === undefined && threshold === undefined) || !rolloutLogprobs) return undefined;
  const difference = (a: Stream | undefined, b: Stream | undefined): Numbers =>
    rolloutLogprobs.map((_, at) => {
      const [one, other] = [a?.[at] ?? null, b?.[at] ?? null];
      return one === null || other === null || !isCounted(streams, at) ? null : one - other;
    });
  const advantage = advantages?.find((value) => value !== null && value !== 0) ?? 0;
  const drift = meanOf(difference(rolloutLogprobs, logprobs));
  const isLeftOut = threshold !== undefined && advantage < 0 && drift > threshold;
  const logs = difference(oldLogprobs, rolloutLogprobs);
  const ofRow = loss.importanceLevel === 'sequence' ? meanOf(logs) : undefined;
  return logs.map((log) => {
    if (log === null) return null;
    if (isLeftOut) return 0;
    if (cap === undefined) return 1;
    const weight = Math.exp(ofRow ?? log);
    if (weight <= cap) return weight;
    return loss.importanceMode === 'mask' ? 0 : cap;
  });
}

function meanOf(values: Numbers): number {
  const known = values.filter((value) => value !== null);
  return known.reduce((sum, value) => sum + value, 0) / known.length;
}

/** k1 = l, k2 = l²/2, k3 = e⁻ˡ − 1 + l, with l = log π − log π_ref; k3Unbiased = ρ·k3. */
function klEstimates(streams: SampleStreams, { klEstimator }: LossSettings): Numbers | undefined {
  if (klEstimator === undefined) return undefined;
  return perToken(streams, ({ policy, reference, ratio }) => {
    if (policy === null || reference === null) return null;
    const l = policy - reference;
    const capped = Math.max(l, -MAX_EXPONENT);
    const k3 = Math.expm1(-capped) + capped;
    switch (klEstimator) {
      case 'k1':
        return l;
      case 'k2':
        return l ** 2 / 2;
      case 'k3':
        return k3;
      default:
        return ratio === null ? null : ratio * k3;
    }
  });
}

/**
 * δ = r + γV′ − V and GAE = R − V, over the tokens that the model drew. V′ after the last one is what its return holds
 * beyond its reward: 0, or the bootstrapped value of a truncated completion.
 */
function valueErrors(
  streams: SampleStreams,
  { discount = 1 }: LossSettings,
): { tdErrors: Stream; gae: Stream } | undefined {
  const { values, returns, tokenRewards } = streams;
  if (values === undefined || returns === undefined || tokenRewards === undefined) return undefined;
  const [tdErrors, gae]: [Numbers, Numbers] = [values.map(() => null), values.map(() => null)];
  let next: number | null = null;
  for (let at = values.length - 1; at >= 0; at--) {
    const [value, target, reward] = [values[at], returns[at], tokenRewards[at]];
    if (!isCounted(streams, at) || value == null || target == null || reward == null) continue;
    tdErrors[at] = next === null ? target - value : reward + discount * next - value;
    gae[at] = target - value;
    next = value;
  }
  return { tdErrors, gae };
}

/** Of each counted token; undefined where policy or reference were not recorded at all. */
function perToken(
  streams: SampleStreams,
  of: (token: {
    policy: number | null;
    reference: number | null;
    ratio: number | null;
  }) => number | null,
): Numbers | undefined {
  const { logprobs, oldLogprobs, refLogprobs, ratio } = streams;
  const ofPolicy = logprobs ?? oldLogprobs;
  if (ofPolicy === undefined || refLogprobs === undefined) return undefined;
  return ofPolicy.map((policy, at) =>
    isCounted(streams, at)
      ? of({ policy, reference: refLogprobs[at] ?? null, ratio: ratio?.[at] ?? null })
      : null,
  );
}

function scaled(value: number | null, factor: number): number | null {
  return value === null ? null : value * factor;
}
