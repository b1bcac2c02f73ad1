/** A decoder with LoRA: putting adapters on its layers, and what of it is trained and saved. Knows no folders. */
import { ValueRangeError } from '../errors/index.js';
import { createLora, Linear, type LoraAdapter, type Module } from '../nn/index.js';
import { deriveSeed, noGrad, tidy, type Dtype, type Tensor } from '../torch/index.js';
import type { AdapterConfig, LoraOptions } from './adapterConfig.js';
import {
  adapterTargets,
  ALL_LINEAR,
  requireKnownTargets,
  savedParameters,
  shortNames,
  type AdapterTarget,
} from './adapterTargets.js';
import { checkpointNames } from './checkpointNames.js';
import type { Decoder } from './decoder.js';

/** What a decoder knows of its adapter. */
export interface Adapter {
  readonly config: AdapterConfig;
  /** Names of the parameters that are trained as a whole. */
  readonly savedParameters: ReadonlySet<string>;
  /** Fingerprint of the base model's weights, see `weightsSha256`; null where nobody has told it. */
  readonly baseSha256: string | null;
}

/** What `addLora` needs beside the settings. */
export interface AddLoraOptions extends LoraOptions {
  /** A non-negative integer. The same one gives the same A in every dtype and on every device. */
  readonly seed: number;
  /** Folder of the model, or its name on the Hub, which the saved adapter names: see `baseReference`. */
  readonly baseModel: string | null;
  /** Of a model of the Hub: its branch, tag or commit. */
  readonly revision?: string | null | undefined;
  /**
   * SHA-256 of the base's model.safetensors; of shards, that of what `sha256sum model-*.safetensors` prints. The saved
   * adapter is then refused on other weights.
   */
  readonly baseSha256?: string | null | undefined;
}

/**
 * Puts a new adapter on a decoder, which it leaves as it was until it is trained. From now on only A, B and magnitudes
 * require a gradient, and the layers of `modulesToSave`; `save` writes them alone, in PEFT's layout.
 *
 * @throws ConfigError where `targetModules` or `modulesToSave` names what the model does not have
 * @throws ValueRangeError where the decoder has an adapter already
 */
export function addLora(
  model: Decoder,
  { seed, baseModel, revision = null, baseSha256 = null, ...options }: AddLoraOptions,
): void {
  const modules = model.namedModules();
  requireKnownTargets('addLora', modules, options.targetModules);
  const base = { baseModel, revision, task: null };
  const chosen = { ...options, ...base, rankPattern: {}, alphaPattern: {} };
  const targets = adapterTargets('addLora', modules, chosen);
  const targetModules =
    options.targetModules === ALL_LINEAR ? shortNames(targets.keys()) : options.targetModules;
  putAdapter('addLora', model, {
    config: { ...chosen, targetModules },
    baseSha256,
    makeLora: (name, { layer, rank, scaling }) =>
      createLora(layer.weight, {
        ...{ rank, scaling },
        dora: options.dora,
        seed: deriveSeed(seed, 'init', `${name}.lora_A.weight`),
      }),
  });
}

/**
 * Puts an adapter of any origin on a decoder. Internal to this folder.
 *
 * @throws as `addLora`
 */
export function putAdapter(
  where: string,
  model: Decoder,
  {
    config,
    baseSha256,
    makeLora,
  }: Pick<Adapter, 'config' | 'baseSha256'> & {
    makeLora: (name: string, target: AdapterTarget) => LoraAdapter;
  },
): void {
  if (model.adapter !== null)
    throw new ValueRangeError(`${where}: expected a model without an adapter, received one.`, {
      hint: 'Merge it first.',
    });
  const modules = model.namedModules();
  const targets = adapterTargets(where, modules, config);
  const saved = savedOf(where, model, modules, config);
  model.freeze();
  for (const [name, target] of targets) target.layer.attachLora(makeLora(name, target));
  const parameters = model.namedParameters();
  for (const name of saved) {
    const parameter = parameters.get(name);
    if (parameter) parameter.requiresGrad = true;
  }
  model.adapter = { config, savedParameters: saved, baseSha256 };
}

