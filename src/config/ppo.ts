import * as z from 'zod';
import { loraSetting, NO_DROPOUT_ON_POLICY } from './loraSetting.js';
import {
  clipSetting,
  minibatchSizeSetting,
  reductionSetting,
  rolloutSettings,
} from './onPolicySettings.js';
import { KL_RULES, ON_POLICY_RULES, withRules, type Rule } from './rules.js';
import {
  JOB_WIDE,
  learningRateSetting,
  optimizerSettings,
  runSettings,
  scheduleSetting,
  warmupStepsSetting,
  weightDecaySetting,
  type JobWide,
} from './sharedSettings.js';

const STIENNON = 'Stiennon et al. 2020, arXiv:2009.01325, Appendix B.1';
const N_PLUS =
  'Huang et al. 2024 ("The N+ Implementation Details of RLHF with PPO"), arXiv:2403.17031';
const ZIEGLER = 'Ziegler et al. 2019, arXiv:1909.08593, §2.2';

const valueModel = z
  .discriminatedUnion('kind', [
    z.strictObject({
      kind: z.literal('separate'),
      initFrom: z
        .enum(['policy', 'reward', 'fresh'])
        .default('policy')
        .meta({
          description:
            'What the value network begins as: the policy, the (one) reward model, or random weights.',
          origin: `Ours, since there may be no reward model. ${STIENNON}: "initializing our policies to the supervised baseline, and our value functions to the reward model".`,
        }),
    }),
    z.strictObject({ kind: z.literal('sharedTrunk') }),
  ])
  .default({ kind: 'separate', initFrom: 'policy' })
  .meta({
    description:
      'The value model: a network of its own, or a head on the policy’s trunk, which then learns from both losses.',
    origin: `${STIENNON}: "we run with separate policy and value networks".`,
  });

const settings = z
  .strictObject({
    ...rolloutSettings,
    groupSize: z.int().min(1).default(1).meta({
      description:
        'Completions sampled per prompt. The value model is the baseline, not the group.',
      origin: 'Ours: different prompts tell more than further samples of the same.',
    }),
    updatesPerRollout: z
      .int()
      .min(1)
      .default(4)
      .meta({
        description: 'K: epochs over each rollout.',
        origin: `${STIENNON}: "do 4 epochs of optimization for each batch of rollouts". InstructGPT takes one.`,
      }),
    minibatchSize: minibatchSizeSetting,
    targetKl: z.number().positive().nullable().default(null).meta({
      description:
        'No further epoch once approxKl (nats per token, from the policy that sampled) of an epoch exceeds this; null is off.',
      origin: 'Ours: off, as in TRL.',
    }),
    clip: clipSetting,
    dualClip: z.number().gt(1).nullable().default(null).meta({
      description: 'c: the objective of a negative advantage is not below c·Â; null is off.',
      origin: 'Ours: off. Ye et al. 2020, arXiv:1912.09729, take 3.',
    }),
    valueModel,
    valueClip: z
      .number()
      .positive()
      .nullable()
      .default(0.2)
      .meta({
        description: 'How far a value may move from the one at the rollout; null is off.',
        origin: `${N_PLUS}, table of PPO: 0.2.`,
      }),
    vfCoef: z
      .number()
      .min(0)
      .default(0.1)
      .meta({
        description: 'Weight of the value loss in the total.',
        origin: `${N_PLUS}, table of PPO: 0.1.`,
      }),
    entropyCoef: z.number().min(0).default(0).meta({
      description: 'Weight of the entropy bonus.',
      origin: 'Ours: off, as in TRL and verl.',
    }),
    advantageEstimator: z.enum(['gae', 'monteCarlo']).default('gae').meta({
      description: 'GAE, or the discounted score less the value, without bootstrapping.',
      origin: 'Schulman et al. 2016, arXiv:1506.02438. monteCarlo equals gae with gaeLambda 1.',
    }),
    discount: z
      .number()
      .min(0)
      .max(1)
      .default(1)
      .meta({
        description: 'γ, once per token of the model.',
        origin: `${STIENNON}: "We set γ = 1 and λ = 0.95 for the advantage estimation".`,
      }),
    gaeLambda: z
      .number()
      .min(0)
      .max(1)
      .default(0.95)
      .meta({
        description: 'λ of GAE: 0 trusts the values, 1 the rewards.',
        origin: `${STIENNON}, the same sentence.`,
      }),
    bootstrapTruncated: z.boolean().default(false).meta({
      description:
        'Take the value after the last token for what a truncated completion would have gone on to earn.',
      origin: 'Ours: off, as in TRL. A truncated answer is mostly scored as it stands.',
    }),
    whitenAdvantages: z
      .boolean()
      .default(true)
      .meta({
        description: 'Standardise advantages over all counted tokens of the rollout.',
        origin: `${N_PLUS}, detail 25. Population variance over counted tokens.`,
      }),
    reduction: reductionSetting('tokenMean', 'TRL’s PPO and verl: the mean over tokens.'),
    klCoef: z
      .number()
      .min(0)
      .default(0.05)
      .meta({
        description: 'β: weight of the KL to the reference. 0 loads no reference model.',
        origin: `${STIENNON}: "We used a KL coefficient of 0.05 for both of the main runs we report results for".`,
      }),
    klPlacement: z.enum(['loss', 'reward']).default('reward').meta({
      description:
        'Whether the KL of each token is subtracted from its reward, or is a term of the loss.',
      origin: 'Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, §3.5, Eq. 2.',
    }),
    klEstimator: z.enum(['k1', 'k2', 'k3', 'k3Unbiased']).default('k1').meta({
      description: 'Estimator of the KL: k1 in the reward; k2, k3 or k3Unbiased in the loss.',
      origin: 'InstructGPT, Eq. 2: log(π/π_ref).',
    }),
    adaptiveKl: z
      .strictObject({
        target: z
          .number()
          .positive()
          .default(6)
          .meta({
            description: 'KL that is wanted, nats per completion.',
            origin: `${ZIEGLER}, and TRL’s default: 6.`,
          }),
        horizon: z.number().positive().default(10_000).meta({
          description: 'Completions over which klCoef may change by a factor of about 1.2.',
          origin: 'TRL’s default. Ziegler’s K_β of 0.1 is 1,000 completions of 10,000.',
        }),
      })
      .nullable()
      .default(null)
      .meta({
        description: 'Steer klCoef so that the KL meets a target; null keeps it fixed.',
        origin: `Ours: fixed, as in Stiennon et al. 2020. ${ZIEGLER}.`,
      }),
    rewardNormalization: z.enum(['none', 'running']).default('none').meta({
      description: 'running: scores less their mean so far, divided by their std so far.',
      origin: 'Ours: none, as in TRL.',
    }),
    rewardClip: z.number().positive().nullable().default(null).meta({
      description: 'Largest absolute score, after normalisation; null is off.',
      origin: 'Ours: off, as in TRL.',
    }),
    missingEosPenalty: z
      .number()
      .positive()
      .nullable()
      .default(null)
      .meta({
        description:
          'Subtracted from the score of a completion that was cut off, after normalisation and clipping; null is off.',
        origin: `Ours: off. Subtracted as in TRL; ${N_PLUS}, detail 23, sets the score to −1 instead.`,
      }),
    learningRate: learningRateSetting(
      3e-6,
      `${N_PLUS}, table of PPO: 3e-6. Models made on the spot need about 3e-4.`,
    ),
    valueLearningRate: z.number().positive().nullable().default(null).meta({
      description: 'Learning rate of the value network or head; null takes learningRate.',
      origin: 'Ours: the same, as in TRL.',
    }),
    warmupSteps: warmupStepsSetting(0, 'Ours: the N+ details name none.'),
    schedule: scheduleSetting('linear', `${N_PLUS}: linear to 0.`),
    weightDecay: weightDecaySetting(0, 'TRL 1.13 (from transformers): 0.'),
    ...optimizerSettings,
    lora: loraSetting(NO_DROPOUT_ON_POLICY),
    ...runSettings,
  })
  .meta({ title: 'PPO' });

