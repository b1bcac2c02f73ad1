/** Rewards as they are given (functions, specifications, folders of reward models), with names and weights. */
import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { ConfigError } from '../errors/index.js';
import { modelFolder } from '../hub/index.js';
import {
  loadScalarModel,
  tokenizerFolderOf,
  type LoadModelOptions,
  type ScalarModel,
} from '../models/index.js';
import type { NamedReward } from '../rewards/index.js';
import { differingToken, loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { MODEL_REWARDS, ProcessJudge, processRewardSpec } from './processJudge.js';
import { buildOrFree } from './run.js';
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
  /** Folders of everything that `load` loads. */
  readonly folders: readonly string[];
  /**
   * Loads the reward models, frozen, and what process reward models among `named` need. Last, because they are large.
   */
  readonly load: (placed: LoadModelOptions) => Promise<LoadedRewardModel[]>;
  /** Frees what `load` loaded for rewards in `named`. */
  readonly dispose: () => void;
}

/** Where something else judges. */
export const NO_REWARDS: RewardSources = {
  named: [],
  models: [],
  folders: [],
  load: () => Promise.resolve([]),
  dispose: () => {},
};

/**
 * Reads rewards.
 *
 * @param tokenizer the policy's, which a reward model that reads its tokens must share
 * @throws ConfigError if two reward models have the same name, a weight has that of no reward, or a reward model was
 *   trained with another tokenizer
 * @throws RewardError if a specification cannot be loaded, or a weight names no reward
 */
export async function readRewards<Row>(
  rewards: readonly RewardLike<Row>[],
  rewardWeights: Readonly<Record<string, number>>,
  tokenizer: Tokenizer,
): Promise<RewardSources> {
  const { functions: given, models } = splitRewards(rewards);
  for (const model of models) await requireSameTokens(model, tokenizer);
  const judges = processJudges(given, models);
  const functions = given.map((reward) => judges.get(reward)?.reward ?? reward);
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
    folders: [
      ...models.map(({ folder }) => folder),
      ...Array.from(judges.values(), ({ judge }) => judge.folder),
    ],
    load: async (placed) => {
      for (const { judge } of judges.values()) await judge.load(placed);
      return await buildOrFree(async (keep) => {
        const loaded: LoadedRewardModel[] = [];
        for (const { name, folder } of models) {
          const model = keep(await loadScalarModel(folder, placed)).freeze();
          loaded.push({ name, weight: rewardWeights[name] ?? 1, model });
        }
        return loaded;
      });
    },
    dispose: () => {
      for (const { judge } of judges.values()) judge.dispose();
    },
  };
}

/**
 * Refuses a reward model whose folder has another tokenizer of the same size: it would read other texts than the policy
 * wrote. Vocabularies of other sizes are refused where the models are loaded.
 */
async function requireSameTokens(
  { name, folder: folderOrHubId }: { readonly name: string; readonly folder: string },
  tokenizer: Tokenizer,
): Promise<void> {
  const folder = tokenizerFolderOf(await modelFolder(folderOrHubId));
  if (!existsSync(join(folder, 'tokenizer.json'))) return;
  const found = differingToken(tokenizer, await loadTokenizer(folder));
  if (found === undefined) return;
  const { id, expected, received } = found;
  throw new ConfigError(
    `Reward model ${name}: expected the policy's tokenizer, whose token ${id} is ${expected}, received one whose token ${id} is ${received}.`,
    { hint: 'A reward model reads the tokens as the policy drew them: both need one tokenizer.' },
  );
}

/**
 * The process reward models among rewards, by their specifications, as reward functions.
 *
 * @throws ConfigError where two rewards by models have the same name
 */
function processJudges<Row>(
  rewards: readonly RewardLike<Row>[],
  models: readonly { readonly name: string }[],
): Map<RewardLike<Row>, { judge: ProcessJudge; reward: NamedReward<Row> }> {
  const names = models.map(({ name }) => name);
  const judges = new Map<RewardLike<Row>, { judge: ProcessJudge; reward: NamedReward<Row> }>();
  for (const given of rewards) {
    if (typeof given !== 'string') continue;
    const spec = processRewardSpec(given);
    if (spec === undefined && !/^(?:prm|model)[\w-]*:/.test(given)) continue;
    if (spec === undefined || spec.folder === '') throw noModelReward(given);
    const judge = new ProcessJudge(spec);
    const name = nameOf(spec.folder);
    if (names.includes(name)) throw sameName(name);
    names.push(name);
    const fn = judge.score as NamedReward<Row>['fn']; // reads the row's prompt, whatever else it holds
    const parts = spec.kind === 'sum' && { parts: judge.parts };
    judges.set(given, { judge, reward: { name, weight: 1, fn, judged: judge.judged, ...parts } });
  }
  return judges;
}

function noModelReward(spec: string): ConfigError {
  return new ConfigError(
    `--reward: expected ${MODEL_REWARDS.slice(0, -1).join(', ')} or ${MODEL_REWARDS.at(-1)}, received ${JSON.stringify(spec)}.`,
    { hint: 'The folder is that of the trained model, for example model:runs/reward/model.' },
  );
}

/** A model's name is that of its folder, or of the run whose `model` folder it is. */
function nameOf(folder: string): string {
  const path = resolve(folder);
  return basename(basename(path) === 'model' ? dirname(path) : path);
}

function sameName(name: string): ConfigError {
  return new ConfigError(
    `--reward: expected reward models in folders of different names, received two named ${name}.`,
    { hint: 'Rewards are logged by name: rename one of the folders.' },
  );
}

/** `model:folder` names a reward model. */
export function splitRewards<Row>(rewards: readonly RewardLike<Row>[]): {
  functions: RewardLike<Row>[];
  models: { name: string; folder: string }[];
} {
  const isModel = (reward: RewardLike<Row>): reward is string =>
    typeof reward === 'string' && reward.startsWith('model:');
  const models = rewards.filter(isModel).map((spec) => {
    const folder = spec.slice('model:'.length);
    if (folder === '') throw noModelReward(spec);
    return { name: nameOf(folder), folder };
  });
  const twice = models.find(({ name }, at) => models.findIndex((m) => m.name === name) !== at);
  if (twice) throw sameName(twice.name);
  return { functions: rewards.filter((reward) => !isModel(reward)), models };
}

/** Folders of the reward models among rewards. */
export function rewardModelFolders<Row>(rewards: readonly RewardLike<Row>[]): string[] {
  return splitRewards(rewards).models.map(({ folder }) => folder);
}
