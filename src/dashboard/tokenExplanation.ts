/** One token's part of the loss: the formula of the method with the numbers that were recorded. */
import { isCounted } from './derivedStreams.js';
import type {
  LossSettings,
  SampleStep,
  SampleStreams,
  StreamName,
  TokenExplanation,
} from './protocol.js';

type Term = TokenExplanation['terms'][number];

/** The numbers of one token. */
interface Token {
  readonly of: (name: StreamName) => number | null;
  readonly loss: LossSettings;
  /** w, 1 where it was not recorded. */
  readonly weight: number;
  /** u: what the policy term is multiplied by; null where the loss has no such factor. */
  readonly factor: number | null;
}

/** The constants of the loss as they are for one side of a pair. */
export function lossOfSide(
  loss: LossSettings | null,
  side: 'completion' | 'rejected',
): LossSettings | null {
  if (loss?.rejectedSlope === undefined || side === 'completion') return loss;
  return { ...loss, slope: loss.rejectedSlope };
}

const show = (value: number): string => String(Number(value.toPrecision(5)));

/**
 * What a token adds to the loss of its optimizer step.
 *
 * @param streams recorded and derived
 * @param steps of a worked answer whose judgements are trained
 */
export function explainToken(
  streams: SampleStreams,
  loss: LossSettings | null,
  at: number,
  steps: readonly SampleStep[] = [],
): TokenExplanation {
  if (loss === null) return nothing('The settings of the loss were not recorded with this sample.');
  const of = (name: StreamName): number | null => streams[name]?.[at] ?? null;
  if (of('mask') === 0)
    return nothing('This token is not trained: its weight is 0, whatever its numbers are.');
  const recorded = of('tokenWeights');
  const token: Token = { of, loss, weight: recorded ?? 1, factor: of('policyFactors') };
  if (loss.slope !== undefined) return explainPartOfSequence(streams, token);
  if (loss.method === 'prm') return explainJudgement(token, at, steps);
  if (streams.implicitRewards !== undefined) return explainPairToken(of, loss);
  const policy = policyTerm(token);
  if (policy === undefined)
    return nothing(`The numbers that ${loss.objective} needs were not recorded for this token.`);
  const unweighted =
    recorded === null ? ' The weight w was not recorded: this is per unit of weight.' : '';
  const found = added(
    [policy.term, ...klTerm(token), ...valueTerm(token), ...entropyTerm(token)],
    policy.remark + factorRemark(token) + unweighted,
  );
  return recorded === null ? { ...found, total: null } : found;
}

/** The terms and their sum. */
function added(terms: Term[], remark: string): TokenExplanation {
  const total = terms.reduce((sum, { value }) => sum + value, 0);
  return {
    of: 'loss',
    formula: `L = ${terms.map(({ formula }) => formula).join(' + ')}`,
    withNumbers: `${terms.map(({ withNumbers }) => withNumbers).join(' + ')} = ${show(total)}`,
    terms,
    total,
    remark,
  };
}

function nothing(remark: string): TokenExplanation {
  return { of: 'loss', formula: '', withNumbers: '', terms: [], total: null, remark };
}

/**
 * Where the loss is one of whole completions: what the token's log-ratio adds to it along its slope, and an equal share of
 * what no token has by itself. The parts of all tokens of all completions add up to the loss.
 */
function explainPartOfSequence(streams: SampleStreams, token: Token): TokenExplanation {
  const { of, loss } = token;
  const { slope = 0, rest = 0 } = loss;
  const logprob = of('logprobs');
  const hasReference = streams.refLogprobs !== undefined;
  const reference = hasReference ? of('refLogprobs') : 0;
  if (logprob === null || reference === null)
    return nothing('The log-probabilities of this token were not recorded.');
  const tokens = (streams.logprobs ?? []).filter((_, place) => isCounted(streams, place)).length;
  const logratio = hasReference ? `(${show(logprob)} − ${show(reference)})` : `(${show(logprob)})`;
  const terms = [
    {
      name: 'policy',
      formula: `g·${hasReference ? '(log π − log π_ref)' : 'log π'}`,
      withNumbers: `(${show(slope)})·${logratio}`,
      value: slope * (logprob - reference),
    },
    {
      name: 'its share of what no token has by itself',
      formula: 'c/T',
      withNumbers: `(${show(rest)})/${tokens}`,
      value: rest / tokens,
    },
  ];
  const way =
    slope === 0 ? 'is left as it is' : `is made ${slope < 0 ? 'likelier' : 'rarer'} as a whole`;
  const remark = `The loss is one of whole completions: g = ∂L/∂log π(y) = ${show(slope)} is the same for all ${tokens} tokens of this one, which ${way}.`;
  return added(terms, remark);
}

