/** Opens models as commands ask for them. */
import { UsageError } from '../errors/index.js';
import {
  loadModel,
  loadScalarModel,
  loadStepModel,
  openModelFolder,
  readDecoderConfig,
  tokenizerFolderOf,
  type Decoder,
  type DecoderConfig,
  type LoadModelOptions,
  type ScalarModel,
  type StepModel,
} from '../models/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { cudaIsAvailable, type Dtype } from '../torch/index.js';

export { defaultMaxNewTokens } from '../generation/index.js';

/** Which model, and where it computes. */
export interface PlacementOptions {
  readonly model: string;
  readonly device: string;
  readonly dtype: string;
  /** Of an adapter: its base model, a folder or a name of the Hub. */
  readonly base?: string | undefined;
}

const DTYPES: readonly Dtype[] = ['float32', 'bfloat16', 'float64'];

/**
 * Loads a model and its tokenizer.
 *
 * @throws UsageError for a device or number type that there is not; CheckpointError as `loadModel` and `loadTokenizer`
 */
export async function openModel(
  options: PlacementOptions,
): Promise<{ model: Decoder; tokenizer: Tokenizer }> {
  const { folder, placed, tokenizer } = await openFolder(options);
  return { model: await loadModel(folder, placed), tokenizer };
}

/**
 * Loads a reward model and its tokenizer.
 *
 * @throws as `openModel`
 */
export async function openScalarModel(
  options: PlacementOptions,
): Promise<{ model: ScalarModel; tokenizer: Tokenizer }> {
  const { folder, placed, tokenizer } = await openFolder(options);
  return { model: await loadScalarModel(folder, placed), tokenizer };
}

/**
 * Loads a process reward model and its tokenizer.
 *
 * @throws as `openModel`
 */
export async function openStepModel(
  options: PlacementOptions,
): Promise<{ model: StepModel; tokenizer: Tokenizer }> {
  const { folder, placed, tokenizer } = await openFolder(options);
  return { model: await loadStepModel(folder, placed), tokenizer };
}

async function openFolder(
  options: PlacementOptions,
): Promise<{ folder: string; placed: LoadModelOptions; tokenizer: Tokenizer }> {
  const placed = placeOf(options);
  const folder = await openModelFolder('--base', options.model, options.base);
  return { folder, placed, tokenizer: await loadTokenizer(tokenizerFolderOf(folder)) };
}

/** What `openModel` will load, by its config.json. @throws as `openModel` */
export function describeModel(options: PlacementOptions): {
  config: DecoderConfig;
  placed: { dtype: Dtype; device: string };
} {
  const { dtype = 'float32', device = 'cpu' } = placeOf(options);
  return { config: readDecoderConfig(options.model), placed: { dtype, device } };
}

function placeOf(options: PlacementOptions): LoadModelOptions {
  const { device } = options;
  const dtype = DTYPES.find((name) => name === options.dtype);
  if (dtype === undefined)
    throw new UsageError(`--dtype: expected ${DTYPES.join(', ')}, received ${options.dtype}.`);
  if (!/^(auto|cpu|cuda(:\d+)?)$/.test(device))
    throw new UsageError(`--device: expected auto, cpu or cuda, received ${device}.`);
  const place = device === 'auto' ? (cudaIsAvailable() ? 'cuda' : 'cpu') : device;
  return { dtype, device: place };
}
