/** Settings of what learns from pairs of completions: DPO, and ORPO, SimPO and CPO, which need no reference. */
import * as z from 'zod';
import { loraSetting, NO_DROPOUT_IN_PREFERENCES } from './loraSetting.js';
import { withRules, type Rule } from './rules.js';
import {
  JOB_WIDE,
  learningRateSetting,
  optimizerSettings,
  runSettings,
  frozenWeightsSetting,
  givenSampleSettings,
  scheduleSetting,
  streamingSetting,
  warmupStepsSetting,
  weightDecaySetting,
  type JobWide,
} from './sharedSettings.js';

const RAFAILOV = 'Rafailov et al. 2023 (DPO), arXiv:2305.18290, Appendix B';
const SIMPO = 'Meng et al. 2024 (SimPO), arXiv:2405.14734';

/** How rows of preferences are read, whatever is learnt from them. */
export const preferenceDataSettings = {
  epochs: z.number().positive().default(1).meta({
    description: 'Passes over the training rows. Ignored where maxSteps is set.',
    origin: 'Ours: likelihoods of pairs that were seen before soon fall for both sides.',
  }),
  maxSteps: z.int().min(1).nullable().default(null).meta({
    description: 'Optimizer steps of the run; null derives them from epochs.',
    origin: 'Ours.',
  }),
  batchSize: z
    .int()
    .min(1)
    .default(64)
    .meta({
      description: 'Rows per optimizer step.',
      origin: `${RAFAILOV}: "batch size of 64".`,
    }),
  maxLength: z.int().min(2).default(1024).meta({
    description:
      'Most tokens of prompt and completion together; never more than the model has positions.',
    origin: 'TRL 1.13, DPOConfig.max_length.',
  }),
  faulty: z.enum(['stop', 'skip']).default('stop').meta({
    description:
      'Rows that cannot be used (a column is missing, equal or empty completions, too long): stop says where the first one is, skip leaves them out and counts them.',
    origin: 'Ours: a fault is seen before anything is trained.',
  }),
  streaming: streamingSetting,
};

const pairSampleSettings = givenSampleSettings('Pairs');

/** Optimizer, schedule and run, with the defaults of a method. */
export function trainingSettings(defaults: {
  learningRate: [number, string];
  warmupSteps: [number, string];
  schedule: ['constant' | 'linear' | 'cosine', string];
}) {
  return {
    learningRate: learningRateSetting(...defaults.learningRate),
    warmupSteps: warmupStepsSetting(...defaults.warmupSteps),
    schedule: scheduleSetting(...defaults.schedule),
    weightDecay: weightDecaySetting(0, 'TRL 1.13 (from transformers): 0.'),
    ...optimizerSettings,
    lora: loraSetting(NO_DROPOUT_IN_PREFERENCES),
    ...runSettings,
  };
}

