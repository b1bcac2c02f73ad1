import * as z from 'zod';
import { loraSetting } from './loraSetting.js';
import {
  givenSampleSettings,
  learningRateSetting,
  optimizerSettings,
  runSettings,
  scheduleSetting,
  streamingSetting,
  warmupStepsSetting,
  weightDecaySetting,
} from './sharedSettings.js';

const TRL = 'TRL 1.13, PRMConfig';

/**
 * Settings of a process reward model run. Keys are the same in code, in config files and after `--set`. Defaults are
 * those of TRL's PRM trainer where it has one of its own.
 */
export const PrmConfig = z
  .strictObject({
    epochs: z.number().positive().default(2).meta({
      description: 'Passes over the training rows. Ignored where maxSteps is set.',
      origin:
        'Lightman et al. 2023, arXiv:2305.20050, Appendix F.1, where every process reward model is trained for two epochs.',
    }),
    maxSteps: z.int().min(1).nullable().default(null).meta({
      description: 'Optimizer steps of the run; null derives them from epochs.',
      origin: 'Ours.',
    }),
    batchSize: z.int().min(1).default(64).meta({
      description: 'Rows (worked answers) per optimizer step. Each of their steps weighs the same.',
      origin: 'Ours: as for reward models.',
    }),
    maxLength: z
      .int()
      .min(2)
      .default(1024)
      .meta({
        description:
          'Most tokens of one row: prompt, steps and separators; never more than the model has positions. Longer ones are faults.',
        origin: `${TRL}.max_length, where longer rows are cut.`,
      }),
    stepSeparator: z
      .string()
      .min(1)
      .default('\n')
      .meta({
        description:
          'Stands after every step; a step is judged at its last token. The saved model remembers it.',
        origin: `${TRL}.step_separator.`,
      }),
    faulty: z.enum(['stop', 'skip']).default('stop').meta({
      description:
        'What happens to rows that cannot be used (a column is missing, labels of another length, too long, a step without text): stop names the first one, skip leaves them out and counts them.',
      origin: 'Ours.',
    }),
    streaming: streamingSetting,
    ...givenSampleSettings('Rows'),
    learningRate: learningRateSetting(
      1e-5,
      `${TRL}.learning_rate. Models made on the spot need about 1e-3.`,
    ),
    warmupSteps: warmupStepsSetting(0, 'transformers 5, TrainingArguments.warmup_steps.'),
    schedule: scheduleSetting('linear', 'transformers 5, TrainingArguments.lr_scheduler_type.'),
    weightDecay: weightDecaySetting(0, 'transformers 5, TrainingArguments.weight_decay.'),
    ...optimizerSettings,
    lora: loraSetting(),
    ...runSettings,
  })
  .meta({ title: 'PRM' });

/** Resolved settings of a process reward model run. */
export type PrmConfig = z.output<typeof PrmConfig>;
/** Settings of a process reward model run as a user writes them: every key may be left out. */
export type PrmConfigInput = z.input<typeof PrmConfig>;
