/** What PPO acts on, and what must hold of it before the first step. */
import type { PpoConfig } from '../config/index.js';
import { ConfigError } from '../errors/index.js';
import type { Decoder, ScalarParts } from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import type { Tensor } from '../torch/index.js';
import { checkRoom } from './grpoParts.js';
import type { RolloutParts } from './rolloutSource.js';

/** What PPO acts on, built before. */
export interface PpoParts extends RolloutParts {
  /** Frozen, and another object than the policy; null where `klCoef` is 0. */
  readonly reference: Decoder | null;
  /** A network of its own, or the policy as trunk with a head beside it. */
  readonly valueModel: ScalarParts;
  /** What is trained of the value model alone: all of a network of its own, the head of a shared trunk. By name. */
  readonly valueParameters: ReadonlyMap<string, Tensor>;
  /** Over the policy's parameters and `valueParameters`. */
  readonly optimizer: AdamW;
}

/**
 * Finds before the first step what would otherwise silently change the objective.
 *
 * @throws ConfigError where the KL has no reference, or the policy as its own, or the value model is of another kind
 * @throws DataError for a prompt that leaves no room for a completion
 */
export function checkPpoParts(parts: PpoParts, config: PpoConfig): void {
  const { reference, policy } = parts;
  if (config.klCoef > 0 && (reference === null || reference === policy)) {
    throw new ConfigError(
      `PpoTrainer: expected a reference model of its own for klCoef ${config.klCoef}, received ${reference === null ? 'none' : 'the policy itself'}.`,
      { hint: 'Load the starting model a second time, or set klCoef to 0.' },
    );
  }
  const isShared = parts.valueModel.trunk === policy;
  if (isShared !== (config.valueModel.kind === 'sharedTrunk')) {
    throw new ConfigError(
      `PpoTrainer: expected a value model of kind ${config.valueModel.kind}, received one ${isShared ? "on the policy's trunk" : 'with a trunk of its own'}.`,
    );
  }
  checkTokenRewards(parts, config);
  const { rewardModels = [], valueModel } = parts;
  const readers = [reference, valueModel.trunk, ...rewardModels.map(({ model }) => model)];
  checkRoom('PpoTrainer', parts, config.sampling.maxNewTokens, readers);
}

/** @throws ConfigError for settings that know one score per completion, beside a reward that is earned token by token */
function checkTokenRewards(
  { rewards }: PpoParts,
  { advantageEstimator, rewardNormalization }: PpoConfig,
): void {
  const inParts = rewards.find(({ parts }) => parts);
  if (inParts === undefined) return;
  if (advantageEstimator === 'monteCarlo') {
    throw new ConfigError(
      `PpoTrainer: expected advantageEstimator gae with ${inParts.name}, which rewards single steps, received monteCarlo.`,
      { hint: 'gae with gaeLambda 1 is the same with a reward for every token.' },
    );
  }
  if (rewardNormalization === 'running') {
    throw new ConfigError(
      `PpoTrainer: expected rewardNormalization none with ${inParts.name}, which rewards single steps, received running.`,
      { hint: 'The moments are those of whole completions. Scale the reward by --reward-weight.' },
    );
  }
}
