import * as z from 'zod';
import { GrpoStageConfig } from './grpo.js';
import { rolloutSettings, samplingSetting } from './onPolicySettings.js';
import { PpoStageConfig } from './ppo.js';
import { DpoStageConfig } from './preferences.js';
import { RewardConfig } from './reward.js';
import { SftConfig } from './sft.js';
import { JOB_WIDE, refusedInStage, runSettings } from './sharedSettings.js';

const INSTRUCT_GPT = 'Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155';

const files = (description: string) =>
  z
    .union([z.string(), z.array(z.string()).min(1), z.null()])
    .default(null)
    .meta({ description, origin: 'Without a default: it is yours.' });
const one = (description: string) =>
  z
    .union([z.string(), z.null()])
    .default(null)
    .meta({ description, origin: 'Without a default: it is yours.' });

const inputs = z
  .strictObject({
    model: one('Folder of the model that everything begins with, and its tokenizer.'),
    base: one(
      'Where model is an adapter: its base model, where it is not what adapter_config.json names.',
    ),
    demonstrations: files(
      'Rows to fine-tune on: {prompt, completion}, {messages} or {text}. Where they are {prompt, completion}, the reward model’s scores have a mean of 0 on them.',
    ),
    prompts: files('Rows {prompt} that are sampled: for the annotator, and by ppo and grpo.'),
    preferences: files(
      'Rows {prompt, chosen, rejected} that people made, as `posttrain label` writes them, in the place of an annotator.',
    ),
    evalPrompts: files('Held-out rows {prompt}, on which base, SFT and final model are compared.'),
    annotator: one(
      'The reward by which an annotator ranks completions: a file (./reward.ts), a built-in reward, or a reward model (model:folder).',
    ),
    evalReward: one(
      'The true reward where it is known, measured on evalPrompts: a file or a built-in reward. No stage trains on it.',
    ),
  })
  .prefault({});

const sampling = samplingSetting
  .unwrap()
  .pick({ maxNewTokens: true })
  .extend({
    temperature: z.number().positive().default(1).meta({
      description: 'Temperature at which completions are sampled for the annotator.',
      origin: 'Ours: 1, so that pairs are of the distribution that reinforcement begins with.',
    }),
  })
  .prefault({});

const preferences = z
  .strictObject({
    completionsPerPrompt: z
      .int()
      .min(2)
      .default(4)
      .meta({
        description: 'K: completions of one prompt that are ranked together.',
        origin: `${INSTRUCT_GPT}, §3.5: "we present labelers with anywhere between K = 4 and K = 9 responses to rank".`,
      }),
    rankingsPerPrompt: z.int().min(1).default(1).meta({
      description: 'How often each prompt is ranked, each time with completions of its own.',
      origin: 'Ours: once. More where there are few prompts.',
    }),
    sampling,
    noise: z.number().min(0).default(1).meta({
      description:
        'How much the annotator errs: rewards are divided by it and compared as Plackett and Luce say; 0 never errs.',
      origin: 'Plackett 1975, Luce 1959 with the reward itself: 1. For pairs it is Bradley–Terry.',
    }),
    heldOutShare: z.number().min(0).lt(1).default(0.1).meta({
      description:
        'Share of the prompts whose preferences are trained on by nobody: agreement is measured on them. 0 holds out nothing.',
      origin: 'Ours.',
    }),
    maxPromptLength: rolloutSettings.maxPromptLength,
    rewardTimeoutSeconds: rolloutSettings.rewardTimeoutSeconds,
    rewardConcurrency: rolloutSettings.rewardConcurrency,
  })
  .prefault({})
  .meta({ refused: refusedInStage('preferences') });

/**
 * Settings of the whole pipeline: where it starts, which method ends it, and the settings of every stage under its name,
 * which are those of its own command.
 */
export const RlhfConfig = z
  .strictObject({
    inputs,
    method: z
      .enum(['ppo', 'grpo', 'dpo'])
      .default('ppo')
      .meta({
        description:
          'The last stage: ppo or grpo with the reward model, or dpo on the preferences without one.',
        origin: `${INSTRUCT_GPT}, §3.5: PPO.`,
      }),
    sft: SftConfig.omit(JOB_WIDE)
      .nullable()
      .prefault({})
      .meta({
        description:
          'Settings of the fine-tuning; null leaves it out: the model is fine-tuned already.',
        origin: 'Ours.',
        refused: refusedInStage('sft'),
      }),
    preferences,
    reward: RewardConfig.omit(JOB_WIDE)
      .prefault({})
      .meta({ refused: refusedInStage('reward') }),
    ppo: PpoStageConfig.prefault({}).meta({ refused: refusedInStage('ppo') }),
    grpo: GrpoStageConfig.prefault({}),
    dpo: DpoStageConfig.prefault({}).meta({ refused: refusedInStage('dpo') }),
    evalSamples: z.int().min(1).default(8).meta({
      description: 'Completions per held-out prompt that each model is measured by at the end.',
      origin: 'Ours.',
    }),
    seed: runSettings.seed,
    device: runSettings.device,
    dtype: runSettings.dtype,
    microBatchTokens: runSettings.microBatchTokens,
    track: runSettings.track,
  })
  .meta({ title: 'RLHF' });

/** Resolved settings of the pipeline. */
export type RlhfConfig = z.output<typeof RlhfConfig>;
/** Settings of the pipeline as a user writes them: every key may be left out. */
export type RlhfConfigInput = z.input<typeof RlhfConfig>;
