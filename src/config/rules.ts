/** Rules between settings: what makes no sense together, and why. Knows no method. */
import type * as z from 'zod';

/** One rule. */
export interface Rule<Config> {
  /** The setting that the message is about. */
  readonly path: readonly string[];
  /** Top-level settings that the rule reads: it is judged once these are sound, whatever else is wrong. */
  readonly reads: readonly (keyof Config & string)[];
  readonly holds: (config: Config) => boolean;
  /** What is expected and why, as the end of a sentence that begins with "expected". */
  readonly expected: string;
}

/** The schema with rules between its settings; each broken one is an issue of its own. */
export function withRules<Schema extends z.ZodObject>(
  schema: Schema,
  rules: readonly Rule<z.output<Schema>>[],
): Schema {
  return rules.reduce<Schema>(
    (ruled, { path, reads, holds, expected }) =>
      ruled.refine(holds, {
        error: expected,
        path: [...path],
        when: ({ issues }) =>
          !issues.some(({ code, path: at = [] }) =>
            at.length === 0 ? code === 'invalid_type' : reads.some((key) => key === at[0]),
          ),
      }),
    schema,
  );
}

interface BatchSizes {
  readonly minibatchSize: number | null;
  readonly groupSize: number;
  readonly promptsPerStep: number;
}

interface Truncation {
  readonly sampling: {
    readonly topK: number;
    readonly topP: number;
    readonly minP: number;
    readonly keepSamplingMask: boolean;
  };
}

/** What must hold of rollouts and minibatches, whatever the method. */
export const ON_POLICY_RULES: readonly Rule<BatchSizes & Truncation>[] = [
  {
    path: ['minibatchSize'],
    reads: ['minibatchSize', 'groupSize'],
    holds: ({ minibatchSize, groupSize }) =>
      minibatchSize === null || minibatchSize % groupSize === 0,
    expected: 'a multiple of groupSize, so that no group is split',
  },
  {
    path: ['minibatchSize'],
    reads: ['minibatchSize', 'groupSize', 'promptsPerStep'],
    holds: ({ minibatchSize, groupSize, promptsPerStep }) =>
      minibatchSize === null || (promptsPerStep * groupSize) % minibatchSize === 0,
    expected:
      'a divisor of promptsPerStep × groupSize, so that every optimizer step sees as many completions',
  },
  {
    path: ['sampling', 'keepSamplingMask'],
    reads: ['sampling'],
    holds: ({ sampling: { topK, topP, minP, keepSamplingMask } }) =>
      keepSamplingMask || (topK === 0 && topP === 1 && minP === 0),
    expected:
      'true with topK, topP or minP: what truncation leaves has to be stored per token and applied to the policy too; without that the ratio is not 1 on-policy but the kept probability mass',
  },
];

interface KlSettings {
  readonly klCoef: number;
  readonly klPlacement: 'loss' | 'reward';
  readonly klEstimator: 'k1' | 'k2' | 'k3' | 'k3Unbiased';
}

/** Where each estimator of the KL may stand. docs/algorithms/kl.md derives it. */
export const KL_RULES: readonly Rule<KlSettings>[] = [
  {
    path: ['klEstimator'],
    reads: ['klEstimator', 'klPlacement', 'klCoef'],
    holds: ({ klEstimator, klPlacement, klCoef }) =>
      klCoef === 0 || klPlacement !== 'loss' || klEstimator !== 'k1',
    expected:
      'k2, k3 or k3Unbiased in the loss: as a loss the expected gradient of k1 on-policy is zero, so it has no effect',
  },
  {
    path: ['klEstimator'],
    reads: ['klEstimator', 'klPlacement', 'klCoef'],
    holds: ({ klEstimator, klPlacement, klCoef }) =>
      klCoef === 0 || klPlacement !== 'reward' || klEstimator === 'k1',
    expected:
      'k1 in the reward: subtracted from the reward, k2 and k3 lead to another policy than the one that the KL is to keep near the reference',
  },
];