const VARIANTS = [
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

const betaSetting = (value: number, description: string, origin: string) =>
  z.number().positive().default(value).meta({ description, origin });

const ALPHA = 0.5;
const DISCOPOP_TAU = 0.05;

/** Settings of a DPO loss, wherever its pairs come from. */
export const dpoLossSettings = {
  beta: betaSetting(
    0.1,
    'β: how strongly the policy is held to the reference. The implicit reward is β·log(π/π_ref).',
    `${RAFAILOV}: "β = 0.1".`,
  ),
  losses: z
    .partialRecord(z.enum(VARIANTS), z.number().positive())
    .default({ sigmoid: 1 })
    .meta({
      description: `Variants of the loss with their weights in the sum: ${VARIANTS.join(', ')}.`,
      origin: `${RAFAILOV.replace('Appendix B', 'Eq. 7')}: sigmoid alone.`,
    }),
  labelSmoothing: z.number().min(0).lt(0.5).default(0).meta({
    description:
      'ε: share of labels that are taken to be flipped (sigmoid, sigmoid_norm, robust, exo_pair, aot and aot_unpaired read it).',
    origin: 'TRL 1.13: 0. cDPO: Mitchell 2023; robust: Chowdhury et al. 2024, arXiv:2403.00409.',
  }),
  fDivergence: z
    .enum(['reverse_kl', 'forward_kl', 'js_divergence', 'alpha_divergence'])
    .default('reverse_kl')
    .meta({
      description: 'Which divergence to the reference is kept small.',
      origin: `${RAFAILOV.replace('Appendix B', 'Eq. 3')}: the reverse KL. Others: Wang et al. 2023, arXiv:2309.16240.`,
    }),
  alphaDivergenceCoef: z.number().positive().lt(1).default(ALPHA).meta({
    description: 'α of alpha_divergence.',
    origin: 'Ours: the middle of the two KL divergences. TRL 1.13 has 0.5.',
  }),
  discopopTau: z.number().positive().max(1).default(DISCOPOP_TAU).meta({
    description: 'τ of discopop.',
    origin: 'Lu et al. 2024, arXiv:2406.08414: 0.05.',
  }),
  rewardShift: z.enum(['none', 'runningMean']).default('none').meta({
    description: 'δ of bco_pair: 0, or the mean of all implicit rewards seen so far.',
    origin: 'TRL 1.13: 0. Jung et al. 2024, arXiv:2404.04656, take the running mean.',
  }),
};

const dpo = z
  .strictObject({
    ...preferenceDataSettings,
    ...pairSampleSettings,
    ...dpoLossSettings,
    referenceFree: z.boolean().default(false).meta({
      description: 'Take a uniform reference, so that no second model is loaded.',
      origin: 'Ours: off, as in the paper. TRL 1.13 has no such setting any more.',
    }),
    nllCoef: z.number().min(0).default(0).meta({
      description:
        'Weight of the mean negative log-likelihood of the chosen completion, which keeps it likely.',
      origin: 'Ours: off. Pang et al. 2024 (iterative RPO), arXiv:2404.19733, take 1.',
    }),
    frozenWeights: frozenWeightsSetting,
    reference: z.enum(['live', 'precomputed']).default('live').meta({
      description:
        'live reads the reference in every step; precomputed reads all pairs once before training and frees it.',
      origin: 'TRL 1.13, precompute_ref_log_probs: off.',
    }),
    referenceEvery: z.int().min(1).nullable().default(null).meta({
      description: 'Steps after which the reference moves towards the policy; null never.',
      origin: 'Ours: never. Gorbatovski et al. 2024 (TR-DPO), arXiv:2404.09656, §3.',
    }),
    referenceMix: z.number().positive().max(1).default(1).meta({
      description: 'α: the reference becomes α·policy + (1 − α)·reference. 1 replaces it.',
      origin: 'TR-DPO, §3: 1 is the hard update. The soft one takes 0.6 every step.',
    }),
    ...trainingSettings({
      learningRate: [
        1e-6,
        `${RAFAILOV}: "a learning rate of 1e-6 by default". Models made on the spot need about 1e-4.`,
      ],
      warmupSteps: [0, ''],
      schedule: ['constant', `${RAFAILOV} names no decay.`],
    }),
    warmupSteps: z
      .int()
      .min(0)
      .nullable()
      .default(null)
      .meta({
        description:
          'Optimizer steps over which the learning rate rises linearly from 0 to its peak; null for 150, of a shorter run a tenth of its steps.',
        origin: `${RAFAILOV}: "We linearly warmup the learning rate from 0 to 1e-6 over 150 steps". A run of 1,500 steps or less: Tunstall et al. 2023 (Zephyr), arXiv:2310.16944, §4.2, "10% warmup steps".`,
      }),
  })
  .meta({ title: 'DPO' });

/** The variants that read labelSmoothing. */
const SMOOTHED = new Set<string>([
  'sigmoid',
  'robust',
  'exo_pair',
  'aot',
  'aot_unpaired',
  'sigmoid_norm',
]);
/** The variants whose loss is a function of the difference that an f-divergence changes. */
const DIVERGENT = new Set<string>([
  'sigmoid',
  'robust',
  'hinge',
  'ipo',
  'exo_pair',
  'discopop',
  'sigmoid_norm',
]);

/** What must hold of a DPO loss. */
export const DPO_LOSS_RULES: readonly Rule<{
  readonly losses: Partial<Record<(typeof VARIANTS)[number], number>>;
  readonly labelSmoothing: number;
  readonly fDivergence: string;
  readonly alphaDivergenceCoef: number;
  readonly discopopTau: number;
  readonly rewardShift: string;
}>[] = [
  {
    path: ['losses'],
    reads: ['losses'],
    holds: ({ losses }) => Object.keys(losses).length > 0,
    expected: 'at least one variant of the loss',
  },
  {
    path: ['labelSmoothing'],
    reads: ['losses', 'labelSmoothing'],
    holds: ({ losses, labelSmoothing }) => !('exo_pair' in losses) || labelSmoothing > 0,
    expected: 'more than 0 with exo_pair, whose target would have the logarithm of 0 otherwise',
  },
  {
    path: ['labelSmoothing'],
    reads: ['losses', 'labelSmoothing'],
    holds: ({ losses, labelSmoothing }) =>
      labelSmoothing === 0 || Object.keys(losses).some((name) => SMOOTHED.has(name)),
    expected: `0 with losses that have no labels to smooth; ${[...SMOOTHED].join(', ')} have`,
  },
  {
    path: ['fDivergence'],
    reads: ['losses', 'fDivergence'],
    holds: ({ losses, fDivergence }) =>
      fDivergence === 'reverse_kl' || Object.keys(losses).every((name) => DIVERGENT.has(name)),
    expected: `reverse_kl with losses other than ${[...DIVERGENT].join(', ')}, which read no divergence`,
  },
  {
    path: ['rewardShift'],
    reads: ['losses', 'rewardShift'],
    holds: ({ losses, rewardShift }) => rewardShift === 'none' || 'bco_pair' in losses,
    expected: 'none without bco_pair, which alone reads it',
  },
  {
    path: ['alphaDivergenceCoef'],
    reads: ['fDivergence', 'alphaDivergenceCoef'],
    holds: ({ fDivergence, alphaDivergenceCoef }) =>
      alphaDivergenceCoef === ALPHA || fDivergence === 'alpha_divergence',
    expected: `${ALPHA} without the fDivergence alpha_divergence, which alone reads it`,
  },
  {
    path: ['discopopTau'],
    reads: ['losses', 'discopopTau'],
    holds: ({ losses, discopopTau }) => discopopTau === DISCOPOP_TAU || 'discopop' in losses,
    expected: `${DISCOPOP_TAU} without discopop, which alone reads it`,
  },
];

const DPO_RULES: readonly Rule<Omit<z.output<typeof dpo>, JobWide>>[] = [
  ...DPO_LOSS_RULES,
  {
    path: ['fDivergence'],
    reads: ['referenceFree', 'fDivergence'],
    holds: ({ referenceFree, fDivergence }) => !referenceFree || fDivergence === 'reverse_kl',
    expected: 'reverse_kl with referenceFree: there is no reference to diverge from',
  },
  {
    path: ['reference'],
    reads: ['reference', 'referenceFree'],
    holds: ({ reference, referenceFree }) => !referenceFree || reference === 'live',
    expected: 'live with referenceFree: there is no reference to compute before training',
  },
  {
    path: ['reference'],
    reads: ['reference', 'streaming'],
    holds: ({ reference, streaming }) => !streaming || reference === 'live',
    expected: 'live with streaming: precomputed reads all pairs before training and keeps them',
  },
  {
    path: ['referenceEvery'],
    reads: ['reference', 'referenceFree', 'referenceEvery'],
    holds: ({ reference, referenceFree, referenceEvery }) =>
      referenceEvery === null || (reference === 'live' && !referenceFree),
    expected: 'null unless the reference is live: what was computed before training cannot move',
  },
  {
    path: ['referenceMix'],
    reads: ['referenceEvery', 'referenceMix'],
    holds: ({ referenceEvery, referenceMix }) => referenceMix === 1 || referenceEvery !== null,
    expected: '1 without referenceEvery: a reference that never moves is not mixed',
  },
  {
    path: ['referenceMix'],
    reads: ['referenceMix', 'lora'],
    holds: ({ referenceMix, lora }) => referenceMix === 1 || lora === null,
    expected: '1 with lora: the mean of two adapters’ matrices is not the adapter of their mean',
  },
];

/** Settings of a DPO run. Keys are the same in code, in config files and after `--set`. */
export const DpoConfig = withRules(dpo, DPO_RULES).meta({ title: 'DPO' });
/** Settings of DPO as a stage of a job, which has seed, device, dtype and microBatchTokens for all of its stages. */
export const DpoStageConfig = withRules(dpo.omit(JOB_WIDE), DPO_RULES);
/** Resolved settings of a DPO run. */
export type DpoConfig = z.output<typeof dpo>;
/** Settings of a DPO run as a user writes them: every key may be left out. */
export type DpoConfigInput = z.input<typeof dpo>;

/** Settings of a SimPO run. */
export const SimpoConfig = z
  .strictObject({
    ...preferenceDataSettings,
    ...pairSampleSettings,
    beta: betaSetting(
      2,
      'β: scale of the reward β·log π(y|x)/|y|.',
      `${SIMPO}, Table 8: 2.0 for Llama-3-Base.`,
    ),
    gamma: z
      .number()
      .min(0)
      .default(1)
      .meta({
        description: 'γ: how much more reward the chosen completion should have.',
        origin: `${SIMPO}, Table 8: γ/β of 0.5 for Llama-3-Base.`,
      }),
    nllCoef: z.number().min(0).default(0).meta({
      description: 'Weight of the mean negative log-likelihood of the chosen completion.',
      origin: 'Ours: off. TRL 1.13 has CPO-SimPO, which adds it.',
    }),
    ...trainingSettings({
      learningRate: [6e-7, `${SIMPO}, Table 8: 6e-7 for Llama-3-Base.`],
      warmupSteps: [0, 'Ours: the paper takes a tenth of its steps.'],
      schedule: ['cosine', `${SIMPO}, §3: "a cosine learning rate schedule".`],
    }),
  })
  .meta({ title: 'SimPO' });
/** Resolved settings of a SimPO run. */
export type SimpoConfig = z.output<typeof SimpoConfig>;
/** Settings of a SimPO run as a user writes them. */
export type SimpoConfigInput = z.input<typeof SimpoConfig>;

/** Settings of an ORPO run. */
export const OrpoConfig = z
  .strictObject({
    ...preferenceDataSettings,
    ...pairSampleSettings,
    beta: betaSetting(
      0.1,
      'λ of the paper: weight of the odds-ratio term beside the negative log-likelihood.',
      'Hong et al. 2024 (ORPO), arXiv:2403.07691, §5.1: 0.1 for Mistral; also TRL 1.13.',
    ),
    ...trainingSettings({
      learningRate: [1e-6, 'TRL 1.13, ORPOConfig. Models made on the spot need about 1e-3.'],
      warmupSteps: [0, 'TRL 1.13 (from transformers): 0.'],
      schedule: ['linear', 'TRL 1.13 (from transformers).'],
    }),
  })
  .meta({ title: 'ORPO' });
/** Resolved settings of an ORPO run. */
export type OrpoConfig = z.output<typeof OrpoConfig>;
/** Settings of an ORPO run as a user writes them. */
export type OrpoConfigInput = z.input<typeof OrpoConfig>;

/** Settings of a CPO run. */
export const CpoConfig = z
  .strictObject({
    ...preferenceDataSettings,
    ...pairSampleSettings,
    beta: betaSetting(
      0.1,
      'β: scale of the difference of log-probabilities.',
      'Xu et al. 2024 (CPO), arXiv:2401.08417, §4; also TRL 1.13.',
    ),
    nllCoef: z.number().min(0).default(1).meta({
      description: 'Weight of the mean negative log-likelihood of the chosen completion.',
      origin: 'CPO, Eq. 5: the sum of both terms.',
    }),
    ...trainingSettings({
      learningRate: [1e-6, 'TRL 1.13, CPOConfig. Models made on the spot need about 1e-3.'],
      warmupSteps: [0, 'TRL 1.13 (from transformers): 0.'],
      schedule: ['linear', 'TRL 1.13 (from transformers).'],
    }),
  })
  .meta({ title: 'CPO' });
/** Resolved settings of a CPO run. */
export type CpoConfig = z.output<typeof CpoConfig>;
/** Settings of a CPO run as a user writes them. */
export type CpoConfigInput = z.input<typeof CpoConfig>;
