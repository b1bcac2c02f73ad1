/** Folders of adapters in PEFT's layout: adapter_config.json, adapter_model.safetensors, and the path of the base model. */
import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { CheckpointError } from '../errors/index.js';
import {
  atRevision,
  giveBase,
  givenBase,
  isCommit,
  lastingName,
  modelOnBase,
  openedFolder,
  parseHubId,
} from '../hub/index.js';
import { LoraAdapter, loraDtype, type Linear } from '../nn/index.js';
import {
  noGrad,
  readSafetensors,
  replaceFile,
  tidy,
  type SafetensorsFile,
  type Tensor,
} from '../torch/index.js';
import { putAdapter, tiedEmbedding, type Adapter } from './adapter.js';
import { adapterConfigJson, parseAdapterConfig, type AdapterConfig } from './adapterConfig.js';
import { adapterTargets, requireTask, savedParameters } from './adapterTargets.js';
import { SCORE, takeTensors } from './checkpointTensors.js';
import type { Decoder } from './decoder.js';
import type { DecoderConfig } from './decoderConfig.js';
import type { HeadedModel } from './headedModel.js';
import { readJsonObject } from './jsonFields.js';
import { makeModelFolder, writeShard } from './saveModel.js';

const CONFIG_FILE = 'adapter_config.json';
/** The file of an adapter's tensors. */
export const ADAPTER_WEIGHTS_FILE = 'adapter_model.safetensors';
/** The key of the tensors' metadata that holds the fingerprint of the base's weights. PEFT passes over it. */
const BASE_SHA256 = 'base_sha256';
/** What PEFT's wrappers put before every name. */
const PREFIX = 'base_model.model.';

/** Whether a folder holds an adapter, which needs the model that it was trained on. */
export function isAdapterFolder(folder: string): boolean {
  return existsSync(join(folder, CONFIG_FILE));
}

/** An adapter's settings and where its base model lies. */
export interface AdapterFolder {
  readonly folder: string;
  readonly config: AdapterConfig;
  /** Folder of the base model. */
  readonly base: string;
  /** Whether the base is what a commit of the Hub has: it cannot have become another since. */
  readonly isPinned: boolean;
}

/** How an adapter names its base model. */
export type BaseReference = Pick<AdapterConfig, 'baseModel' | 'revision'>;

/**
 * By what a saved adapter finds its base again, here and elsewhere: `org/name` and the commit of a model of the Hub, also
 * where its folder in the cache is given, because the cache is of this machine; the absolute path of any other folder.
 */
export function baseReference(folder: string): BaseReference {
  const name = lastingName(folder);
  const id = parseHubId(name);
  return id === undefined
    ? { baseModel: name, revision: null }
    : { baseModel: id.name, revision: id.revision };
}

/**
 * The local folder of a model, downloaded where it is of the Hub. Where a base is given, the adapter in it stands on that
 * from now on, while the process lives, whatever its settings name.
 *
 * @param where what asks, for messages
 * @param base a folder or a name of the Hub
 * @throws CheckpointError where a base is given for a folder that holds a whole model; HubError as `modelFolder`
 */
export async function openModelFolder(
  where: string,
  folderOrHubId: string,
  base?: string,
): Promise<string> {
  const opened = await modelOnBase(folderOrHubId, base);
  if (opened.base === undefined) return opened.folder;
  if (!isAdapterFolder(opened.folder)) refuseBase(where, opened.folder, { base });
  giveBase(opened.folder, opened.base);
  return opened.folder;
}

/** @throws CheckpointError where a base model is given for a folder that holds a whole model */
export function refuseBase(
  where: string,
  folder: string,
  { base }: { readonly base?: string | undefined },
): void {
  if (base === undefined) return;
  throw new CheckpointError(
    `${where}: expected the folder of an adapter beside the base model ${base}, but ${folder} holds no adapter_config.json.`,
    { hint: 'Leave the base model out.' },
  );
}

/**
 * Reads an adapter's settings and finds its base model: at the path of adapter_config.json as it stands, or seen from the
 * adapter's folder, or where `openModelFolder` was told.
 *
 * @param where what asks, for messages
 * @param base folder to take instead
 * @throws CheckpointError when the settings are malformed or name what posttrain does not have, the base model is not
 *   there, or it is an adapter itself
 */
export function readAdapterFolder(where: string, folder: string, base?: string): AdapterFolder {
  const path = join(folder, CONFIG_FILE);
  const config = parseAdapterConfig(readJsonObject(path) ?? {}, path);
  const named = config.baseModel;
  const given = base ?? givenBase(folder);
  const places = given === undefined ? placesOf(folder, config) : [given];
  const found = places.find((place) => existsSync(place));
  if (found === undefined)
    throw new CheckpointError(
      `${where}: expected the base model of the adapter ${folder}, ${named === null && given === undefined ? `but ${path} names none` : `but there is no folder ${given ?? named}`}.`,
      { hint: missingBaseHint(named) },
    );
  if (isAdapterFolder(found))
    throw new CheckpointError(
      `${where}: expected the base model of the adapter ${folder} to be a model, but ${found} is an adapter itself.`,
      { hint: `Merge it first: posttrain merge --model ${found} --out <folder>` },
    );
  // A name of the Hub stays as it was written: without a revision it means the newest.
  const isNamed = given === undefined && found === openedBase(config);
  return {
    folder,
    config: isNamed ? config : { ...config, ...baseReference(found) },
    base: found,
    isPinned: isNamed && config.revision !== null && isCommit(config.revision),
  };
}

