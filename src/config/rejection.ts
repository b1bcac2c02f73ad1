import * as z from 'zod';
import { rolloutSettings, samplingSetting } from './onPolicySettings.js';
import { withRules } from './rules.js';
import { SftConfig } from './sft.js';
import { JOB_WIDE, refusedInStage, runSettings } from './sharedSettings.js';

const LLAMA2 = 'Touvron et al. 2023 (Llama 2), arXiv:2307.09288, §3.2.3';
const RAFT = 'Dong et al. 2023 (RAFT), arXiv:2304.06767';
const REST_EM = 'Singh et al. 2023 (ReST-EM), arXiv:2312.06585';
const STAR = 'Zelikman et al. 2022 (STaR), arXiv:2203.14465';

const keep = z
  .discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('best') }),
    z.strictObject({
      kind: z.literal('topK'),
      k: z.int().min(1).meta({
        description: 'How many completions of a prompt are kept, the highest scores first.',
        origin: 'Without a default: it is chosen with the kind.',
      }),
    }),
    z.strictObject({
      kind: z.literal('threshold'),
      atLeast: z
        .number()
        .default(1)
        .meta({
          description: 'Score from which a completion is kept.',
          origin: `${REST_EM}, §3: the reward is binary, and what has reward 1 is kept.`,
        }),
      atMost: z
        .int()
        .min(1)
        .nullable()
        .default(null)
        .meta({
          description: 'Most completions of one prompt that are kept, the best first; null: all.',
          origin: `Ours: off. ${REST_EM} keep at most 10, so that easy prompts do not fill the data.`,
        }),
    }),
  ])
  .default({ kind: 'best' })
  .meta({
    description:
      'Which of the completions of a prompt are trained: best (one), topK, or threshold (all that score enough). What has no score is never kept.',
    origin: `${LLAMA2}: "select the best answer for a given prompt".`,
  });

const sampling = samplingSetting
  .unwrap()
  .omit({ keepSamplingMask: true })
  .extend({
    temperature: z
      .number()
      .positive()
      .default(1)
      .meta({
        description: 'Temperature of sampling.',
        origin: `Ours: 1 is the distribution that the KL bound is about. ${REST_EM} take 0.7.`,
      }),
    topK: z
      .int()
      .min(0)
      .default(0)
      .meta({
        description: 'Only the k most likely tokens; 0 is off.',
        origin: `Ours: off. ${REST_EM} take 40.`,
      }),
    topP: z.number().positive().max(1).default(1).meta({
      description: 'Only the nucleus of this probability; 1 is off.',
      origin: 'Ours: off.',
    }),
    minP: z.number().min(0).lt(1).default(0).meta({
      description: 'Only tokens at least this fraction as likely as the most likely one; 0 is off.',
      origin: 'Ours: off.',
    }),
  })
  .prefault({});

const sft = SftConfig.omit(JOB_WIDE)
  .prefault({})
  .meta({ refused: refusedInStage('sft') });

const settings = z
  .strictObject({
    iterations: z
      .int()
      .min(1)
      .default(1)
      .meta({
        description:
          'Rounds of sampling, selecting and fine-tuning; the next one samples from the model of the last.',
        origin: `Ours. ${LLAMA2}: "At each iterative stage, we sample K answers for each prompt from the most recent model."`,
      }),
    samplesPerPrompt: z
      .int()
      .min(1)
      .default(32)
      .meta({
        description: 'n: completions sampled per prompt.',
        origin: `${RAFT}: K = 32 in its strongest results. ${REST_EM} sample 32 per problem of MATH.`,
      }),
    promptsPerIteration: z
      .int()
      .min(1)
      .nullable()
      .default(null)
      .meta({
        description:
          'Prompts of one iteration, in an order drawn from the seed, so that the next ones take others; null takes all, in the order of the data.',
        origin: `${LLAMA2} and ${REST_EM}: all. ${RAFT}, Algorithm 1, draws a batch of them.`,
      }),
    keep,
    distinct: z.boolean().default(false).meta({
      description:
        'Keep only one of the completions of a prompt that have the same text: the one that ranks highest.',
      origin: 'Ours: off, so that likely completions weigh more, as they do in the papers.',
    }),
    keepTruncated: z.boolean().default(false).meta({
      description:
        'Also keep completions that reached sampling.maxNewTokens. Fine-tuning would teach them to stop in the middle of a sentence.',
      origin: 'Ours: off.',
    }),
    trainFrom: z
      .enum(['previous', 'base'])
      .default('previous')
      .meta({
        description:
          'What each fine-tuning starts from: the model of the iteration before, or always --model.',
        origin: `${RAFT}, Algorithm 1: the model of the stage before. ${STAR}, §3.1, and ${REST_EM}, §3, start from the base model each time, against overfitting.`,
      }),
    sampling,
    maxPromptLength: rolloutSettings.maxPromptLength,
    rewardWeights: rolloutSettings.rewardWeights,
    rewardTimeoutSeconds: rolloutSettings.rewardTimeoutSeconds,
    rewardConcurrency: rolloutSettings.rewardConcurrency,
    sft,
    data: runSettings.data
      .unwrap()
      .omit({ weights: true })
      .prefault({})
      .meta({ refused: { weights: 'every iteration takes each prompt once' } }),
    seed: runSettings.seed,
    device: runSettings.device,
    dtype: runSettings.dtype,
    microBatchTokens: runSettings.microBatchTokens,
    track: runSettings.track,
  })
  .meta({ title: 'rejection' });

/** Settings of rejection sampling: what is sampled, what is kept, and how it is trained (`sft`: the keys of SftConfig). */
export const RejectionConfig = withRules(settings, [
  {
    path: ['keep', 'k'],
    reads: ['keep', 'samplesPerPrompt'],
    holds: ({ keep: rule, samplesPerPrompt }) => rule.kind !== 'topK' || rule.k <= samplesPerPrompt,
    expected: 'at most samplesPerPrompt: no more completions than these can be kept',
  },
  {
    path: ['keep', 'atMost'],
    reads: ['keep', 'samplesPerPrompt'],
    holds: ({ keep: rule, samplesPerPrompt }) =>
      rule.kind !== 'threshold' || (rule.atMost ?? 0) <= samplesPerPrompt,
    expected: 'at most samplesPerPrompt: no more completions than these can be kept',
  },
]);

/** Resolved settings of rejection sampling. */
export type RejectionConfig = z.output<typeof RejectionConfig>;
/** Settings of rejection sampling as a user writes them: every key may be left out. */
export type RejectionConfigInput = z.input<typeof RejectionConfig>;
