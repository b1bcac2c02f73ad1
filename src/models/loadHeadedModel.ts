/** Opening a folder that holds a decoder and a head. Internal to this folder. */
import { join } from 'node:path';
import { CheckpointError } from '../errors/index.js';
import { Linear } from '../nn/index.js';
import {
  applyAdapter,
  describeAdapter,
  isAdapterFolder,
  readAdapterFolder,
  refuseBase,
} from './adapterFolder.js';
import { assertModelFolder, openWeights } from './checkpoint.js';
import { asStored } from './checkpointNames.js';
import { SCORE, SCORE_BIAS, takeTensors } from './checkpointTensors.js';
import type { Decoder } from './decoder.js';
import { parseDecoderConfig } from './decoderConfig.js';
import { Fields, readJsonObject, type JsonObject } from './jsonFields.js';
import { PAD_TOKEN, type HeadedModel } from './headedModel.js';
import { decoderOf, disposedOnFailure, type LoadModelOptions } from './loadModel.js';
import { parameterShapes } from './parameterShapes.js';
import { requireSameBase } from './weightsSha256.js';

/** What kind of head a folder is expected to have. */
export interface HeadKind {
  /** The function that was given the folder. */
  readonly where: string;
  /** The head in words, for messages: "a scalar head". */
  readonly what: string;
  /** How to make such a model of a language model. */
  readonly hint: string;
  readonly outputs: number;
  /** Whether it has a bias, by config.json. */
  readonly hasBias: (raw: JsonObject) => boolean;
}

/**
 * @returns `fields` read config.json
 * @throws CheckpointError and IoError as `loadModel`; CheckpointError also for a folder without such a head
 */
export function loadHeaded(
  folder: string,
  { where, what, hint, outputs, hasBias }: HeadKind,
  options: LoadModelOptions,
): { trunk: Decoder; head: Linear; fields: Fields } {
  refuseBase(where, folder, options);
  assertModelFolder(folder, where);
  const configPath = join(folder, 'config.json');
  const raw = readJsonObject(configPath) ?? {};
  const generation = readJsonObject(join(folder, 'generation_config.json'));
  const parsed = parseDecoderConfig(raw, configPath, generation);
  const file = openWeights(folder, where);
  try {
    if (!file.has(SCORE))
      throw new CheckpointError(
        `${where}: expected ${what} in ${folder}, there is no tensor ${SCORE}.`,
        { hint },
      );
    // Whatever config.json says of an output layer, this model has none.
    const config = { ...asStored(parsed, file), tieWordEmbeddings: true };
    const shapes = parameterShapes(config);
    shapes.set(SCORE, { shape: [outputs, config.hiddenSize], kind: 'linear' });
    if (hasBias(raw)) shapes.set(SCORE_BIAS, { shape: [outputs], kind: 'bias' });
    const weights = takeTensors({ where, folder, file, config, shapes, ...options });
    const weight = weights.get(SCORE);
    if (weight === undefined) throw new CheckpointError(`internal: ${SCORE} was not taken.`);
    const head = new Linear(weight, weights.get(SCORE_BIAS) ?? null);
    const trunk = decoderOf(config, weights, { ...options, generation });
    return { trunk, head, fields: new Fields(raw, configPath) };
  } finally {
    file.dispose();
  }
}

/** How the base of an adapter becomes a model with a head. */
export interface HeadedBase<Model extends HeadedModel> {
  /** Whether a folder holds such a model already. */
  readonly isWhole: (folder: string) => boolean;
  readonly loadWhole: (folder: string, placed: LoadModelOptions) => Promise<Model>;
  /** Of a language model, with any head: the adapter brings its own. */
  readonly create: (
    folder: string,
    placed: LoadModelOptions,
    padTokenId: number | undefined,
  ) => Promise<Model>;
}

/**
 * Opens the adapter of a model with a head, together with its base: a language model, or a model with such a head.
 *
 * @returns what the adapter's file tells beside its tensors
 * @throws CheckpointError as `readAdapterFolder` and `applyAdapter`; also for an adapter without such a head
 */
export async function loadHeadedAdapter<Model extends HeadedModel>(
  folder: string,
  { where, what, hint, outputs }: HeadKind,
  { base: given, ...placed }: LoadModelOptions,
  { isWhole, loadWhole, create }: HeadedBase<Model>,
): Promise<{ model: Model; metadata: Readonly<Record<string, string>> }> {
  const adapter = readAdapterFolder(where, folder, given);
  const { base } = adapter;
  const { metadata, headOutputs: found } = describeAdapter(where, folder);
  if (found !== outputs)
    throw new CheckpointError(
      `${where}: expected ${what} in the adapter ${folder}, ${found === undefined ? `there is no tensor ${SCORE}` : `received one of ${found} outputs`}.`,
      { hint },
    );
  await requireSameBase(where, adapter);
  const pad = metadata[PAD_TOKEN];
  const model = isWhole(base)
    ? await loadWhole(base, placed)
    : await create(base, placed, pad === undefined ? undefined : Number(pad));
  disposedOnFailure(model, () => applyAdapter(where, model, adapter));
  return { model, metadata };
}

/**
 * How many numbers the head in a model folder reads; undefined where it has none.
 *
 * @throws CheckpointError and IoError as `loadModel`, where it is no model folder
 */
export function headOutputs(where: string, folder: string): number | undefined {
  if (isAdapterFolder(folder)) return describeAdapter(where, folder).headOutputs;
  assertModelFolder(folder, where);
  const file = openWeights(folder, where);
  try {
    return file.has(SCORE) ? file.shapeOf(SCORE)[0] : undefined;
  } finally {
    file.dispose();
  }
}
