/** Rewards as they are given (functions, specifications, folders of reward models), with names and weights. */
import { basename, dirname, resolve } from 'node:path';
import { ConfigError } from '../errors/index.js';
import { loadScalarModel, type ScalarModel } from '../models/index.js';
import type { NamedReward } from '../rewards/index.js';
import type { Dtype } from '../torch/index.js';
import { namedRewards, type RewardLike } from './runInputs.js';

/** A reward that reads tokens. */
export interface LoadedRewardModel {
  readonly name: string;
  readonly weight: number;
  readonly model: ScalarModel;
}

/** Rewards, of which the models are not loaded yet. */
export interface RewardSources {
  readonly named: readonly NamedReward[];
  readonly models: readonly { readonly name: string; readonly folder: string }[];
  /** Loads the reward models, frozen. Last, because they are large. */
  readonly load: (placed: { dtype: Dtype; device: string }) => Promise<LoadedRewardModel[]>;
}

/**
 * Reads rewards.
 *
 * @throws ConfigError if two reward models have the same name, or a weight has that of no reward
 * @throws RewardError if a specification cannot be loaded, or a weight names no reward
 */
export async function readRewards<Row>(
  rewards: readonly RewardLike<Row>[],
  rewardWeights: Readonly<Record<string, number>>,
): Promise<RewardSources> {
  const { functions, models } = splitRewards(rewards);
  const weights = Object.entries(rewardWeights);
  const unknown = weights.find(
    ([name]) => functions.length === 0 && !models.some((model) => model.name === name),
  );
  if (unknown) {
    throw new ConfigError(
      `rewardWeights: expected the name of a reward (${models.map(({ name }) => name).join(', ')}), received ${JSON.stringify(unknown[0])}.`,
    );
  }
  const ofFunctions = weights.filter(([name]) => !models.some((model) => model.name === name));
  const named =
    functions.length > 0 || models.length === 0
      ? await namedRewards(functions, Object.fromEntries(ofFunctions))
      : [];
  return {
    named,
    models,
    load: (placed) =>
      Promise.all(
        models.map(async ({ name, folder }) => ({
          name,
          weight: rewardWeights[name] ?? 1,
          model: (await loadScalarModel(folder, placed)).freeze(),
        })),
      ),
  };
}

/** `model:folder` names a reward model; its name is the folder's, or that of the run whose `model` folder it is. */
export function splitRewards<Row>(rewards: readonly RewardLike<Row>[]): {
  functions: RewardLike<Row>[];
  models: { name: string; folder: string }[];
} {
  const isModel = (reward: RewardLike<Row>): reward is string =>
    typeof reward === 'string' && reward.startsWith('model:');
  const models = rewards.filter(isModel).map((spec) => {
    const folder = spec.slice('model:'.length);
    const path = resolve(folder);
    return { name: basename(basename(path) === 'model' ? dirname(path) : path), folder };
  });
  const twice = models.find(({ name }, at) => models.findIndex((m) => m.name === name) !== at);
  if (twice) {
    throw new ConfigError(
      `--reward: expected reward models in folders of different names, received two named ${twice.name}.`,
      { hint: 'Rewards are logged by name: rename one of the folders.' },
    );
  }
  return { functions: rewards.filter((reward) => !isModel(reward)), models };
}

/** Folders of the reward models among rewards. */
export function rewardModelFolders<Row>(rewards: readonly RewardLike<Row>[]): string[] {
  return splitRewards(rewards).models.map(({ folder }) => folder);
}
