/** One token's part of the loss: the formula of the method with the numbers that were recorded. */
import type { LossSettings, SampleStreams, StreamName, TokenExplanation } from './protocol.js';

type Term = TokenExplanation['terms'][number];

/** The numbers of one token. */
interface Token {
  readonly of: (name: StreamName) => number | null;
  readonly loss: LossSettings;
  /** w, 1 where it was not recorded. */
  readonly weight: number;
}

const show = (value: number): string => String(Number(value.toPrecision(5)));

/**
 * What a token adds to the loss of its optimizer step.
 *
 * @param streams recorded and derived
 */
export function explainToken(
  streams: SampleStreams,
  loss: LossSettings | null,
  at: number,
): TokenExplanation {
  if (loss === null) return nothing('The settings of the loss were not recorded with this sample.');
  const of = (name: StreamName): number | null => streams[name]?.[at] ?? null;
  if (of('mask') === 0)
    return nothing('This token is not trained: its weight is 0, whatever its numbers are.');
  if (streams.implicitRewards !== undefined) return explainPairToken(of, loss);
  const recorded = of('tokenWeights');
  const token: Token = { of, loss, weight: recorded ?? 1 };
  const policy = policyTerm(token);
  if (policy === undefined)
    return nothing(`The numbers that ${loss.objective} needs were not recorded for this token.`);
  const terms = [policy.term, ...klTerm(token), ...valueTerm(token), ...entropyTerm(token)];
  const total = terms.reduce((sum, { value }) => sum + value, 0);
  const unweighted =
    recorded === null ? ' The weight w was not recorded: this is per unit of weight.' : '';
  return {
    formula: `L = ${terms.map(({ formula }) => formula).join(' + ')}`,
    withNumbers: `${terms.map(({ withNumbers }) => withNumbers).join(' + ')} = ${show(total)}`,
    terms,
    total: recorded === null ? null : total,
    remark: policy.remark + unweighted,
  };
}

function nothing(remark: string): TokenExplanation {
  return { formula: '', withNumbers: '', terms: [], total: null, remark };
}

function policyTerm(token: Token): { term: Term; remark: string } | undefined {
  const { of, loss, weight: w } = token;
  const [advantage, ratio, logprob] = [of('advantages'), of('ratio'), of('logprobs')];
  if (advantage === null) return undefined;
  const name = 'policy';
  switch (loss.objective) {
    case 'ppoClip':
    case 'gspo':
      return ratio === null ? undefined : clippedTerm({ ...token, ratio, advantage });
    case 'cispo': {
      if (ratio === null || logprob === null) return undefined;
      const { clipLow = 0, clipHigh = Infinity } = loss;
      const bounded = Math.min(Math.max(ratio, clipLow), clipHigh);
      const formula = '−w·sg[clip(ρ, low, high)]·Â·log π';
      const withNumbers = `−${show(w)}·${show(bounded)}·(${show(advantage)})·(${show(logprob)})`;
      const remark =
        bounded === ratio
          ? 'The importance weight lies within its bounds.'
          : `The importance weight ρ = ${show(ratio)} is bounded to ${show(bounded)}; the token keeps its gradient.`;
      return {
        term: { name, formula, withNumbers, value: -w * bounded * advantage * logprob },
        remark,
      };
    }
    case 'reinforce': {
      if (logprob === null) return undefined;
      const withNumbers = `−${show(w)}·(${show(advantage)})·(${show(logprob)})`;
      const term = { name, formula: '−w·Â·log π', withNumbers, value: -w * advantage * logprob };
      const way = advantage > 0 ? 'likelier' : 'rarer';
      const remark =
        advantage === 0
          ? 'The advantage is 0: no gradient.'
          : `The update makes this token ${way}.`;
      return { term, remark };
    }
    default:
      return undefined;
  }
}

