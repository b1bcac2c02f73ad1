/** What a pair of completions loses by, whatever the method: from log-probabilities of whole completions. */
import {
  cpoLoss,
  DPO_VARIANT_TRAITS,
  DPO_VARIANTS,
  dpoLoss,
  orpoLoss,
  simpoLoss,
  type DpoVariant,
} from '../algorithms/index.js';
import type { CpoConfig, DpoConfig, OrpoConfig, SimpoConfig } from '../config/index.js';
import type { Tensor } from '../torch/index.js';

/** A method on pairs with its settings. */
export type PairMethod =
  | { readonly method: 'dpo'; readonly config: DpoConfig }
  | { readonly method: 'orpo'; readonly config: OrpoConfig }
  | { readonly method: 'simpo'; readonly config: SimpoConfig }
  | { readonly method: 'cpo'; readonly config: CpoConfig };

/** Log-probabilities of whole completions, [B] each, and their lengths in tokens. */
export interface PairLogprobs {
  /** nats, sums over the tokens. Gradients flow through them. */
  readonly chosenLogprobs: Tensor;
  readonly rejectedLogprobs: Tensor;
  /** [B] tokens */
  readonly chosenLengths: Tensor;
  readonly rejectedLengths: Tensor;
  /** nats, constant; absent where the method has no reference. */
  readonly refChosenLogprobs?: Tensor | undefined;
  readonly refRejectedLogprobs?: Tensor | undefined;
}

/** [B] each; `loss` has the gradient. */
export interface PairLosses {
  readonly loss: Tensor;
  readonly chosenRewards: Tensor;
  readonly rejectedRewards: Tensor;
  /** Further numbers of each pair, for the metrics. */
  readonly stats?: Readonly<Record<string, Tensor>> | undefined;
}

/** What a DPO loss is made of. */
export type DpoLossSettings = Pick<
  DpoConfig,
  | 'beta'
  | 'losses'
  | 'labelSmoothing'
  | 'fDivergence'
  | 'alphaDivergenceCoef'
  | 'discopopTau'
  | 'referenceFree'
  | 'nllCoef'
>;

/** Whether the loss of a pair depends on the other pairs of the batch. */
export function couplesPairs({ losses }: Pick<DpoConfig, 'losses'>): boolean {
  return DPO_VARIANTS.some((name) => name in losses && DPO_VARIANT_TRAITS[name].couplesBatch);
}

/**
 * The loss of each pair.
 *
 * @param rewardShift δ of bco_pair
 */
export function pairLosses(
  { method, config }: PairMethod,
  pairs: PairLogprobs,
  rewardShift = 0,
): PairLosses {
  const averages = averagesOf(pairs);
  const chosenNll = averages.chosenLogprobs.neg();
  switch (method) {
    case 'dpo':
      return dpoLosses(pairs, config, rewardShift);
    case 'simpo': {
      const { nllCoef, beta, gamma } = config;
      const found = simpoLoss({ ...averages, beta, gamma });
      if (nllCoef === 0) return found;
      return { ...found, loss: found.loss.add(chosenNll.mul(nllCoef)), stats: nllStats(chosenNll) };
    }
    case 'orpo': {
      const { logOddsRatio, ...found } = orpoLoss({ ...averages, chosenNll, beta: config.beta });
      return { ...found, stats: { logOddsRatio, ...nllStats(chosenNll) } };
    }
    case 'cpo': {
      const { chosenLogprobs, rejectedLogprobs } = pairs;
      const { beta, nllCoef } = config;
      const found = cpoLoss({ chosenLogprobs, rejectedLogprobs, chosenNll, beta, nllCoef });
      return nllCoef === 0 ? found : { ...found, stats: nllStats(chosenNll) };
    }
  }
}

/** The variants of DPO added by their weights, and the negative log-likelihood of the chosen completion. */
export function dpoLosses(
  pairs: PairLogprobs,
  config: DpoLossSettings,
  rewardShift: number,
): PairLosses {
  const { beta, labelSmoothing, fDivergence, alphaDivergenceCoef, discopopTau } = config;
  const { chosenLogprobs, rejectedLogprobs, ...others } = pairs;
  const variants = Object.entries(config.losses) as [DpoVariant, number][];
  const terms = variants.map(([variant, weight]) => {
    const term = dpoLoss({
      ...{ variant, beta, labelSmoothing, discopopTau, rewardShift, ...others },
      ...{ policyChosenLogprobs: chosenLogprobs, policyRejectedLogprobs: rejectedLogprobs },
      ...{ fDivergence, alphaDivergenceCoef, referenceFree: config.referenceFree },
    });
    return { ...term, loss: term.loss.mul(weight) };
  });
  const [{ loss: first, cappedExponents, ...rewards }, ...rest] = terms as NonEmpty<typeof terms>;
  const loss = rest.reduce((sum, term) => sum.add(term.loss), first);
  const chosenNll = averagesOf(pairs).chosenLogprobs.neg();
  return {
    ...rewards,
    loss: config.nllCoef === 0 ? loss : loss.add(chosenNll.mul(config.nllCoef)),
    stats: {
      ...(config.nllCoef > 0 && nllStats(chosenNll)),
      // ipo caps earlier than the other variants.
      ...(CAPPED.includes(fDivergence) && {
        cappedExponents: rest.reduce(
          (most, term) => most.maximum(term.cappedExponents),
          cappedExponents,
        ),
      }),
    },
  };
}

/** The likelihood term as a metric, which carries no gradient. */
function nllStats(chosenNll: Tensor): { nllLoss: Tensor } {
  return { nllLoss: chosenNll.detach() };
}

/** A rule demands that there is one variant. */
type NonEmpty<List extends readonly unknown[]> = [List[number], ...List[number][]];

/** Divergences whose exponent is capped. */
const CAPPED: readonly string[] = ['forward_kl', 'alpha_divergence'];

/** Log-probabilities per token. */
function averagesOf(pairs: PairLogprobs): { chosenLogprobs: Tensor; rejectedLogprobs: Tensor } {
  return {
    chosenLogprobs: pairs.chosenLogprobs.div(pairs.chosenLengths),
    rejectedLogprobs: pairs.rejectedLogprobs.div(pairs.rejectedLengths),
  };
}
