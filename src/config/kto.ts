import * as z from 'zod';
import { preferenceDataSettings, trainingSettings } from './preferences.js';
import { frozenWeightsSetting, givenSampleSettings } from './sharedSettings.js';

const KTO = 'Ethayarajh et al. 2024 (KTO), arXiv:2402.01306';

/** Settings of a KTO run. Keys are the same in code, in config files and after `--set`. */
export const KtoConfig = z
  .strictObject({
    ...preferenceDataSettings,
    ...givenSampleSettings('Rows'),
    frozenWeights: frozenWeightsSetting,
    batchSize: z
      .int()
      .min(2)
      .default(32)
      .meta({
        description:
          'Rows per optimizer step. The KL is estimated from prompts with the completions of others in the batch.',
        origin: `${KTO}, Table 1: an effective batch size of 32.`,
      }),
    beta: z
      .number()
      .positive()
      .default(0.1)
      .meta({
        description: 'β: how strongly the policy is held to the reference.',
        origin: `${KTO}, Table 1: 0.1 for Llama-3 8B, 0.05 after fine-tuning, more for instruction-tuned models.`,
      }),
    desirableWeight: z
      .number()
      .positive()
      .default(1)
      .meta({
        description: 'λ_D: weight of desirable rows.',
        origin: `${KTO}, Table 1: 1. With more of one kind, λ_D·n_D/(λ_U·n_U) should stay between 1 and 3/2 (Eq. 9).`,
      }),
    undesirableWeight: z
      .number()
      .positive()
      .default(1)
      .meta({ description: 'λ_U: weight of undesirable rows.', origin: `${KTO}, Table 1: 1.` }),
    ...trainingSettings({
      learningRate: [
        5e-6,
        `${KTO}, Table 1: 5e-6 with AdamW, 2 to 10 times that of DPO (§4.2). Models made on the spot need about 1e-4.`,
      ],
      warmupSteps: [0, 'TRL 1.13 (from transformers): 0.'],
      schedule: ['linear', 'TRL 1.13 (from transformers).'],
    }),
  })
  .meta({ title: 'KTO' });

/** Resolved settings of a KTO run. */
export type KtoConfig = z.output<typeof KtoConfig>;
/** Settings of a KTO run as a user writes them: every key may be left out. */
export type KtoConfigInput = z.input<typeof KtoConfig>;
