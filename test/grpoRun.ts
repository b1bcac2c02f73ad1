/** A tiny run of GRPO, and its steps. */
import { GrpoConfig, type GrpoConfigInput } from '../src/config/index.js';
import type { Decoder } from '../src/models/index.js';
import { AdamW, decayGroups } from '../src/optim/index.js';
import type { NamedReward, RewardFunction } from '../src/rewards/index.js';
import { needsReference } from '../src/trainers/grpoParts.js';
import { GrpoTrainer } from '../src/trainers/grpoTrainer.js';
import { tinyModel, tinyPrompts, tinyTokenizer } from './tinyRun.js';

/** How many letters x there are: every completion of a group differs. */
export const countX: RewardFunction = ({ completion }) => completion.split('x').length - 1;

/** A trainer of GRPO over the tiny prompts: four groups of four, scored by `countX` unless set. */
export function grpoTrainer(
  policy: Decoder,
  config: GrpoConfigInput = {},
  options: {
    reward?: RewardFunction;
    rewards?: NamedReward[];
    reference?: Decoder | null;
    /** How many of the prompts; all unless set. */
    prompts?: number;
  } = {},
): GrpoTrainer {
  const settings = GrpoConfig.parse({
    promptsPerStep: 4,
    groupSize: 4,
    steps: 10,
    learningRate: 1e-2,
    sampling: { maxNewTokens: 6 },
    samplesPerStep: 100,
    ...config,
  });
  return new GrpoTrainer(
    {
      policy,
      reference: needsReference(settings)
        ? (options.reference ?? tinyModel({ seed: 2, dtype: policy.dtype }))
        : null,
      tokenizer: tinyTokenizer(),
      optimizer: new AdamW(decayGroups(policy, settings.weightDecay)),
      prompts: tinyPrompts().slice(0, options.prompts),
      rewards: options.rewards ?? [{ name: 'x', weight: 1, fn: options.reward ?? countX }],
    },
    settings,
  );
}

/** The metrics of the last of some steps. */
export async function steps(run: GrpoTrainer, count: number): Promise<Record<string, number>> {
  let metrics: Record<string, number> = {};
  for (let step = 0; step < count; step++) metrics = { ...(await run.trainStep()).metrics };
  return metrics;
}
