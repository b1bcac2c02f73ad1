import { parseConfig, PpoConfig, type PpoConfigInput } from '../config/index.js';
import { ConfigError } from '../errors/index.js';
import {
  createModel,
  createScalarHead,
  createScalarModel,
  loadScalarModel,
  ScalarModel,
  type Decoder,
  type ScalarParts,
} from '../models/index.js';
import { decayGroups } from '../optim/index.js';
import { deriveSeed, type Tensor } from '../torch/index.js';
import { PpoTrainer } from '../trainers/index.js';
import {
  heldOutEvaluation,
  loadOnPolicyModels,
  type OnPolicyRunOptions,
} from './onPolicyInputs.js';
import { buildOptimizer, buildOrFree, findStart, openDirectory, Run } from './run.js';
import { rewardModelFolders } from './rewardSources.js';
import { settingsOf, type Placement } from './runInputs.js';
import { loadBeside, prepareLora, type TrainedConfig } from './trainedModels.js';

/** What `createPpoRun` needs. `Row` is what the rewards know of a row. */
export type PpoRunOptions<Row = Readonly<Record<string, unknown>>> = OnPolicyRunOptions<
  PpoConfigInput,
  Row
>;

/**
 * A PPO run, ready to `train`: policy, frozen reference, reward functions and frozen reward models, value model. Data,
 * rewards and settings are checked before anything is written.
 *
 * @throws ConfigError, DataError, RewardError, CheckpointError or IoError with what was expected and received
 */
export async function createPpoRun<Row = Readonly<Record<string, unknown>>>(
  options: PpoRunOptions<Row>,
): Promise<Run<PpoTrainer, PpoConfig>> {
  const start = await findStart('ppo', options);
  const config = parseConfig(PpoConfig, settingsOf(options.config, start.record, 'createPpoRun'));
  const folders = rewardModelFolders(options.rewards);
  const from = {
    start,
    needsReference: config.klCoef > 0,
    rowsPerPrompt: config.groupSize,
    rowsPerUpdate: config.minibatchSize,
    valueModel: valueModelSize(config, options.model, folders),
  };
  return await buildOrFree(async (keep) => {
    const { inputs, models, placed, disposeFrozen } = await loadOnPolicyModels(options, config, {
      ...from,
      keep,
    });
    const { policy, tokenizer } = models;
    const valueModel = await buildValueModel(
      config,
      { policy, model: options.model, folders },
      placed,
    );
    keep(ownPart(valueModel));
    const valueParameters = ownParameters(valueModel);
    // On a trunk of its own names repeat those of the policy, so that all get a prefix.
    const named = new Map(Array.from(valueParameters, ([name, value]) => [`value.${name}`, value]));
    const lrScale = (config.valueLearningRate ?? config.learningRate) / config.learningRate;
    const valueGroups = decayGroups({ namedParameters: () => named }, config.weightDecay);
    const optimizer = keep(
      buildOptimizer(
        policy,
        config,
        valueGroups.map((group) => ({ ...group, lrScale })),
      ),
    );
    const trainer = new PpoTrainer({ ...models, valueModel, valueParameters, optimizer }, config);
    const description = { method: 'ppo', config, inputs: inputs.record };
    const opened = await openDirectory(options.out, start, description, trainer);
    return new Run({
      ...opened,
      trainer,
      config,
      model: policy,
      optimizer,
      tokenizer,
      disposeOthers: () => {
        disposeFrozen();
        ownPart(valueModel).dispose();
      },
      evaluate: heldOutEvaluation(inputs, config, { policy, tokenizer }),
    });
  });
}

/** A folder with the configuration of the value model; undefined where it shares the policy's trunk. */
function valueModelSize(
  { valueModel }: PpoConfig,
  model: string,
  [rewardModel]: readonly string[],
): string | undefined {
  if (valueModel.kind === 'sharedTrunk') return undefined;
  return valueModel.initFrom === 'reward' ? (rewardModel ?? model) : model;
}

/** What the value model begins as. A resumed run replaces its numbers by the saved ones. */
async function buildValueModel(
  config: Pick<PpoConfig, 'valueModel' | keyof TrainedConfig>,
  from: { policy: Decoder; model: string; folders: readonly string[] },
  placed: Placement,
): Promise<ScalarParts> {
  const { policy, model, folders } = from;
  const { valueModel, seed } = config;
  if (valueModel.kind === 'sharedTrunk') {
    const head = createScalarHead(policy);
    head.weight.requiresGrad = true;
    return { trunk: policy, head };
  }
  switch (valueModel.initFrom) {
    case 'policy':
      return createScalarModel(await loadBeside(policy, model, config));
    case 'fresh':
      return createScalarModel(
        createModel(policy.config, { seed: deriveSeed(seed, 'value model'), ...placed }),
      );
    case 'reward': {
      const [folder] = folders;
      if (folder === undefined || folders.length > 1) {
        throw new ConfigError(
          `valueModel.initFrom: expected one reward model (--reward model:folder) with reward, received ${folders.length}.`,
          { hint: 'Set valueModel.initFrom to policy or fresh.' },
        );
      }
      return await buildOrFree(async (keep) => {
        const loaded = keep(await loadScalarModel(folder, placed));
        if (config.lora === null || loaded.adapter === null)
          await prepareLora(loaded, config, folder);
        return loaded;
      });
    }
  }
}

/** What of the value model is not the policy's. */
function ownPart(model: ScalarParts): { dispose(): void } {
  return model instanceof ScalarModel ? model : model.head;
}

/** What is trained of the value model and not of the policy. */
function ownParameters(model: ScalarParts): Map<string, Tensor> {
  return model instanceof ScalarModel
    ? model.trainedParameters()
    : new Map([['score.weight', model.head.weight]]);
}
