/** Settings that every on-policy method shares: sampling, rewards, the clip range, how a loss is averaged. */
import * as z from 'zod';
import { frozenWeightsSetting, samplesMegabytesSetting } from './sharedSettings.js';

const DEEPSEEK_MATH = 'Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300';
const PPO = 'Schulman et al. 2017 (PPO), arXiv:1707.06347, Table 1';

/** How token losses become one number. */
export function reductionSetting(
  kind: 'sequenceMean' | 'tokenMean',
  origin: string,
): z.ZodDefault<typeof reduction> {
  return reduction.default({ kind }).meta({
    description:
      'How token losses become one number: sequenceMean (each completion counts the same), tokenMean (each token), constant (sum over budget), sequenceSum, promptMean (each prompt).',
    origin,
  });
}

const reduction = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('sequenceMean') }),
  z.strictObject({ kind: z.literal('tokenMean') }),
  z.strictObject({
    kind: z.literal('constant'),
    budget: z.int().min(1).nullable().default(null).meta({
      description:
        'Tokens that every completion is divided by, whatever its length; null: sampling.maxNewTokens.',
      origin: 'Dr. GRPO (arXiv:2503.20783), §3.2: "a constant value (e.g., generation budget)".',
    }),
  }),
  z.strictObject({ kind: z.literal('sequenceSum') }),
  z.strictObject({ kind: z.literal('promptMean') }),
]);

/** ε_low and ε_high: distances from 1 at which the ratio is clipped. */
export const clipSetting = z
  .strictObject({
    low: z
      .number()
      .positive()
      .default(0.2)
      .meta({
        description:
          'ε_low: ratios below 1 − low are clipped where the advantage is negative; from 1 on there is no lower bound.',
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

/** How completions are sampled. */
export const samplingSetting = z
  .strictObject({
    maxNewTokens: z.int().min(1).default(256).meta({
      description: 'Most tokens of one completion; with an environment, of one turn.',
      origin: `TRL's max_completion_length. DeepSeekMath used 1024.`,
    }),
    temperature: z.number().positive().default(1).meta({
      description: 'Temperature of sampling; the policy is trained at the same one.',
      origin: 'Ours: 1 is the distribution that the objective is about.',
    }),
    topK: z.int().min(0).default(0).meta({
      description: 'Only the k most likely tokens; 0 is off. Needs keepSamplingMask.',
      origin: 'Ours: off.',
    }),
    topP: z.number().positive().max(1).default(1).meta({
      description: 'Only the nucleus of this probability; 1 is off. Needs keepSamplingMask.',
      origin: 'Ours: off.',
    }),
    minP: z.number().min(0).lt(1).default(0).meta({
      description:
        'Only tokens at least this fraction as likely as the most likely one; 0 is off. Needs keepSamplingMask.',
      origin: 'Ours: off.',
    }),
    keepSamplingMask: z.boolean().default(false).meta({
      description:
        'Store which tokens truncation left at every step, and renormalise policy and reference on them.',
      origin: 'DeepSeek-V3.2 2025, arXiv:2512.02556, §3.1. Off unless something is truncated.',
    }),
  })
  .prefault({})
  .meta({
    refused: {
      repetitionPenalty:
        'a penalty makes the sampler another distribution than the policy that is trained',
    },
  });

/** Rollouts and rewards. */
export const rolloutSettings = {
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
  sampling: samplingSetting,
  frozenWeights: frozenWeightsSetting,
  maxTurns: z.int().min(1).default(4).meta({
    description: 'Most turns of the model in one episode. Without an environment there is one.',
    origin: 'Ours.',
  }),
  maxPromptLength: z.int().min(1).default(512).meta({
    description: 'Rows whose prompt has more tokens are left out.',
    origin: 'Ours.',
  }),
  rewardWeights: z.record(z.string(), z.number()).default({}).meta({
    description: 'Weights of rewards by name. A reward that is not named here keeps its own, 1.',
    origin: 'Ours.',
  }),
  rewardTimeoutSeconds: z.number().positive().default(30).meta({
    description:
      'How long an asynchronous reward (or environment) may take per completion (or turn).',
    origin: 'Ours.',
  }),
  rewardConcurrency: z.int().min(1).default(32).meta({
    description: 'How many calls of rewards or of the environment may wait at the same time.',
    origin: 'Ours.',
  }),
  samplesPerStep: z.int().min(0).default(4).meta({
    description:
      'Completions per step that are written to samples.jsonl with all their tokens, rounded up to whole groups.',
    origin: 'Ours: enough to read, little enough to keep.',
  }),
  sampleAlternatives: z.int().min(0).max(100).default(5).meta({
    description:
      'Most likely tokens that are written to samples.jsonl at every token of these completions; 0 writes none.',
    origin: 'Ours: as many as a list beside a token shows at a glance.',
  }),
  samplesMegabytes: samplesMegabytesSetting,
};

/** Completions per optimizer step. */
export const minibatchSizeSetting = z
  .int()
  .min(1)
  .nullable()
  .default(null)
  .meta({
    description:
      'Completions per optimizer step, a multiple of groupSize; null takes the whole rollout.',
    origin: `${DEEPSEEK_MATH}, §4.2, as for updatesPerRollout.`,
  });
