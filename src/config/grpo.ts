import * as z from 'zod';
import {
  learningRateSetting,
  optimizerSettings,
  runSettings,
  scheduleSetting,
  warmupStepsSetting,
  weightDecaySetting,
} from './sharedSettings.js';

const DEEPSEEK_MATH = 'Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300';
const PPO = 'Schulman et al. 2017 (PPO), arXiv:1707.06347, Table 1';

const TRUNCATION =
  'training samples from the whole distribution. A truncated one would have to be stored per token and applied to the policy too; without that the ratio is not 1 on-policy but the kept probability mass';

const reduction = z
  .discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('sequenceMean') }),
    z.strictObject({ kind: z.literal('tokenMean') }),
    z.strictObject({
      kind: z.literal('constant'),
      budget: z.int().min(1).meta({
        description: 'Tokens that every completion is divided by, whatever its length.',
        origin: 'No default. Dr. GRPO (arXiv:2503.20783) takes the longest completion allowed.',
      }),
    }),
    z.strictObject({ kind: z.literal('sequenceSum') }),
    z.strictObject({ kind: z.literal('promptMean') }),
  ])
  .default({ kind: 'sequenceMean' })
  .meta({
    description:
      'How token losses become one number: sequenceMean (each completion counts the same), tokenMean (each token), constant with a budget (sum over budget), sequenceSum, promptMean (each prompt).',
    origin: `${DEEPSEEK_MATH}, Eq. 3.`,
  });

const clip = z
  .strictObject({
    low: z
      .number()
      .positive()
      .lt(1)
      .default(0.2)
      .meta({
        description: 'ε_low: ratios below 1 − low are clipped where the advantage is negative.',
        origin: `${PPO} (ε = 0.2).`,
      }),
    high: z
      .number()
      .positive()
      .default(0.2)
      .meta({
        description:
          'ε_high: ratios above 1 + high are clipped where the advantage is positive. DAPO raises it to 0.28.',
        origin: `${PPO} (ε = 0.2).`,
      }),
  })
  .prefault({});

const sampling = z
  .strictObject({
    maxNewTokens: z.int().min(1).default(256).meta({
      description: 'Most tokens of one completion.',
      origin: `TRL's max_completion_length. DeepSeekMath used 1024.`,
    }),
    temperature: z.number().positive().default(1).meta({
      description: 'Temperature of sampling; the policy is trained at the same one.',
      origin: 'Ours: 1 is the distribution that the objective is about.',
    }),
  })
  .prefault({})
  .meta({
    refused: {
      topK: TRUNCATION,
      topP: TRUNCATION,
      minP: TRUNCATION,
      repetitionPenalty:
        'a penalty makes the sampler another distribution than the policy that is trained',
    },
  });

/**
 * Settings of a GRPO run. Keys are the same in code, in config files and after `--set`. Defaults are DeepSeekMath's
 * (§4.2) where it names one; groups and completions are smaller, so that a first run fits one small machine.
 */
