/** The models that a run trains, with LoRA or whole, and the frozen references that they are compared with. */
import { ConfigError } from '../errors/index.js';
import { modelFolder } from '../hub/index.js';
import {
  adaptedNames,
  addLora,
  applyAdapter,
  baseFolderOf,
  baseReference,
  isAdapterFolder,
  loadModel,
  readAdapterFolder,
  requireSameBase,
  shareWeights,
  weightsSha256,
  type Decoder,
  type HeadedModel,
  type LoraOptions,
} from '../models/index.js';
import { frozenPlacement } from './frozenWeights.js';
import { buildOrFree, type RunStart } from './run.js';
import { placementOf, type Placement, type PlacementConfig } from './runInputs.js';

/** The settings of a method that say what is trained and where. */
export interface TrainedConfig extends PlacementConfig {
  readonly seed: number;
  /** null trains the whole model. */
  readonly lora: LoraOptions | null;
  /** Of methods that have frozen models. */
  readonly frozenWeights?: 'disk' | 'memory';
}

/**
 * Refuses to train a whole model where the folder holds an adapter, or with settings that are not those of the adapter:
 * what is trained then goes on to be what the settings say.
 *
 * @param model as it was loaded from the folder; it gets a new adapter where it has none and the settings ask for one,
 *   which tells the weights that it was trained on
 * @throws ConfigError
 */
export async function prepareLora(
  model: Decoder | HeadedModel,
  { lora, seed }: Pick<TrainedConfig, 'lora' | 'seed'>,
  folder: string,
): Promise<void> {
  const trunk = 'trunk' in model ? model.trunk : model;
  if (lora === null) {
    if (trunk.adapter === null) return;
    throw new ConfigError(
      `lora: expected settings for ${folder}, which holds an adapter, received null.`,
      {
        hint: `To go on with the adapter, set lora.rank=${trunk.adapter.config.rank} and what else it has; to train the whole model, merge it first: posttrain merge --model ${folder} --out <folder>`,
      },
    );
  }
  if (trunk.adapter === null) {
    const baseSha256 = await weightsSha256(folder, 'lora');
    addLora(trunk, { ...lora, seed, ...baseReference(folder), baseSha256 });
    return;
  }
  requireSameLora(trunk, lora, folder);
  const { config } = trunk.adapter;
  trunk.adapter = { ...trunk.adapter, config: { ...config, dropout: lora.dropout } };
}

function requireSameLora(trunk: Decoder, lora: LoraOptions, folder: string): void {
  const config = trunk.adapter?.config;
  if (config === undefined) return;
  const [before, now] = [adaptedNames(trunk, config), adaptedNames(trunk, lora)];
  const pairs = [
    ['rank', config.rank, lora.rank],
    ['alpha', config.alpha, lora.alpha],
    ['rsLora', config.rsLora, lora.rsLora],
    ['dora', config.dora, lora.dora],
    ['targetModules', before.layers, now.layers],
    ['modulesToSave', before.saved, now.saved],
  ] as const;
  for (const [name, expected, received] of pairs) {
    if (JSON.stringify(expected) === JSON.stringify(received)) continue;
    const [was, is] =
      name in { targetModules: 0, modulesToSave: 0 }
        ? [config[name], lora[name]]
        : [expected, received];
    throw new ConfigError(
      `lora.${name}: expected ${JSON.stringify(was)}, which the adapter ${folder} has, received ${JSON.stringify(is)}.`,
      {
        hint: `Set it as the adapter has it, or merge the adapter first: posttrain merge --model ${folder} --out <folder>`,
      },
    );
  }
}

/** A run's policy and what it is compared with. */
export interface PolicyModels {
  readonly policy: Decoder;
  /** Frozen; null where none was asked for. */
  readonly reference: Decoder | null;
  readonly placed: Placement;
}

/**
 * Loads the policy of a run, and its reference: the model that the run was given.
 *
 * With LoRA the two share the base model's weights. The reference is the base without an adapter; where the run goes on
 * with an adapter, it has that adapter, frozen as it was at the start; where it moves towards the policy, an adapter of its
 * own to take over the policy's numbers.
 *
 * @param from.model the folder that the run was given, which a resumed run's policy has left behind
 * @param from.out the run's directory, or where it will be
 * @throws CheckpointError as `loadModel`, also for an adapter of other weights; ConfigError as `prepareLora`
 */
export async function loadPolicy(
  from: { readonly start: RunStart; readonly model: string; readonly out: string },
  config: TrainedConfig,
  { needsReference, movesReference = false }: { needsReference: boolean; movesReference?: boolean },
): Promise<PolicyModels> {
  const { lora, seed } = config;
  const { start } = from;
  const folder = await modelFolder(from.model);
  const placed = placementOf(config);
  const frozen = frozenPlacement(config, placed, from.out);
  return await buildOrFree(async (keep) => {
    if (lora === null) {
      const policy = keep(await loadModel(start.modelFolder, placed));
      await prepareLora(policy, config, start.modelFolder);
      const reference = needsReference ? (await loadModel(folder, frozen)).freeze() : null;
      return { policy, reference, placed };
    }
    const base = keep(await loadModel(baseFolderOf(folder, 'loadModel'), placed));
    const policy = keep(shareWeights(base, lora.modulesToSave));
    await putAdapterOf(policy, start.modelFolder);
    await prepareLora(policy, config, start.modelFolder);
    if (!needsReference) {
      base.dispose();
      return { policy, reference: null, placed };
    }
    await putAdapterOf(base, folder);
    if (base.adapter === null && movesReference)
      addLora(base, { ...lora, seed, ...baseReference(folder) });
    return { policy, reference: base.freeze(), placed };
  });
}

/** Puts the adapter of a folder on its base model; of a folder without one, nothing. */
async function putAdapterOf(base: Decoder, folder: string): Promise<void> {
  if (!isAdapterFolder(folder)) return;
  const adapter = readAdapterFolder('loadModel', folder);
  await requireSameBase('loadModel', adapter);
  applyAdapter('loadModel', base, adapter);
}

/**
 * A second network that begins as the model that a run was given, to be trained beside the policy. With LoRA it shares
 * the policy's frozen weights and has an adapter of its own.
 *
 * @throws as `loadPolicy`
 */
export async function loadBeside(
  policy: Decoder,
  given: string,
  config: TrainedConfig,
): Promise<Decoder> {
  const folder = await modelFolder(given);
  const placed = { ...placementOf(config), device: policy.device };
  if (config.lora === null) return loadModel(folder, placed);
  const { modulesToSave } = config.lora;
  return await buildOrFree(async (keep) => {
    const model = keep(shareWeights(policy, modulesToSave));
    await putAdapterOf(model, folder);
    await prepareLora(model, config, folder);
    return model;
  });
}
