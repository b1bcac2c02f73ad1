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

const LLAMA2 = 'Touvron et al. 2023 (Llama 2), arXiv:2307.09288, §3.1';

/**
 * Settings of a supervised fine-tuning run. Keys are the same in code, in config files and after `--set`. Defaults are
 * those of Llama 2's fine-tuning where it names one; the length is shorter, so that a first run fits a laptop.
 */
export const SftConfig = z
  .strictObject({
    epochs: z
      .number()
      .positive()
      .default(2)
      .meta({
        description: 'Passes over the training rows. Ignored where maxSteps is set.',
        origin: `${LLAMA2}: "we fine-tune the model for 2 epochs".`,
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
        origin: `${LLAMA2}: "a batch size of 64".`,
      }),
    maxLength: z.int().min(2).default(1024).meta({
      description:
        'Most tokens of one row, prompt included; never more than the model has positions.',
      origin: 'TRL 1.13, SFTConfig.max_length. Llama 2 used 4096.',
    }),
    overlong: z.enum(['truncate', 'truncateStart', 'split', 'drop']).default('truncate').meta({
      description:
        'What happens to longer rows: truncate keeps their beginning, truncateStart their end, split makes several of a {text} or {messages} row, drop skips them.',
      origin: 'TRL 1.13, which truncates.',
    }),
    assistantOnly: z.boolean().default(false).meta({
      description:
        'Trains only what the assistant wrote in conversations, in every turn: what the chat template marks by {% generation %}, or, without marks, what each answer adds to the text before it.',
      origin: 'TRL 1.13, SFTConfig.assistant_only_loss.',
    }),
    streaming: streamingSetting,
    packing: z.boolean().default(false).meta({
      description:
        'Puts several rows of a step into one line of a pass (best-fit decreasing), each seeing only itself. Changes time and memory, never the result.',
      origin:
        'TRL 1.13, SFTConfig.packing (strategy bfd). There packing also changes what a step is trained on; here batchSize counts rows either way.',
    }),
    learningRate: learningRateSetting(
      2e-5,
      `${LLAMA2}: "an initial learning rate of 2 × 10⁻⁵". Models made on the spot need about 1e-3.`,
    ),
    warmupSteps: warmupStepsSetting(0, 'Ours: Llama 2 names no warm-up for fine-tuning.'),
    schedule: scheduleSetting('cosine', `${LLAMA2}: "a cosine learning rate schedule".`),
    weightDecay: weightDecaySetting(0.1, `${LLAMA2}: "a weight decay of 0.1".`),
    ...optimizerSettings,
    lora: loraSetting(),
    ...runSettings,
  })
  .meta({ title: 'SFT' });

/** Resolved settings of a supervised fine-tuning run. Every counted token of a step weighs the same (tokenMean). */
export type SftConfig = z.output<typeof SftConfig>;
/** Settings of a supervised fine-tuning run as a user writes them: every key may be left out. */
export type SftConfigInput = z.input<typeof SftConfig>;