export const GrpoConfig = z
  .strictObject({
    steps: z.int().min(1).default(500).meta({
      description: 'Rollout phases of the run, each followed by its updates.',
      origin: 'Ours. Rewards tell when to stop; a run that is resumed with more steps goes on.',
    }),
    promptsPerStep: z
      .int()
      .min(1)
      .default(16)
      .meta({
        description: 'P: prompts per rollout phase.',
        origin: `${DEEPSEEK_MATH}, §4.2: a batch of 1024 completions, 64 of each prompt.`,
      }),
    groupSize: z.int().min(2).default(8).meta({
      description: 'G: completions sampled per prompt. Their mean reward is the baseline.',
      origin: `TRL's num_generations. DeepSeekMath used 64.`,
    }),
    sampling,
    maxPromptLength: z.int().min(1).default(512).meta({
      description: 'Rows whose prompt has more tokens are left out.',
      origin: 'Ours.',
    }),
    updatesPerRollout: z
      .int()
      .min(1)
      .default(1)
      .meta({
        description: 'μ: passes over each rollout. 1 keeps training on-policy.',
        origin: `${DEEPSEEK_MATH}, §4.2: "only has a single update following each exploration stage".`,
      }),
    minibatchSize: z
      .int()
      .min(2)
      .nullable()
      .default(null)
      .meta({
        description:
          'Completions per optimizer step, a multiple of groupSize; null takes the whole rollout.',
        origin: `${DEEPSEEK_MATH}, §4.2, as for updatesPerRollout.`,
      }),
    clip,
    klCoef: z
      .number()
      .min(0)
      .default(0.04)
      .meta({
        description:
          'β: weight of the KL to the reference in the loss. 0 loads no reference model.',
        origin: `${DEEPSEEK_MATH}, §4.2: "The KL coefficient is 0.04".`,
      }),
    klEstimator: z
      .enum(['k2', 'k3', 'k3Unbiased'])
      .default('k3')
      .meta({
        description:
          'Estimator of the KL in the loss. k2 has the right gradient only on-policy, k3Unbiased always; k3 is the published form and pulls towards the forward KL.',
        origin: `${DEEPSEEK_MATH}, Eq. 4.`,
        refusedValues: {
          k1: 'as a loss its expected gradient on-policy is zero, so it has no effect',
        },
      }),
    reduction,
    advantageScale: z
      .enum(['group', 'batch', 'none'])
      .default('group')
      .meta({
        description:
          'What the difference to the mean reward is divided by: the std of the group, of the batch, or nothing (Dr. GRPO).',
        origin: `${DEEPSEEK_MATH}, §4.1.2.`,
      }),
    rewardWeights: z.record(z.string(), z.number()).default({}).meta({
      description: 'Weights of rewards by name. A reward that is not named here keeps its own, 1.',
      origin: 'Ours.',
    }),
    rewardTimeoutSeconds: z.number().positive().default(30).meta({
      description: 'How long an asynchronous reward may take per completion.',
      origin: 'Ours.',
    }),
    rewardConcurrency: z.int().min(1).default(32).meta({
      description: 'How many calls of rewards may wait at the same time.',
      origin: 'Ours.',
    }),
    samplesPerStep: z.int().min(0).default(4).meta({
      description:
        'Completions per step that are written to samples.jsonl with all their tokens, rounded up to whole groups.',
      origin: 'Ours: enough to read, little enough to keep.',
    }),
    learningRate: learningRateSetting(
      1e-6,
      `${DEEPSEEK_MATH}, §4.2: "the learning rate of the policy model as 1e-6". Models made on the spot need about 3e-4.`,
    ),
    warmupSteps: warmupStepsSetting(0, 'Ours: DeepSeekMath names none.'),
    schedule: scheduleSetting('constant', 'Ours: DeepSeekMath names no schedule.'),
    weightDecay: weightDecaySetting(0, 'TRL 1.13 (from transformers): 0.'),
    ...optimizerSettings,
    ...runSettings,
  })
  .refine((c) => c.minibatchSize === null || c.minibatchSize % c.groupSize === 0, {
    error: 'a multiple of groupSize, so that no group is split',
    path: ['minibatchSize'],
    when: hasSizes,
  })
  .refine(
    (c) => c.minibatchSize === null || (c.promptsPerStep * c.groupSize) % c.minibatchSize === 0,
    {
      error:
        'a divisor of promptsPerStep × groupSize, so that every optimizer step sees as many completions',
      path: ['minibatchSize'],
      when: hasSizes,
    },
  )
  .meta({ title: 'GRPO' });

/** The rules about sizes can be judged as soon as the sizes themselves are sound, whatever else is wrong. */
function hasSizes({ issues }: z.core.ParsePayload): boolean {
  const sizes: unknown[] = ['minibatchSize', 'groupSize', 'promptsPerStep'];
  return !issues.some(({ code, path = [] }) =>
    path.length === 0 ? code === 'invalid_type' : sizes.includes(path[0]),
  );
}

/** Resolved settings of a GRPO run. `reduction.kind` promptMean takes its group size from `groupSize`. */
export type GrpoConfig = z.output<typeof GrpoConfig>;
/** Settings of a GRPO run as a user writes them: every key may be left out. */
export type GrpoConfigInput = z.input<typeof GrpoConfig>;