/** Name of the embedding that is the output layer too; null where it is not. */
export function tiedEmbedding({ untiedHead, config }: Decoder): string | null {
  return untiedHead === null ? checkpointNames(config).embedding : null;
}

function savedOf(
  where: string,
  model: Decoder,
  modules: ReadonlyMap<string, Module>,
  { modulesToSave }: AdapterConfig,
): Set<string> {
  return savedParameters(where, modules, { modulesToSave, tiedEmbedding: tiedEmbedding(model) });
}

/**
 * Names of the layers that `targetModules` stands for, and of the parameters that `modulesToSave` does.
 *
 * @throws as `addLora`
 */
export function adaptedNames(
  model: Decoder,
  options: Pick<LoraOptions, 'targetModules' | 'modulesToSave'>,
): { readonly layers: string[]; readonly saved: string[] } {
  const modules = model.namedModules();
  requireKnownTargets('adaptedNames', modules, options.targetModules);
  const { targetModules, modulesToSave } = options;
  const any = { rank: 1, alpha: 1, rsLora: false, rankPattern: {}, alphaPattern: {} };
  const targets = adapterTargets('adaptedNames', modules, { ...any, targetModules });
  const saved = savedParameters('adaptedNames', modules, {
    modulesToSave,
    tiedEmbedding: tiedEmbedding(model),
  });
  return { layers: [...targets.keys()].sort(), saved: [...saved].sort() };
}

/** The layers of a model that have adapters, by name. */
export function loraLayers(model: {
  namedModules(): ReadonlyMap<string, Module>;
}): Map<string, Linear> {
  const found = new Map<string, Linear>();
  for (const [name, layer] of model.namedModules())
    if (layer instanceof Linear && layer.lora !== null) found.set(name, layer);
  return found;
}

/** Moves the adapters of layers to layers of the same names. */
export function moveAdapter(
  from: { namedModules(): ReadonlyMap<string, Module> },
  to: { namedModules(): ReadonlyMap<string, Module> },
): void {
  const targets = to.namedModules();
  for (const [name, { lora }] of loraLayers(from)) {
    const target = targets.get(name);
    if (lora !== null && target instanceof Linear) target.attachLora(lora);
  }
}

/** Parameters that training changes, by name: without an adapter all, with one its own and those that it saves. */
export function trainedParameters(
  adapter: Adapter | null,
  parameters: Map<string, Tensor>,
): Map<string, Tensor> {
  if (adapter === null) return parameters;
  const isTrained = (name: string): boolean =>
    adapter.savedParameters.has(name) || isLoraName(name);
  return new Map([...parameters].filter(([name]) => isTrained(name)));
}

/** Whether a parameter is that of an adapter. */
export function isLoraName(name: string): boolean {
  return /\.(lora_[AB]\.weight|lora_magnitude_vector)$/.test(name);
}

/**
 * The parameters of the model that a model with an adapter amounts to, by the names of the checkpoint: what the adapter is
 * on is folded in, in float32 (float64 for a float64 model), then rounded to `dtype`. The model stays as it is.
 *
 * @returns tensors of their own
 */
export function mergedParameters(
  model: {
    namedModules(): ReadonlyMap<string, Module>;
    namedParameters(): ReadonlyMap<string, Tensor>;
  },
  dtype: Dtype,
): Map<string, Tensor> {
  const layers = new Map(
    Array.from(loraLayers(model), ([name, layer]) => [`${name}.weight`, layer]),
  );
  return noGrad(() =>
    tidy(() => {
      const merged = new Map<string, Tensor>();
      for (const [name, parameter] of model.namedParameters()) {
        if (isLoraName(name)) continue;
        const layer = layers.get(name);
        const value = layer?.lora ? layer.lora.merged(layer.weight) : parameter.detach();
        merged.set(
          name,
          tidy(() => value.to(dtype).contiguous()),
        );
      }
      return merged;
    }),
  );
}
