/** What GRPO acts on, and what must hold of it before the first step. */
import { softOverlongPenalty } from '../algorithms/index.js';
import type { GrpoConfig } from '../config/index.js';
import { ConfigError, DataError } from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import { tensor, tidy } from '../torch/index.js';
import type { RolloutParts } from './rolloutSource.js';

/** What GRPO acts on, built before. */
export interface GrpoParts extends RolloutParts {
  /** Frozen, and another object than the policy; null where no KL and no preference is measured against it. */
  readonly reference: Decoder | null;
  readonly optimizer: AdamW;
}

/** Whether these settings measure the policy against its reference. */
export function needsReference({ klCoef, objective }: Pick<GrpoConfig, 'klCoef' | 'objective'>) {
  return klCoef > 0 || objective.kind === 'groupPreference';
}

/** What nearing the length limit costs, from the tokens of a completion; undefined where nothing does. */
export function overlongPenalty({
  overlongPenalty: penalty,
  sampling,
}: Pick<GrpoConfig, 'overlongPenalty' | 'sampling'>) {
  if (penalty === null) return undefined;
  const { maxNewTokens: maxLength } = sampling;
  const limits = { maxLength, cacheLength: penalty.cacheTokens ?? Math.round(maxLength / 5) };
  return ({ length }: { readonly length: number }): number => {
    const lengths = Float64Array.of(length);
    return (
      tidy(() => softOverlongPenalty({ lengths: tensor(lengths), ...limits }).item()) *
      penalty.weight
    );
  };
}

/**
 * Finds before the first step what would otherwise stop a run in the middle, or silently change its objective.
 *
 * @throws ConfigError where a KL term has no reference, or the policy as its own, or the accuracy is no reward
 * @throws DataError for a prompt that leaves no room for a completion
 */
export function checkGrpoParts(parts: GrpoParts, config: GrpoConfig): void {
  const { policy, reference, rewards: functions, rewardModels = [] } = parts;
  const rewards = [...functions, ...rewardModels];
  const { klCoef, objective, dynamicSampling } = config;
  if (needsReference(config) && (reference === null || reference === policy)) {
    const what = klCoef > 0 ? `klCoef ${klCoef}` : `objective ${objective.kind}`;
    throw new ConfigError(
      `GrpoTrainer: expected a reference model of its own for ${what}, received ${reference === null ? 'none' : 'the policy itself'}.`,
      { hint: 'Load the starting model a second time, or set klCoef to 0.' },
    );
  }
  if (parts.environment && config.overlongPenalty) {
    throw new ConfigError(
      'GrpoTrainer: expected overlongPenalty to be null with an environment, received a penalty.',
      {
        hint: 'sampling.maxNewTokens limits one turn, and the penalty would count the tokens of all of them.',
      },
    );
  }
  const accuracy = dynamicSampling?.accuracyReward ?? null;
  if (accuracy !== null && !rewards.some(({ name }) => name === accuracy)) {
    throw new ConfigError(
      `GrpoTrainer: expected dynamicSampling.accuracyReward to name a reward (${rewards.map(({ name }) => name).join(', ')}), received ${JSON.stringify(accuracy)}.`,
    );
  }
  const readers = [reference, ...rewardModels.map(({ model }) => model)];
  checkRoom('GrpoTrainer', parts, config.sampling.maxNewTokens, readers);
}

/**
 * @param readers further models that read what the policy writes
 * @throws DataError for a prompt that leaves no room for a completion
 */
export function checkRoom(
  where: string,
  { policy, prompts, environment }: Pick<RolloutParts, 'policy' | 'prompts' | 'environment'>,
  maxNewTokens: number,
  readers: readonly (Pick<Decoder, 'config'> | null)[] = [],
): void {
  const models = [policy, ...readers].filter((model) => model !== null);
  const positions = Math.min(...models.map(({ config }) => config.maxPositionEmbeddings));
  // With an environment a second turn must be able to follow, or it would never be heard.
  const turns = environment ? 2 : 1;
  const tooLong = prompts.find(
    ({ inputIds }) => inputIds.length + turns * maxNewTokens > positions,
  );
  if (tooLong) {
    const { row, inputIds } = tooLong;
    throw new DataError(
      `${where}: expected prompt and ${environment ? 'two turns' : 'completion'} to fit the model's ${positions} positions, but the prompt of ` +
        `${row.file}:${row.line} has ${inputIds.length} tokens and sampling.maxNewTokens is ${maxNewTokens}.`,
      { hint: 'Lower maxPromptLength, which leaves longer prompts out, or sampling.maxNewTokens.' },
    );
  }
}
