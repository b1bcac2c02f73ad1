import * as z from 'zod';
import { rolloutSettings } from './onPolicySettings.js';
import { DPO_LOSS_RULES, dpoLossSettings, trainingSettings } from './preferences.js';
import { ON_POLICY_RULES, withRules, type Rule } from './rules.js';

const OAIF = 'Guo et al. 2024 (OAIF), arXiv:2402.04792';

const settings = z
  .strictObject({
    ...rolloutSettings,
    ...dpoLossSettings,
    missingEosPenalty: z.number().positive().nullable().default(null).meta({
      description: 'Subtracted from the score of a completion that was cut off; null is off.',
      origin: 'TRL 1.13, missing_eos_penalty: off.',
    }),
    referenceEvery: z
      .int()
      .min(1)
      .nullable()
      .default(null)
      .meta({
        description: 'Steps after which the reference becomes the policy; null never.',
        origin: `Ours: never, as in ${OAIF}.`,
      }),
    ...trainingSettings({
      learningRate: [
        5e-7,
        'TRL 1.13, OnlineDPOConfig: 5e-7. Models made on the spot need about 1e-4.',
      ],
      warmupSteps: [0, 'TRL 1.13 (from transformers): 0.'],
      schedule: ['constant', 'Ours: the end of a run is not known before it.'],
    }),
  })
  .meta({ title: 'Online-DPO' });

type Settings = z.output<typeof settings>;

/** Two completions of each prompt, all in one optimizer step: what the rules for rollouts judge. */
const sized = (config: Settings) => ({ ...config, groupSize: 2, minibatchSize: null });
const RULES: readonly Rule<Settings>[] = [
  ...DPO_LOSS_RULES,
  ...ON_POLICY_RULES.filter(({ reads }) => reads.every((name) => name in rolloutSettings)).map(
    ({ path, expected, holds }): Rule<Settings> => ({
      ...{ path, expected, reads: ['sampling'] },
      holds: (config) => holds(sized(config)),
    }),
  ),
];

/** Settings of an online DPO run: two completions of every prompt, of which the better scored one is the chosen. */
export const OnlineDpoConfig = withRules(settings, RULES).meta({ title: 'Online-DPO' });
/** Resolved settings of an online DPO run. */
export type OnlineDpoConfig = Settings;
/** Settings of an online DPO run as a user writes them: every key may be left out. */
export type OnlineDpoConfigInput = z.input<typeof settings>;
