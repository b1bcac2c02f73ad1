/**
 * Settings that several methods share. Every one carries its help (`description`) and where its default comes from
 * (`origin`): a sentence of a paper, the default of another program, or plainly our own choice.
 */
import * as z from 'zod';

/** Which rows of the data are trained on and which are held out. */
const data = z
  .strictObject({
    split: z.string().min(1).nullable().default(null).meta({
      description:
        'Split of a data-set folder to train on (--split); null is train. Files have no splits.',
      origin: 'datasets.load_dataset and TRL 1.13 (dataset_train_split): train.',
    }),
    subset: z.string().min(1).nullable().default(null).meta({
      description:
        'Configuration (subset) of a data-set folder that has several (--data-config); null is its default.',
      origin: 'datasets.load_dataset, name.',
    }),
    evalSplit: z.string().min(1).nullable().default(null).meta({
      description:
        'Split that is held out (--eval-split), of the evaluation data or, without those, of the training data; null is test, of evaluation data.',
      origin: 'TRL 1.13, dataset_test_split: test.',
    }),
    holdOut: z.number().positive().nullable().default(null).meta({
      description:
        'Rows of the training data that are held out to measure on, chosen by the seed: a share below 1, or a number of rows. null holds out none.',
      origin: 'datasets, train_test_split(test_size).',
    }),
    weights: z.array(z.number().positive()).min(2).nullable().default(null).meta({
      description:
        'Shares of several --data in an epoch, such as [3,1]; null takes every row once. An epoch stays as long; a small source repeats.',
      origin: 'Ours.',
    }),
  })
  .prefault({});

/** Who is told of the run beside its directory. */
const track = z
  .strictObject({
    mlflow: z
      .string()
      .refine((value) => value === 'env' || (URL.canParse(value) && /^https?:/.test(value)), {
        error: 'null, env, or the address of a server such as http://localhost:5000',
      })
      .nullable()
      .default(null)
      .meta({
        description:
          'Address of an MLflow server that is told the settings and every metric too; env takes that of MLFLOW_TRACKING_URI. null tells none. See docs/trackers.md.',
        origin: 'Ours: off. TensorBoard reads the run directory as it is.',
      }),
    experiment: z.string().min(1).max(250).default('posttrain').meta({
      description: 'Experiment of MLflow that the run belongs to; made where there is none.',
      origin: 'Ours.',
    }),
  })
  .prefault({});

/** Whether rows stay in their files. */
export const streamingSetting = z.boolean().default(false).meta({
  description:
    'Leaves rows in their files and reads each when it is trained (.jsonl, .csv, .parquet): for data larger than memory. Changes memory and time, never the order or the result.',
  origin: 'Ours: off, because what fits into memory is faster there.',
});

/** What a run is: its seed, where it computes, what it writes and how often. */
export const runSettings = {
  data,
  seed: z.int().min(0).default(0).meta({
    description: 'Seed from which every random choice of the run is derived.',
    origin: 'Ours. Any number will do.',
  }),
  device: z.enum(['auto', 'cpu', 'cuda']).default('auto').meta({
    description: 'Where the model computes. auto takes CUDA where it can be used, else the CPU.',
    origin: 'Ours.',
  }),
  dtype: z
    .enum(['float32', 'bfloat16', 'float64'])
    .default('float32')
    .meta({
      description: 'Number type the model is loaded and computed in.',
      origin:
        'Ours: exact enough for ratios of probabilities, and updates do not vanish as in bfloat16.',
      refusedValues: {
        float16:
          'gradients below 6e-8 become 0 in it, and there is no loss scaling; bfloat16 has the range of float32',
      },
    }),
  microBatchTokens: z.int().min(1).default(2048).meta({
    description:
      'Most tokens, padding included, of one forward pass. Changes memory, never the result.',
    origin:
      'Ours: on two cores more is not faster and takes more memory (npm run bench -- growth). A GPU may want 8192 or more.',
  }),
  precision: z.enum(['full', 'bf16-mixed']).default('full').meta({
    description:
      'full computes in dtype. bf16-mixed keeps weights, gradients and optimizer in float32 and computes matrix products and attention in bfloat16; norms, softmax and losses stay in float32. See docs/memory.md.',
    origin: 'Ours: full, so that the first run is exact. Names as in PyTorch Lightning.',
  }),
  gradientCheckpointing: z.boolean().default(false).meta({
    description:
      'Keeps the input of each layer only and computes the layer again in the backward pass: a forward pass more for much less memory. Never changes the result.',
    origin: 'Chen et al. 2016, arXiv:1604.06174. Ours: off.',
  }),
  float32Head: z.boolean().default(false).meta({
    description:
      'Computes the output layer in float32 in trainer and sampler, whatever the rest is computed in. Changes nothing in float32.',
    origin: 'Khatri et al. 2025 (ScaleRL), arXiv:2510.13786, take it. Ours: off.',
  }),
  memoryCheck: z.enum(['refuse', 'warn']).default('refuse').meta({
    description:
      'What happens when the estimate says that the run does not fit into memory: refuse stops before anything is loaded, warn goes on.',
    origin: 'Ours: the kernel ends a process that takes too much without a word.',
  }),
  checkpointEvery: z.int().min(1).nullable().default(100).meta({
    description: 'Steps between checkpoints; null writes one at the end only.',
    origin: 'Ours.',
  }),
  keepCheckpoints: z.int().min(1).nullable().default(3).meta({
    description: 'How many of the newest checkpoints stay on disk; null keeps all.',
    origin: 'Ours: one to continue from, two to fall back to.',
  }),
  logEvery: z.int().min(1).default(10).meta({
    description: 'Steps between lines in log.txt. metrics.jsonl has every step.',
    origin: 'Ours.',
  }),
  evalEvery: z.int().min(1).nullable().default(null).meta({
    description:
      'Steps between measurements on the evaluation data; null measures after the last step only.',
    origin: 'Ours.',
  }),
  track,
};

