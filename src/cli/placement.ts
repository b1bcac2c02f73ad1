/** Opens models as commands ask for them. */
import { UsageError } from '../errors/index.js';
import { loadModel, type Decoder } from '../models/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { cudaIsAvailable, type Dtype } from '../torch/index.js';

export { defaultMaxNewTokens } from '../generation/index.js';

/** Which model, and where it computes. */
export interface PlacementOptions {
  readonly model: string;
  readonly device: string;
  readonly dtype: string;
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
  const { device, model: folder } = options;
  const dtype = DTYPES.find((name) => name === options.dtype);
  if (dtype === undefined)
    throw new UsageError(`--dtype: expected ${DTYPES.join(', ')}, received ${options.dtype}.`);
  if (!/^(auto|cpu|cuda(:\d+)?)$/.test(device))
    throw new UsageError(`--device: expected auto, cpu or cuda, received ${device}.`);
  const place = device === 'auto' ? (cudaIsAvailable() ? 'cuda' : 'cpu') : device;
  const tokenizer = await loadTokenizer(folder);
  return { model: await loadModel(folder, { dtype, device: place }), tokenizer };
}
