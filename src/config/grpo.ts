import * as z from 'zod';
import { loraSetting, NO_DROPOUT_ON_POLICY } from './loraSetting.js';
import { GRPO_RULES } from './grpoRules.js';
import {
  clipSetting,
  minibatchSizeSetting,
  reductionSetting,
  rolloutSettings,
} from './onPolicySettings.js';
import {
  JOB_WIDE,
  learningRateSetting,
  optimizerSettings,
  refusedInStage,
  runSettings,
  scheduleSetting,
  warmupStepsSetting,
  weightDecaySetting,
} from './sharedSettings.js';
import { withRules } from './rules.js';

const DEEPSEEK_MATH = 'Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300';
const DEEPSEEK_V32 = 'DeepSeek-V3.2 2025, arXiv:2512.02556, §3.1';
const DAPO = 'Yu et al. 2025 (DAPO), arXiv:2503.14476';

const objective = z
  .discriminatedUnion('kind', [
    z.strictObject({
      kind: z.literal('ppoClip'),
      dualClip: z.number().gt(1).nullable().default(null).meta({
        description: 'c: the objective of a negative advantage is not below c·Â; null is off.',
        origin: 'Ours: off, as in DeepSeekMath. Ye et al. 2020, arXiv:1912.09729, take 3.',
      }),
    }),
    z.strictObject({
      kind: z.literal('gspo'),
      level: z.enum(['sequence', 'token']).default('sequence').meta({
        description: 'sequence, or GSPO-token: the same ratio with a gradient per token.',
        origin: 'Zheng et al. 2025 (GSPO), arXiv:2507.18071, Eq. 5.',
      }),
    }),
    z.strictObject({
      kind: z.literal('cispo'),
      low: z.number().min(0).max(1).default(0).meta({
        description: 'Smallest importance weight. A bound of the ratio itself, not a distance.',
        origin: 'MiniMax-M1 2025, arXiv:2506.13585, §3.1, which has no lower bound.',
      }),
      high: z.number().min(1).default(5).meta({
        description: 'Largest importance weight. A bound of the ratio itself, not a distance.',
        origin:
          'Ours, in the range that ScaleRL (arXiv:2510.13786, A.17) found all the same. A bound below 1 would make every weight the same, as TRL’s default does.',
      }),
    }),
    z.strictObject({ kind: z.literal('reinforce') }),
    z.strictObject({
      kind: z.literal('groupPreference'),
      goodCompletions: z.int().min(1).nullable().default(null).meta({
        description:
          'k: how many of a group, by score, are the good ones, ties by index; null takes all with the highest score.',
        origin: 'Ours: with rewards of 0 and 1 no right completion is then called bad.',
      }),
      beta: z.number().positive().default(0.1).meta({
        description: 'β of the implicit reward β·log(π/π_ref).',
        origin: 'Rafailov et al. 2023 (DPO), arXiv:2305.18290, Appendix B.',
      }),
    }),
  ])
  .default({ kind: 'ppoClip', dualClip: null })
  .meta({
    description:
      'What is maximised per token: ppoClip and gspo (both with clip), cispo (with its own bounds), reinforce (no ratio), groupPreference (good against bad completions of a group).',
    origin: `${DEEPSEEK_MATH}, Eq. 3.`,
  });

const importanceWeights = z
  .strictObject({
    cap: z.number().positive().default(2).meta({
      description: 'Largest weight.',
      origin: 'Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL".',
    }),
    level: z.enum(['token', 'sequence']).default('token').meta({
      description: 'A weight per token, or the geometric mean of the row.',
      origin: 'The same.',
    }),
    mode: z.enum(['truncate', 'mask']).default('truncate').meta({
      description: 'What happens above the cap: the weight becomes the cap, or 0.',
      origin: 'The same for truncate; mask is IcePop’s (arXiv:2510.18855).',
    }),
  })
  .nullable()
  .default(null)
  .meta({
    description:
      'Truncated importance weights exp(oldLogprobs − rolloutLogprobs) on the policy term, for rollouts of other weights or of another engine; null is off.',
    origin: 'Ours: off. Our sampler and trainer agree up to rounding.',
  });