/** Where a run's frozen models are between uses. */
export const frozenWeightsSetting = z.enum(['disk', 'memory']).default('disk').meta({
  description:
    'Where the weights of the reference and of reward models are while nothing reads them: disk puts them into a nameless file beside the run, from which they come back page by page; memory keeps them. With LoRA the reference has none of its own. CPU only. Never changes the result.',
  origin:
    'Ours: a reference is read once per rollout, and would take as much memory as the policy.',
});

/** Settings that a job of several stages has once, for all of them. */
export const JOB_WIDE = {
  data: true,
  seed: true,
  device: true,
  dtype: true,
  microBatchTokens: true,
  track: true,
} as const;

/** Keys of `JOB_WIDE`. */
export type JobWide = keyof typeof JOB_WIDE;

/** Why a stage refuses those settings; `stage` is the key that its own stand under. */
export function refusedInStage(stage: string): Readonly<Record<JobWide, string>> {
  const reason = `it is a setting of the whole job: set it beside ${stage}`;
  return {
    data: 'the job is given its data as a whole, not each stage',
    seed: `${reason}, each stage derives its own from it`,
    device: reason,
    dtype: reason,
    microBatchTokens: reason,
    track: reason,
  };
}

/** AdamW and gradient clipping, without what differs from method to method (learning rate, schedule, decay). */
export const optimizerSettings = {
  adamBeta1: z.number().min(0).lt(1).default(0.9).meta({
    description: 'β₁ of AdamW: decay of the mean of gradients.',
    origin: 'Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1.',
  }),
  adamBeta2: z.number().min(0).lt(1).default(0.999).meta({
    description: 'β₂ of AdamW: decay of the mean of squared gradients.',
    origin: 'Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1.',
  }),
  adamEpsilon: z.number().positive().default(1e-8).meta({
    description: 'ε of AdamW, added to the root of the squared gradients.',
    origin: 'Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1.',
  }),
  maxGradNorm: z.number().positive().nullable().default(1).meta({
    description: 'Global norm to which larger gradients are scaled down; null clips nothing.',
    origin:
      'Brown et al. 2020 (GPT-3), arXiv:2005.14165, Appendix B: "we clip the global norm of the gradient at 1.0".',
  }),
};

/** Learning rate at its peak. */
export function learningRateSetting(value: number, origin: string) {
  return z.number().positive().default(value).meta({
    description: 'Learning rate of AdamW after the warm-up.',
    origin,
  });
}

/** Decoupled weight decay. */
export function weightDecaySetting(value: number, origin: string) {
  return z.number().min(0).default(value).meta({
    description: 'Decoupled weight decay of AdamW. Norms and biases never decay.',
    origin,
  });
}

/** Steps of warm-up. */
export function warmupStepsSetting(value: number, origin: string) {
  return z.int().min(0).default(value).meta({
    description: 'Optimizer steps over which the learning rate rises linearly from 0 to its peak.',
    origin,
  });
}

/** Shape of the learning rate after the warm-up. */
export function scheduleSetting(
  kind: 'constant' | 'linear' | 'cosine',
  origin: string,
  end: { readonly minRatio: number; readonly origin: string } = {
    minRatio: 0,
    origin: 'Loshchilov & Hutter 2017, arXiv:1608.03983, Eq. 5 with η_min = 0.',
  },
) {
  return z
    .strictObject({
      kind: z.enum(['constant', 'linear', 'cosine']).default(kind).meta({
        description: 'How the learning rate falls from its peak to the end of the run.',
        origin,
      }),
      minRatio: z.number().min(0).max(1).default(end.minRatio).meta({
        description: 'Learning rate at the end as a fraction of the peak. constant ignores it.',
        origin: end.origin,
      }),
    })
    .prefault({});
}

/** The bound on samples.jsonl. */
export const samplesMegabytesSetting = z.number().positive().default(256).meta({
  description:
    'Most megabytes of samples.jsonl and what was put aside of it; then the oldest but the first go.',
  origin: 'Ours: some 13,000 completions of 200 tokens, which a disk does not feel.',
});

/** What is written down of data that is given, by what its rows are called. */
export const givenSampleSettings = (rows: 'Pairs' | 'Rows') => ({
  samplesPerStep: z
    .int()
    .min(0)
    .default(1)
    .meta({
      description: `${rows} per step that are written to samples.jsonl with all their tokens.`,
      origin: 'Ours: enough to read, little enough to keep.',
    }),
  samplesMegabytes: samplesMegabytesSetting,
});