/** Where the base lies that an adapter names by its name on the Hub; undefined for others. */
function openedBase({ baseModel, revision }: BaseReference): string | undefined {
  return baseModel === null ? undefined : openedFolder(atRevision(baseModel, revision));
}

function placesOf(folder: string, reference: BaseReference): string[] {
  const { baseModel: named } = reference;
  if (named === null || named === '') return [];
  const opened = openedBase(reference);
  return [named, join(folder, named), ...(opened === undefined ? [] : [opened])];
}

function missingBaseHint(named: string | null): string {
  const isHubId = named !== null && /^[\w.-]+\/[\w.-]+$/.test(named);
  return isHubId
    ? `If it is a model on the Hugging Face Hub, download it (hf download ${named} --local-dir ${basename(named)}) and name its folder with --base.`
    : 'Name its folder with --base; in code, with the option base.';
}

/**
 * The folder where the files of a whole model stand: that of an adapter's base model, or the folder itself.
 *
 * @throws as `readAdapterFolder`
 */
export function baseFolderOf(folder: string, where: string, base?: string): string {
  return isAdapterFolder(folder) ? readAdapterFolder(where, folder, base).base : folder;
}

/**
 * The folder of a model's tokenizer: an adapter may come without one, and then reads the tokens of its base model.
 *
 * @throws as `readAdapterFolder`
 */
export function tokenizerFolderOf(folder: string, base?: string): string {
  if (!isAdapterFolder(folder) || existsSync(join(folder, 'tokenizer.json'))) return folder;
  return baseFolderOf(folder, 'loadTokenizer', base);
}

/** The tensors of an adapter's folder. The caller disposes of the file. @throws CheckpointError when there are none */
export function openAdapterWeights(where: string, folder: string): SafetensorsFile {
  const path = join(folder, ADAPTER_WEIGHTS_FILE);
  if (existsSync(path)) return readSafetensors(path);
  const pickles = readdirSync(folder).filter((name) => /^adapter_model\.(bin|pt)$/.test(name));
  throw new CheckpointError(
    `${where}: expected ${ADAPTER_WEIGHTS_FILE} in ${folder}, ${pickles.length > 0 ? `found ${pickles.join(', ')}, which can run code when it is read` : 'there is none'}.`,
    pickles.length > 0
      ? { hint: 'Load the adapter with PEFT and save it again: save_pretrained(folder).' }
      : { hint: 'Fetch the adapter again, or name the folder that holds its weights.' },
  );
}

/** What an adapter's file tells before its tensors are read. */
export interface AdapterDescription {
  readonly metadata: Readonly<Record<string, string>>;
  /** Fingerprint of the weights that the adapter was trained on; undefined where the file does not tell. */
  readonly baseSha256: string | undefined;
  /** Rows of the head's weight; undefined where there is no head. */
  readonly headOutputs: number | undefined;
}

/** Reads the header of an adapter's tensors. @throws as `openAdapterWeights` */
export function describeAdapter(where: string, folder: string): AdapterDescription {
  const file = openAdapterWeights(where, folder);
  try {
    const name = `${PREFIX}${SCORE}`;
    const headOutputs = file.has(name) ? file.shapeOf(name)[0] : undefined;
    return { metadata: file.metadata, baseSha256: file.metadata[BASE_SHA256], headOutputs };
  } finally {
    file.dispose();
  }
}

/** Names that PEFT saves of every classifier, whether the model has them or not. */
const HEADS: readonly string[] = ['classifier', 'score'];

/**
 * Puts the adapter of a folder on its base model, and takes over the layers that were saved with it. The model's
 * parameters require no gradient any more, the adapter's do, and the head's.
 *
 * @param model freshly loaded: weights of `modulesToSave` are overwritten in it
 * @throws CheckpointError that lists every missing, surplus and misshapen tensor; ConfigError for layers that the model
 *   does not have
 */
