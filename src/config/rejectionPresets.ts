/** Methods that are rejection sampling with other settings, each with the sentence or equation that it comes from. */
import { ConfigError } from '../errors/index.js';
import type { Preset } from './presets.js';
import { nearestName } from './nearestName.js';
import type { RejectionConfigInput } from './rejection.js';

/** A method as settings of `RejectionConfig`. */
export type RejectionPreset = Preset<RejectionConfigInput>;

const PRESETS: readonly RejectionPreset[] = [
  {
    name: 'raft',
    summary:
      'RAFT: the best of n completions per prompt, the model trained on from iteration to iteration',
    paper: 'Dong et al. 2023 (RAFT), arXiv:2304.06767',
    settings: {
      iterations: 4,
      samplesPerPrompt: 32,
      keep: { kind: 'best' },
      trainFrom: 'previous',
    },
    sources: {
      iterations:
        'Algorithm 1 has T stages; the paper goes on until the reward stops rising. Ours: 4.',
      samplesPerPrompt: 'RAFT-K32, its strongest results: an acceptance ratio of 1/32.',
      keep: 'Algorithm 1: the response of the highest reward of each prompt.',
      trainFrom: 'Algorithm 1: the model of stage t is fine-tuned to that of stage t + 1.',
    },
    departures: [
      'Every iteration takes all prompts unless promptsPerIteration is set; the paper draws a batch of prompts per stage.',
      'The paper’s optional KL penalty in the reward is not there.',
    ],
  },
  {
    name: 'expert-iteration',
    summary:
      'Expert iteration as in ReST-EM: all completions that are right, the base model trained anew each time',
    paper: 'Singh et al. 2023 (ReST-EM), arXiv:2312.06585',
    settings: {
      iterations: 3,
      samplesPerPrompt: 32,
      keep: { kind: 'threshold', atLeast: 1, atMost: 10 },
      trainFrom: 'base',
      sampling: { temperature: 0.7, topK: 40 },
    },
    sources: {
      iterations: '§5: up to three iterations on MATH; a second one no longer helped on APPS.',
      samplesPerPrompt: '§5: 32 solutions per problem of MATH, 64 of APPS.',
      keep: '§3: what has reward 1 is kept; §5: at most 10 solutions per problem.',
      trainFrom:
        '§3: each M-step fine-tunes the base model and not that of the iteration before, as in STaR (arXiv:2203.14465, §3.1).',
      'sampling.temperature': '§5: 0.7.',
      'sampling.topK': '§5: top-K sampling with K = 40.',
    },
    departures: [
      'The cut-off keeps the first 10 that were drawn: with a binary reward all scores tie.',
      'No few-shot prompts: the prompts are those of the data.',
    ],
  },
];

/** Every preset of rejection sampling by its name. */
export const REJECTION_PRESETS: Readonly<Record<string, RejectionPreset>> = Object.fromEntries(
  PRESETS.map((preset) => [preset.name, preset]),
);

/**
 * The preset of a name.
 *
 * @throws ConfigError that lists the names there are, with the nearest one
 */
export function rejectionPreset(name: string): RejectionPreset {
  const preset = PRESETS.find((known) => known.name === name);
  if (preset) return preset;
  const names = PRESETS.map((known) => known.name);
  const nearest = nearestName(name, names);
  throw new ConfigError(
    `--preset: expected one of ${names.join(', ')}, received ${JSON.stringify(name)}.${nearest === undefined ? '' : ` Did you mean ${nearest}?`}`,
    { hint: 'Run `posttrain config rejection --preset raft` to see what one sets.' },
  );
}