const dynamicSampling = z
  .strictObject({
    filterOn: z
      .enum(['accuracy', 'reward'])
      .default('accuracy')
      .meta({
        description:
          'What must vary in a group: accuracy (accuracyReward, before any penalty of ours), or the reward that is used, penalties included.',
        origin: `${DAPO}, §3.2: accuracy 0 or 1. A length penalty gives all-correct groups variance.`,
      }),
    accuracyReward: z.string().nullable().default(null).meta({
      description:
        'Name of the reward that is the accuracy; null takes the weighted sum before penalties.',
      origin: 'Ours.',
    }),
    maxRounds: z.int().min(1).default(4).meta({
      description:
        'Most rollouts per step. When they are spent, the batch is filled with groups without variance.',
      origin: 'Ours. The paper sets no bound; its code takes 10 generation batches.',
    }),
  })
  .nullable()
  .default(null)
  .meta({
    description: 'Sample further prompts until every group of the batch has variance; null is off.',
    origin: `Ours: off, as in DeepSeekMath. ${DAPO}, §3.2.`,
  });

const settings = z
  .strictObject({
    ...rolloutSettings,
    groupSize: z.int().min(1).default(8).meta({
      description: 'G: completions sampled per prompt.',
      origin: `TRL's num_generations. DeepSeekMath used 64.`,
    }),
    updatesPerRollout: z
      .int()
      .min(1)
      .default(1)
      .meta({
        description: 'μ: passes over each rollout. 1 keeps training on-policy.',
        origin: `${DEEPSEEK_MATH}, §4.2: "only has a single update following each exploration stage".`,
      }),
    minibatchSize: minibatchSizeSetting,
    objective,
    clip: clipSetting,
    baseline: z
      .enum(['groupMean', 'leaveOneOut', 'greedy', 'secondBest', 'none'])
      .default('groupMean')
      .meta({
        description:
          'What is subtracted from the reward: the mean of the group, of its other completions (RLOO), the reward of the greedy completion (SCST, ReMax), of the second best for the best alone (pass@k), or nothing (REINFORCE++, with whitenAdvantages).',
        origin: `${DEEPSEEK_MATH}, §4.1.2.`,
      }),
    advantageScale: z
      .enum(['group', 'batch', 'centered', 'none'])
      .default('group')
      .meta({
        description:
          'What the difference to the mean reward is divided by: the std of the group, of all rewards of the rollout (batch), of all such differences (centered, ScaleRL), or nothing (Dr. GRPO).',
        origin: `${DEEPSEEK_MATH}, §4.1.2.`,
      }),
    whitenAdvantages: z.boolean().default(false).meta({
      description: 'Standardise the advantages over all counted tokens of the rollout.',
      origin: 'Ours: off, as in DeepSeekMath. REINFORCE++ (arXiv:2501.03262) does.',
    }),
    reduction: reductionSetting('sequenceMean', `${DEEPSEEK_MATH}, Eq. 3.`),
    klCoef: z
      .number()
      .min(0)
      .default(0.04)
      .meta({
        description: 'β: weight of the KL to the reference. 0 loads no reference model.',
        origin: `${DEEPSEEK_MATH}, §4.2: "The KL coefficient is 0.04".`,
      }),
    klPlacement: z
      .enum(['loss', 'reward'])
      .default('loss')
      .meta({
        description:
          'Whether the KL is a term of the loss, or subtracted from the reward (of the completion; with baseline none, of each token).',
        origin: `${DEEPSEEK_MATH}, §4.1.1: "instead of adding KL penalty in the reward".`,
      }),
    klEstimator: z
      .enum(['k1', 'k2', 'k3', 'k3Unbiased'])
      .default('k3')
      .meta({
        description:
          'Estimator of the KL. In the loss: k2 has the right gradient only on-policy, k3Unbiased always (with a rolloutLag: ratioAgainst rollout); k3 is the published form and pulls towards the forward KL. In the reward: k1.',
        origin: `${DEEPSEEK_MATH}, Eq. 4.`,
      }),
    referenceEvery: z.int().min(1).nullable().default(null).meta({
      description:
        'Steps after which the reference is replaced by the policy, again and again; null keeps the first one.',
      origin: 'Ours: never, as in DeepSeekMath within an iteration. DeepSeek-R1 does.',
    }),
    normalizeRewards: z.boolean().default(false).meta({
      description:
        'Centre each reward and divide it by its std in the group before the weighted sum, so that no objective drowns another by its scale. With advantageScale batch it is GDPO.',
      origin: 'Ours: off. GDPO (arXiv:2601.05242) normalises each reward on its own.',
    }),
    overlongPenalty: z
      .strictObject({
        cacheTokens: z
          .int()
          .min(0)
          .nullable()
          .default(null)
          .meta({
            description:
              'How many tokens before sampling.maxNewTokens the penalty begins; null takes a fifth of them.',
            origin: `${DAPO}, §4.1: 4,096 before 20,480.`,
          }),
        weight: z
          .number()
          .positive()
          .default(1)
          .meta({
            description: 'What the penalty, from 0 to −1, is multiplied by.',
            origin: `${DAPO}, Eq. 13.`,
          }),
      })
      .nullable()
      .default(null)
      .meta({
        description:
          'Soft overlong penalty, added to the reward as a completion nears the limit; null is off.',
        origin: `Ours: off, as in DeepSeekMath. ${DAPO}, §3.4.`,
      }),
    overlongFiltering: z
      .boolean()
      .default(false)
      .meta({
        description:
          'Leave truncated completions out of the loss. They still count in the baseline.',
        origin: `Ours: off, as in DeepSeekMath. ${DAPO}, §3.4.`,
      }),
    dynamicSampling,
    dropGroupsWithoutVariance: z.boolean().default(false).meta({
      description:
        'Leave groups whose rewards are all equal out of the batch, so that they no longer count as rows, tokens or prompts.',
      origin: 'Ours: off, as in DeepSeekMath. ScaleRL (arXiv:2510.13786) does.',
    }),
    ratioAgainst: z.enum(['old', 'rollout']).default('old').meta({
      description:
        'Which log-probabilities the ratio ρ is taken against: oldLogprobs (the policy before this step’s first update), or rolloutLogprobs (the weights that drew the sample, for stale rollouts).',
      origin: 'Schulman et al. 2017, arXiv:1707.06347, Eq. 6. On-policy the two are the same.',
    }),
    importanceWeights,
    offPolicyMask: z
      .strictObject({
        threshold: z
          .number()
          .min(0)
          .meta({
            description: 'δ, nats per token: how far the policy may have moved from a bad sample.',
            origin: `No default: ${DEEPSEEK_V32}, Eq. 9, does not tell its δ.`,
          }),
      })
      .nullable()
      .default(null)
      .meta({
        description:
          'Leave rows with a negative advantage out of the policy term once the policy has moved away from them; null is off.',
        origin: `Ours: off, as in DeepSeekMath. ${DEEPSEEK_V32}.`,
      }),
    rolloutLag: z.int().min(0).default(0).meta({
      description:
        'Steps by which sampling runs ahead of training, as an asynchronous sampler does: a step trains on the rollout drawn this many steps before.',
      origin: 'Ours: 0 is on-policy.',
    }),
    learningRate: learningRateSetting(
      1e-6,
      `${DEEPSEEK_MATH}, §4.2: "the learning rate of the policy model as 1e-6". Models made on the spot need about 3e-4.`,
    ),
    warmupSteps: warmupStepsSetting(0, 'Ours: DeepSeekMath names none.'),
    schedule: scheduleSetting('constant', 'Ours: DeepSeekMath names no schedule.'),
    weightDecay: weightDecaySetting(0, 'TRL 1.13 (from transformers): 0.'),
    ...optimizerSettings,
    lora: loraSetting(NO_DROPOUT_ON_POLICY),
    ...runSettings,
  })
  .meta({ title: 'GRPO' });

const REFUSED = {
  keepRouting:
    'it replays which experts of a mixture a token was routed to (DeepSeek-V3.2, §3.1), and no model here is a mixture of experts',
};

/**
 * Settings of a GRPO run and of its family. Keys are the same in code, in config files and after `--set`. Defaults are
 * DeepSeekMath's (§4.2) where it names one; groups and completions are smaller, so that a first run fits one small
 * machine. Presets (`GRPO_PRESETS`) are settings too.
 */
export const GrpoConfig = withRules(settings, GRPO_RULES).meta({ title: 'GRPO', refused: REFUSED });

/** Settings of GRPO as a stage of a job, which has seed, device, dtype and microBatchTokens for all of its stages. */
export const GrpoStageConfig = withRules(settings.omit(JOB_WIDE), GRPO_RULES).meta({
  refused: { ...REFUSED, ...refusedInStage('grpo') },
});

/** Resolved settings of a GRPO run. `reduction.kind` promptMean takes its group size from `groupSize`. */
export type GrpoConfig = z.output<typeof settings>;
/** Settings of a GRPO run as a user writes them: every key may be left out. */
export type GrpoConfigInput = z.input<typeof settings>;