/** −w·log p of the label of the step that ends at this token. */
function explainJudgement(
  { weight: w }: Token,
  at: number,
  steps: readonly SampleStep[],
): TokenExplanation {
  const step = steps.find(({ to }) => to === at + 1);
  if (step === undefined || step.label === null)
    return nothing('The judgement of this step was not recorded.');
  const { score, label } = step;
  const p = label ? score : 1 - score;
  const formula = label ? '−w·log p' : '−w·log(1 − p)';
  const withNumbers = `−${show(w)}·log ${label ? show(score) : `(1 − ${show(score)})`}`;
  const term = { name: 'judgement', formula, withNumbers, value: -w * Math.log(p) };
  return added(
    [term],
    `A step ends here that is ${label ? 'right' : 'wrong'}; the model thought it right with ${show(score)}.`,
  );
}

/** What became of a stale sample. */
function factorRemark({ factor, loss }: Token): string {
  if (factor === null || factor === 1) return '';
  if (factor === 0 && loss.offPolicyThreshold !== undefined && loss.importanceMode !== 'mask')
    return ' The policy has moved away from this bad sample: its policy term is left out.';
  if (factor === 0) return ' Its importance weight is masked: no gradient of the policy term.';
  return ` Weighted by u = ${show(factor)}, for other weights drew it.`;
}

function policyTerm(token: Token): { term: Term; remark: string } | undefined {
  const { of, loss, weight: w } = token;
  const u = token.factor ?? 1;
  const factors = factorsOf(token);
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
      const formula = `−${factors.formula}·sg[clip(ρ, low, high)]·Â·log π`;
      const withNumbers = `−${factors.withNumbers}·${show(bounded)}·(${show(advantage)})·(${show(logprob)})`;
      const remark =
        bounded === ratio
          ? 'The importance weight lies within its bounds.'
          : `The importance weight ρ = ${show(ratio)} is bounded to ${show(bounded)}; the token keeps its gradient.`;
      return {
        term: { name, formula, withNumbers, value: -w * u * bounded * advantage * logprob },
        remark,
      };
    }
    case 'reinforce': {
      if (logprob === null) return undefined;
      const withNumbers = `−${factors.withNumbers}·(${show(advantage)})·(${show(logprob)})`;
      const formula = `−${factors.formula}·Â·log π`;
      const term = { name, formula, withNumbers, value: -w * u * advantage * logprob };
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

/** w, and u where the loss has it. */
function factorsOf({ weight, factor }: Token): { formula: string; withNumbers: string } {
  return factor === null
    ? { formula: 'w', withNumbers: show(weight) }
    : { formula: 'w·u', withNumbers: `${show(weight)}·${show(factor)}` };
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
  const factors = factorsOf(token);
  const formula = `−${factors.formula}·min(${sign}·Â, clip(${sign}, ${show(1 - clipLow)}, ${show(1 + clipHigh)})·Â)`;
  const withNumbers = `−${factors.withNumbers}·min(${show(ratio)}·(${show(advantage)}), ${show(bound)}·(${show(advantage)}))`;
  const way = advantage > 0 ? 'likelier' : 'rarer';
  const remark = isDual
    ? `Bounded by dual clip at ${show(dualClip)}·Â: no gradient.`
    : advantage === 0
      ? 'The advantage is 0: no gradient of the policy term.'
      : clipped < ratio * advantage || (advantage < 0 && ratio < 1 - clipLow)
        ? `Clipped at the ${advantage > 0 ? 'upper' : 'lower'} bound: no gradient of the policy term.`
        : `Not clipped: the update makes this token ${way}.`;
  return {
    term: {
      name: 'policy',
      formula,
      withNumbers,
      value: -w * (token.factor ?? 1) * objectiveValue,
    },
    remark,
  };
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
    of: 'implicit reward',
    formula: `r = Σ ${formula}`,
    withNumbers: `${withNumbers} = ${show(reward)}`,
    terms: [{ name: 'implicit reward', formula, withNumbers, value: reward }],
    total: reward,
    remark:
      'Its part of the implicit reward. The loss compares the sums of the chosen and of the rejected completion.',
  };
}