export function applyAdapter(
  where: string,
  model: Decoder | HeadedModel,
  { folder, config: read }: AdapterFolder,
): void {
  const isHeaded = 'trunk' in model;
  const trunk = isHeaded ? model.trunk : model;
  const path = join(folder, CONFIG_FILE);
  requireTask(where, path, read, isHeaded ? model.task : 'CAUSAL_LM');
  const config = isHeaded ? withoutHeads(read) : read;
  const modules = trunk.namedModules();
  const targets = adapterTargets(path, modules, config);
  const { modulesToSave } = config;
  const saved = savedParameters(path, modules, {
    modulesToSave,
    tiedEmbedding: isHeaded ? null : tiedEmbedding(trunk),
  });
  const whole = new Map([
    ...[...trunk.namedParameters()].filter(([name]) => saved.has(name)),
    ...(isHeaded ? withPrefix('score.', model.head.namedParameters()) : []),
  ]);
  const shapes = new Map<string, { shape: readonly number[] }>();
  for (const [name, { layer, rank }] of targets) {
    const [outputs = 0, inputs = 0] = layer.weight.shape;
    shapes.set(`${PREFIX}${name}.lora_A.weight`, { shape: [rank, inputs] });
    shapes.set(`${PREFIX}${name}.lora_B.weight`, { shape: [outputs, rank] });
    if (config.dora) shapes.set(`${PREFIX}${name}.lora_magnitude_vector`, { shape: [outputs] });
  }
  for (const [name, { shape }] of whole) shapes.set(`${PREFIX}${name}`, { shape });
  const file = openAdapterWeights(where, folder);
  try {
    for (const name of baseCopies(where, file, targets, folder))
      shapes.set(name, { shape: file.shapeOf(name) });
    const { device } = trunk;
    const dtype = loraDtype(trunk.dtype);
    const described = CONFIG_FILE;
    const request = { where, folder, file, config: trunk.config, shapes, described, dtype, device };
    const tensors = takeTensors(request);
    const take = (name: string): Tensor => {
      const tensor = tensors.get(`${PREFIX}${name}`);
      if (tensor === undefined) throw new CheckpointError(`internal: ${name} was not taken.`);
      return tensor;
    };
    putAdapter(path, trunk, {
      config,
      baseSha256: file.metadata[BASE_SHA256] ?? null,
      makeLora: (name, { scaling }) =>
        new LoraAdapter({
          a: take(`${name}.lora_A.weight`),
          b: take(`${name}.lora_B.weight`),
          magnitude: config.dora ? take(`${name}.lora_magnitude_vector`) : null,
          scaling,
        }),
    });
    noGrad(() => {
      for (const [name, parameter] of whole) parameter.copy_(take(name));
    });
    const kept = new Set(trunk.parameters());
    for (const tensor of tensors.values()) if (!kept.has(tensor)) tensor.dispose();
  } finally {
    file.dispose();
  }
}

/**
 * The base's own weights that PEFT saves with an adapter of an output layer.
 *
 * @throws CheckpointError where they are others than the base has: the adapter belongs to another model
 */
function baseCopies(
  where: string,
  file: SafetensorsFile,
  targets: ReadonlyMap<string, { readonly layer: Linear }>,
  folder: string,
): string[] {
  return Array.from(targets).flatMap(([name, { layer }]) => {
    const copy = `${PREFIX}${name}.base_layer.weight`;
    if (!file.has(copy)) return [];
    const { dtype, device } = layer.weight;
    const isSame =
      String(file.shapeOf(copy)) === String(layer.weight.shape) &&
      noGrad(() => tidy(() => file.tensor(copy).to({ dtype, device }).equal(layer.weight)));
    if (!isSame)
      throw new CheckpointError(
        `${where}: expected ${copy} in ${folder} to be the base model's ${name}, received other values.`,
        { hint: 'The adapter was trained on another model: name its folder with --base.' },
      );
    return [copy];
  });
}

function withoutHeads(config: AdapterConfig): AdapterConfig {
  return {
    ...config,
    modulesToSave: config.modulesToSave.filter((name) => !HEADS.includes(name)),
  };
}

function withPrefix(prefix: string, tensors: ReadonlyMap<string, Tensor>): [string, Tensor][] {
  return Array.from(tensors, ([name, value]) => [`${prefix}${name}`, value]);
}

/**
 * Writes an adapter as PEFT does. Each file is replaced as a whole.
 *
 * @throws IoError with the path when writing fails
 */
export async function saveAdapter(
  {
    base,
    adapter: { config, baseSha256 },
    parameters,
    metadata = {},
  }: {
    /** The configuration of the base model. */
    readonly base: DecoderConfig;
    readonly adapter: Pick<Adapter, 'config' | 'baseSha256'>;
    /** By the names of the checkpoint. */
    readonly parameters: ReadonlyMap<string, Tensor>;
    readonly metadata?: Readonly<Record<string, string>> | undefined;
  },
  folder: string,
): Promise<void> {
  makeModelFolder(folder);
  const tensors = new Map(withPrefix(PREFIX, parameters));
  await writeShard(join(folder, ADAPTER_WEIGHTS_FILE), tensors, base, {
    ...metadata,
    ...(baseSha256 !== null && { [BASE_SHA256]: baseSha256 }),
  });
  const json = adapterConfigJson(config, base.modelType === 'gpt2');
  const text = `${JSON.stringify(json, undefined, 2)}\n`;
  await replaceFile(join(folder, CONFIG_FILE), (write) => write(Buffer.from(text)));
}
