import * as z from 'zod';
import { loraSetting } from './loraSetting.js';
import {
  learningRateSetting,
  optimizerSettings,
  runSettings,
  scheduleSetting,
  streamingSetting,
  warmupStepsSetting,
  weightDecaySetting,
} from './sharedSettings.js';

const INSTRUCT_GPT = 'Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155';
const APPENDIX = `${INSTRUCT_GPT}, Appendix C.2`;

/**
 * Settings of a reward model run. Keys are the same in code, in config files and after `--set`. Defaults are those of
 * InstructGPT's reward model where it names one.
 */
export const RewardConfig = z
  .strictObject({
    epochs: z
      .number()
      .positive()
      .default(1)
      .meta({
        description: 'Passes over the comparisons. Ignored where maxSteps is set.',
        origin: `${APPENDIX}: "trained for a single epoch over the full reward model training set"; "multiple epochs quickly overfit the model to the training data".`,
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
        description:
          'Comparisons per optimizer step: pairs, and all pairs of one ranking (rows with the same value in the column comparison) together as one.',
        origin: `${APPENDIX}: "a batch size of 64"; §3.5: "we train on all (K choose 2) comparisons from each prompt as a single batch element".`,
      }),
    maxLength: z.int().min(2).default(1024).meta({
      description:
        'Most tokens of a prompt with one of its completions; never more than the model has positions. Longer pairs are faults, see faulty: half a completion has another worth.',
      origin: 'TRL 1.13, RewardConfig.max_length.',
    }),
    faulty: z.enum(['stop', 'skip']).default('stop').meta({
      description:
        'What happens to rows that cannot be used (a column is missing, equal or empty completions, too long, margin not finite): stop names the first one, skip leaves them out and counts them.',
      origin: 'Ours.',
    }),
    streaming: streamingSetting,
    useMargins: z.boolean().default(true).meta({
      description:
        'Whether the chosen score must lead by the column margin, where a row has one: −log σ(r_c − r_r − m).',
      origin:
        'Touvron et al. 2023 (Llama 2), arXiv:2307.09288, Eq. 2; TRL 1.13, which uses the column where it is there.',
    }),
    centerCoef: z
      .number()
      .min(0)
      .default(0)
      .meta({
        description: 'Weight of (r_c + r_r)², which keeps scores around 0 while they are trained.',
        origin: `${INSTRUCT_GPT} and TRL 1.13 (center_rewards_coefficient) train without; Eisenstein et al. 2023, arXiv:2312.09244, take 0.01.`,
      }),
    normalizeOn: z
      .enum(['chosen', 'none'])
      .default('chosen')
      .meta({
        description:
          'Which completions have a mean score of 0 after training: the chosen ones, where no reference completions are given; none shifts nothing.',
        origin: `${INSTRUCT_GPT}, §3.5: "we normalize the reward model using a bias so that the labeler demonstrations achieve a mean score of 0 before doing RL". The chosen completions stand for them: ours.`,
      }),
    learningRate: learningRateSetting(
      9e-6,
      `${APPENDIX}: "a learning rate of lr = 9e-6". Models made on the spot need about 1e-3.`,
    ),
    warmupSteps: warmupStepsSetting(0, `Ours: ${INSTRUCT_GPT} names no warm-up.`),
    schedule: scheduleSetting('cosine', `${APPENDIX}: "a cosine learning rate schedule".`, {
      minRatio: 0.1,
      origin: `${APPENDIX}: "dropping to 10% of its initial value by the end of training".`,
    }),
    weightDecay: weightDecaySetting(0, 'TRL 1.13, RewardConfig.weight_decay.'),
    ...optimizerSettings,
    lora: loraSetting(),
    ...runSettings,
  })
  .meta({ title: 'Reward' });

/** Resolved settings of a reward model run. Every comparison of a step weighs the same. */
export type RewardConfig = z.output<typeof RewardConfig>;
/** Settings of a reward model run as a user writes them: every key may be left out. */
export type RewardConfigInput = z.input<typeof RewardConfig>;
