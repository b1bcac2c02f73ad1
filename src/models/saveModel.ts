/** Writing a model folder that transformers opens again, bit for bit. */
import { readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { IoError, ValueRangeError } from '../errors/index.js';
import { makeFolder } from '../hub/index.js';
import {
  DTYPE_BYTES,
  keep,
  replaceFile,
  tidy,
  writeSafetensors,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import type { SaveOptions } from './causalLm.js';
import { INDEX_FILE, SHARD_NAME, WEIGHTS_FILE } from './checkpoint.js';
import { isStoredTransposed, storedName } from './checkpointNames.js';
import type { DecoderConfig } from './decoderConfig.js';
import type { JsonObject } from './jsonFields.js';

const DEFAULT_SHARD_BYTES = 5_000_000_000;

/** What is saved of a model. */
export interface SavedModel {
  readonly config: DecoderConfig;
  readonly dtype: Dtype;
  /** Parameters by the names of the checkpoint. */
  namedParameters(): ReadonlyMap<string, Tensor>;
}

/**
 * Writes config.json, generation_config.json and the weights of a model. Weights of an earlier save in the same folder
 * that are not replaced are removed last, so that no reader mixes the two.
 *
 * @param generation generation_config.json's content; null makes one from the configuration's special tokens
 * @throws IoError with the path when writing fails; ValueRangeError unless maxShardBytes is positive
 */
export async function saveModel(
  model: SavedModel,
  generation: JsonObject | null,
  folder: string,
  { maxShardBytes = DEFAULT_SHARD_BYTES }: SaveOptions = {},
): Promise<void> {
  if (!(maxShardBytes > 0))
    throw new ValueRangeError(
      `save: expected maxShardBytes to be positive, received ${maxShardBytes}.`,
    );
  makeModelFolder(folder);
  const { config, dtype } = model;
  const shards = splitIntoShards(model, maxShardBytes);
  for (const [name, tensors] of shards) await writeShard(join(folder, name), tensors, config);
  if (shards.size > 1) await writeJson(join(folder, INDEX_FILE), indexOf(shards));
  await writeText(join(folder, 'config.json'), withFloats(jsonText(rawConfig(config, dtype))));
  const newGeneration = generation ?? defaultGeneration(config);
  await writeJson(join(folder, 'generation_config.json'), newGeneration);
  await removeStaleWeights(folder, new Set(shards.keys()));
}

/** @throws IoError where it cannot be made */
export function makeModelFolder(folder: string): void {
  try {
    makeFolder(folder);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new IoError(`save: ${folder} cannot be created: ${reason}`, { cause });
  }
}

type Shards = Map<string, Map<string, Tensor>>;

const bytesOf = ({ numel, dtype }: Tensor): number => numel * DTYPE_BYTES[dtype];

/** Writes tensors as the family's checkpoints store them. Internal to this folder. */
export async function writeShard(
  path: string,
  tensors: ReadonlyMap<string, Tensor>,
  config: DecoderConfig,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const views: Tensor[] = [];
  const stored = new Map<string, Tensor>();
  for (const [name, tensor] of tensors) {
    if (!isStoredTransposed(config, name)) stored.set(name, tensor);
    else {
      const view = keep(tidy(() => tensor.detach().transpose(0, 1)));
      views.push(view);
      stored.set(name, view);
    }
  }
  try {
    await writeSafetensors(path, stored, metadata);
  } finally {
    for (const view of views) view.dispose();
  }
}

function splitIntoShards(model: SavedModel, maxBytes: number): Shards {
  const shards = [new Map<string, Tensor>()];
  let filled = 0;
  for (const [name, tensor] of model.namedParameters()) {
    const bytes = bytesOf(tensor);
    if (filled > 0 && filled + bytes > maxBytes) {
      shards.push(new Map());
      filled = 0;
    }
    shards.at(-1)?.set(storedName(model.config, name), tensor);
    filled += bytes;
  }
  if (shards.length === 1) return new Map(shards.map((shard) => [WEIGHTS_FILE, shard]));
  const number = (value: number): string => String(value).padStart(5, '0');
  return new Map(
    shards.map((shard, index) => [
      `model-${number(index + 1)}-of-${number(shards.length)}.safetensors`,
      shard,
    ]),
  );
}

function indexOf(shards: Shards): JsonObject {
  const weightMap: [string, string][] = [];
  let totalSize = 0;
  let totalParameters = 0;
  for (const [file, tensors] of shards)
    for (const [name, tensor] of tensors) {
      weightMap.push([name, file]);
      totalSize += bytesOf(tensor);
      totalParameters += tensor.numel;
    }
  return {
    metadata: { total_parameters: totalParameters, total_size: totalSize },
    weight_map: Object.fromEntries(weightMap.sort(([a], [b]) => (a < b ? -1 : 1))),
  };
}

/** The fields as they were read; only the dtype follows the weights, because transformers loads in the one it finds. */
function rawConfig({ raw }: DecoderConfig, dtype: Dtype): JsonObject {
  const key = 'dtype' in raw ? 'dtype' : 'torch_dtype';
  return { ...raw, [key]: dtype };
}

function defaultGeneration({ raw, bosTokenId, padTokenId }: DecoderConfig): JsonObject {
  const tokens = {
    bos_token_id: bosTokenId,
    eos_token_id: raw['eos_token_id'] ?? null,
    pad_token_id: padTokenId,
  };
  const given = Object.entries(tokens).filter(([, id]) => id !== null);
  return { _from_model_config: true, ...Object.fromEntries(given) };
}

/**
 * Fields that transformers 5 refuses to read where a whole number stands for a floating-point one: JavaScript writes the
 * 30.0 of a file as 30.
 */
const FLOAT_FIELDS = [
  'attention_factor',
  'attn_logit_softcapping',
  'final_logit_softcapping',
  'initializer_range',
  'layer_norm_epsilon',
  'rms_norm_eps',
  'router_aux_loss_coef',
];
const WHOLE_FLOAT = new RegExp(`^( *"(?:${FLOAT_FIELDS.join('|')})": -?\\d+)(?=,?$)`, 'gm');

/** @param text JSON with one field per line */
function withFloats(text: string): string {
  return text.replace(WHOLE_FLOAT, '$1.0');
}

function jsonText(value: JsonObject): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}

async function writeJson(path: string, value: JsonObject): Promise<void> {
  await writeText(path, jsonText(value));
}

async function writeText(path: string, text: string): Promise<void> {
  await replaceFile(path, (write) => write(Buffer.from(text)));
}

async function removeStaleWeights(folder: string, current: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(folder)) {
    const isWeights = name === WEIGHTS_FILE || SHARD_NAME.test(name);
    const isStale = isWeights ? !current.has(name) : name === INDEX_FILE && current.size === 1;
    if (isStale) await unlink(join(folder, name));
  }
}
