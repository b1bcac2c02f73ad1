/** LoRA as a setting of every method that trains a model. */
import * as z from 'zod';

const LORA = 'Hu et al. 2021, arXiv:2106.09685';
const REGRET = 'Schulman et al. 2025, "LoRA Without Regret"';

const DROPOUT = {
  description:
    "Probability with which an element of an adapter's input is dropped in a training pass, and nowhere else.",
  origin: `Ours: off. ${LORA} take 0 or 0.1.`,
};

const dropout = z.number().min(0).lt(1).default(0).meta(DROPOUT);

/** For methods that compare log-probabilities of one policy with those of another, or of another time. */
function noDropout(reason: string) {
  return z
    .number()
    .refine((value) => value === 0, { error: `0: ${reason}` })
    .default(0)
    .meta(DROPOUT);
}

/** Why methods that sample refuse dropout. */
export const NO_DROPOUT_ON_POLICY =
  'the policy that is updated would be another one than that which sampled, and its ratio to it not 1';

/** Why methods with a reference, or with margins between log-probabilities, refuse dropout. */
export const NO_DROPOUT_IN_PREFERENCES =
  'differences of log-probabilities would be noise: the first loss would not be that of equal models';

/**
 * Adapters in place of all weights; null trains the whole model.
 *
 * @param noDropoutBecause why this method refuses dropout; undefined where it does not
 */
export function loraSetting(noDropoutBecause?: string) {
  return z
    .strictObject({
      rank: z
        .int()
        .min(1)
        .default(16)
        .meta({
          description: 'r: rows of A and columns of B, of every adapter.',
          origin: `Ours: twice PEFT's. ${REGRET}: RL needs little, for supervised learning more examples need more.`,
        }),
      alpha: z
        .number()
        .positive()
        .default(32)
        .meta({
          description: 'α: B·A is multiplied by α/r (with rsLora α/√r).',
          origin: `${REGRET}: α = 32.`,
        }),
      dropout: noDropoutBecause === undefined ? dropout : noDropout(noDropoutBecause),
      targetModules: z
        .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
        .default('all-linear')
        .meta({
          description:
            'Layers with an adapter: a list of names (q_proj, mlp.up_proj), a regular expression for whole names, or all-linear, which is all but the output layer.',
          origin: `${REGRET}: all layers, the MLP above all. ${LORA} adapt q_proj and v_proj alone.`,
        }),
      rsLora: z.boolean().default(false).meta({
        description: 'Scale by α/√r, so that larger ranks learn as fast.',
        origin: `Ours: off, as in PEFT. Kalajdzievski 2023, arXiv:2312.03732.`,
      }),
      dora: z.boolean().default(false).meta({
        description: 'Also train the length of every row of the adapted weights.',
        origin: 'Ours: off, as in PEFT. Liu et al. 2024 (DoRA), arXiv:2402.09353.',
      }),
      modulesToSave: z.array(z.string().min(1)).default([]).meta({
        description:
          'How names of layers end that are trained as a whole and saved with the adapter. A new head always is.',
        origin: 'Ours: none, as in PEFT.',
      }),
    })
    .nullable()
    .default(null)
    .meta({
      description:
        'Train low-rank adapters in place of all weights (--set lora.rank=16, or lora={} for its defaults); null trains all. The reference is then the model without them, and no second copy.',
      origin: `Ours: off. ${LORA}.`,
    });
}

/** Resolved settings of LoRA; null where the whole model is trained. */
export type LoraConfig = z.output<ReturnType<typeof loraSetting>>;