const RULES: readonly Rule<Omit<z.output<typeof settings>, JobWide>>[] = [
  ...ON_POLICY_RULES,
  ...KL_RULES,
  {
    path: ['advantageEstimator'],
    reads: ['advantageEstimator', 'klPlacement', 'klCoef'],
    holds: ({ advantageEstimator, klPlacement, klCoef }) =>
      advantageEstimator === 'gae' || klCoef === 0 || klPlacement === 'loss',
    expected:
      'gae with the KL in the reward: monteCarlo knows one score per completion and would leave the KL out; gae with gaeLambda 1 is the same with a reward for every token',
  },
  {
    path: ['bootstrapTruncated'],
    reads: ['advantageEstimator', 'bootstrapTruncated'],
    holds: ({ advantageEstimator, bootstrapTruncated }) =>
      advantageEstimator === 'gae' || !bootstrapTruncated,
    expected: 'false with advantageEstimator monteCarlo, which does not bootstrap',
  },
  {
    path: ['adaptiveKl'],
    reads: ['adaptiveKl', 'klCoef'],
    holds: ({ adaptiveKl, klCoef }) => adaptiveKl === null || klCoef > 0,
    expected: 'null with klCoef 0: every multiple of 0 is 0',
  },
  {
    path: ['valueModel', 'initFrom'],
    reads: ['valueModel', 'lora'],
    holds: ({ valueModel: { kind, ...value }, lora }) =>
      lora === null || kind !== 'separate' || !('initFrom' in value) || value.initFrom !== 'fresh',
    expected:
      'policy or reward with lora: adapters on random weights that stay random learn little',
  },
  {
    path: ['adaptiveKl', 'horizon'],
    reads: ['adaptiveKl', 'promptsPerStep', 'groupSize'],
    holds: ({ adaptiveKl, promptsPerStep, groupSize }) =>
      adaptiveKl === null || promptsPerStep * groupSize < 5 * adaptiveKl.horizon,
    expected:
      'more than a fifth of promptsPerStep × groupSize: with less, one step could take klCoef to 0 or below',
  },
];

/**
 * Settings of a PPO run. Keys are the same in code, in config files and after `--set`. Defaults are those of Stiennon et
 * al. 2020 and of the N+ details, where they name one; sizes are smaller, so that a first run fits one small machine.
 */
export const PpoConfig = withRules(settings, RULES).meta({ title: 'PPO' });

/** Settings of PPO as a stage of a job, which has seed, device, dtype and microBatchTokens for all of its stages. */
export const PpoStageConfig = withRules(settings.omit(JOB_WIDE), RULES);

/** Resolved settings of a PPO run. */
export type PpoConfig = z.output<typeof settings>;
/** Settings of a PPO run as a user writes them: every key may be left out. */
export type PpoConfigInput = z.input<typeof settings>;
