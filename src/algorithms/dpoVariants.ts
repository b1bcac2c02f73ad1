/** The losses on pairs that `dpoLoss` offers, and what each of them needs. Their formulas: dpoObjectives.ts. */

/** Every variant, with TRL's names. */
export const DPO_VARIANTS = [
  'sigmoid',
  'robust',
  'hinge',
  'ipo',
  'exo_pair',
  'nca_pair',
  'bco_pair',
  'sppo_hard',
  'aot',
  'aot_unpaired',
  'apo_zero',
  'apo_down',
  'discopop',
  'sigmoid_norm',
] as const;

/** A loss on pairs of completions. */
export type DpoVariant = (typeof DPO_VARIANTS)[number];

/** What a variant reads, and what it may be combined with. */
export interface DpoVariantTraits {
  /** It divides by the lengths of the completions. */
  readonly needsLengths: boolean;
  /** `required`: it has no value at ε = 0. `unused`: it never reads ε. */
  readonly labelSmoothing: 'unused' | 'optional' | 'required';
  /** Its rows are not the pairs: the whole minibatch is one call, with equal weights. */
  readonly couplesBatch: boolean;
  /**
   * It depends on the difference of the scores, in which the partition function of an f-divergence cancels. The others
   * have no form with another divergence than the reverse KL.
   */
  readonly acceptsFDivergence: boolean;
}

const ON_DIFFERENCES: DpoVariantTraits = {
  needsLengths: false,
  labelSmoothing: 'unused',
  couplesBatch: false,
  acceptsFDivergence: true,
};
const ON_LOG_RATIOS: DpoVariantTraits = { ...ON_DIFFERENCES, acceptsFDivergence: false };
const SORTED: DpoVariantTraits = {
  ...ON_LOG_RATIOS,
  labelSmoothing: 'optional',
  couplesBatch: true,
};

/** What each variant needs. */
export const DPO_VARIANT_TRAITS: Readonly<Record<DpoVariant, DpoVariantTraits>> = {
  sigmoid: { ...ON_DIFFERENCES, labelSmoothing: 'optional' },
  robust: { ...ON_DIFFERENCES, labelSmoothing: 'optional' },
  hinge: ON_DIFFERENCES,
  ipo: { ...ON_DIFFERENCES, needsLengths: true },
  exo_pair: { ...ON_DIFFERENCES, labelSmoothing: 'required' },
  nca_pair: ON_LOG_RATIOS,
  bco_pair: ON_LOG_RATIOS,
  sppo_hard: ON_LOG_RATIOS,
  aot: SORTED,
  aot_unpaired: SORTED,
  apo_zero: ON_LOG_RATIOS,
  apo_down: ON_LOG_RATIOS,
  discopop: ON_DIFFERENCES,
  sigmoid_norm: { ...ON_DIFFERENCES, needsLengths: true, labelSmoothing: 'optional' },
};