/** −w·min(ρÂ, clip(ρ)Â), and what of it was chosen. */
function clippedTerm(token: Token & { ratio: number; advantage: number }): {
  term: Term;
  remark: string;
} {
  const { loss, ratio, advantage, weight: w } = token;
  const { clipLow = 0, clipHigh = 0, dualClip = null, objective } = loss;
  const sign = objective === 'gspo' ? 's' : 'ρ';
  const bound = Math.min(Math.max(ratio, 1 - clipLow), 1 + clipHigh);
  const clipped = Math.min(ratio * advantage, bound * advantage);
  const isDual = dualClip !== null && advantage < 0 && dualClip * advantage > clipped;
  const objectiveValue = isDual ? dualClip * advantage : clipped;
  const formula = `−w·min(${sign}·Â, clip(${sign}, ${show(1 - clipLow)}, ${show(1 + clipHigh)})·Â)`;
  const withNumbers = `−${show(w)}·min(${show(ratio)}·(${show(advantage)}), ${show(bound)}·(${show(advantage)}))`;
  const way = advantage > 0 ? 'likelier' : 'rarer';
  const remark = isDual
    ? `Bounded by dual clip at ${show(dualClip)}·Â: no gradient.`
    : advantage === 0
      ? 'The advantage is 0: no gradient of the policy term.'
      : clipped < ratio * advantage || (advantage < 0 && ratio < 1 - clipLow)
        ? `Clipped at the ${advantage > 0 ? 'upper' : 'lower'} bound: no gradient of the policy term.`
        : `Not clipped: the update makes this token ${way}.`;
  return { term: { name: 'policy', formula, withNumbers, value: -w * objectiveValue }, remark };
}

/** β·w·KL, where it stands in the loss. */
function klTerm({ of, loss, weight: w }: Token): Term[] {
  const kl = of('klEstimate');
  const { klCoef = 0, klPlacement, klEstimator = '' } = loss;
  if (kl === null || klCoef === 0 || klPlacement !== 'loss') return [];
  const withNumbers = `${show(klCoef)}·${show(w)}·${show(kl)}`;
  return [{ name: 'KL', formula: `β·w·${klEstimator}`, withNumbers, value: klCoef * w * kl }];
}

/** c_v·w·½(V − R)², with the value that was recorded: that of the rollout, before the updates of the step. */
function valueTerm({ of, loss, weight: w }: Token): Term[] {
  const [value, target] = [of('values'), of('returns')];
  const { vfCoef } = loss;
  if (value === null || target === null || vfCoef === undefined) return [];
  const withNumbers = `${show(vfCoef)}·${show(w)}·½·(${show(value)} − ${show(target)})²`;
  const found = (vfCoef * w * (value - target) ** 2) / 2;
  return [{ name: 'value at the rollout', formula: 'c_v·w·½(V − R)²', withNumbers, value: found }];
}

function entropyTerm({ of, loss, weight: w }: Token): Term[] {
  const entropy = of('entropy');
  const { entropyCoef = 0 } = loss;
  if (entropy === null || entropyCoef === 0) return [];
  const withNumbers = `(−${show(entropyCoef)})·${show(w)}·${show(entropy)}`;
  return [
    { name: 'entropy', formula: '(−c_e)·w·H', withNumbers, value: -entropyCoef * w * entropy },
  ];
}

/** A pair has one loss; a token's part is what it adds to the implicit reward that the loss compares. */
function explainPairToken(
  of: (name: StreamName) => number | null,
  { beta = 0 }: LossSettings,
): TokenExplanation {
  const [logprob, reference, reward] = [of('logprobs'), of('refLogprobs'), of('implicitRewards')];
  if (logprob === null || reference === null || reward === null)
    return nothing('The log-probabilities of this token were not recorded.');
  const formula = 'β·(log π − log π_ref)';
  const withNumbers = `${show(beta)}·(${show(logprob)} − ${show(reference)})`;
  return {
    formula: `r = Σ ${formula}`,
    withNumbers: `${withNumbers} = ${show(reward)}`,
    terms: [{ name: 'implicit reward', formula, withNumbers, value: reward }],
    total: reward,
    remark:
      'Its part of the implicit reward. The loss compares the sums of the chosen and of the rejected completion.',
  };
}
