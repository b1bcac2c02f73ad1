/** Taking a model's tensors out of its opened checkpoint, all of them and no others. Internal to this folder. */
import { CheckpointError } from '../errors/index.js';
import {
  isFloatingPoint,
  noGrad,
  restingTensors,
  tidy,
  type Dtype,
  type SafetensorsFile,
  type Tensor,
} from '../torch/index.js';
import { checkpointNames, isStoredTransposed, storedName } from './checkpointNames.js';
import type { DecoderConfig } from './decoderConfig.js';
import type { ParameterShape } from './parameterShapes.js';

/** What to take and from where. */
export interface TensorRequest {
  /** The function that asks, for messages. */
  readonly where: string;
  readonly folder: string;
  readonly file: SafetensorsFile;
  /** The file that says what the shapes are: config.json unless said. */
  readonly described?: string | undefined;
  /** How the family stores its tensors. */
  readonly config: DecoderConfig;
  /** By the names of the checkpoint, as the model has them in memory. */
  readonly shapes: ReadonlyMap<string, Pick<ParameterShape, 'shape'>>;
  /** float32 unless said. */
  readonly dtype?: Dtype | undefined;
  /** cpu unless said. */
  readonly device?: string | undefined;
  /** See `LoadModelOptions`. */
  readonly restIn?: string | undefined;
}

/**
 * The tensors by name.
 *
 * @throws CheckpointError that lists every missing, surplus and misshapen tensor at once, or names the first one that
 *   is not finite
 */
export function takeTensors(request: TensorRequest): Map<string, Tensor> {
  checkTensors(request);
  const weights = new Map<string, Tensor>();
  try {
    for (const name of request.shapes.keys()) weights.set(name, takeTensor(request, name));
    if (request.restIn === undefined || (request.device ?? 'cpu') !== 'cpu') return weights;
    const resting = restingTensors(request.restIn, weights);
    for (const weight of weights.values()) weight.dispose();
    return resting;
  } catch (error) {
    for (const weight of weights.values()) weight.dispose();
    throw error;
  }
}

function takeTensor(request: TensorRequest, name: string): Tensor {
  const { file, config, dtype = 'float32', device = 'cpu' } = request;
  return noGrad(() =>
    tidy(() => {
      const own = storedName(config, name);
      // The CPU computes with what is read here; another device copies it.
      const stored = device === 'cpu' ? file.read(own, dtype) : file.tensor(own);
      requireFinite(request, own, stored);
      if (!isStoredTransposed(config, name)) return stored.to({ dtype, device });
      return stored.transpose(0, 1).contiguous().to({ dtype, device });
    }),
  );
}

/** Refuses weights of which nothing but NaN would come, under whatever setting. @throws CheckpointError */
function requireFinite({ where, folder, file }: TensorRequest, name: string, stored: Tensor): void {
  // A sum is one pass without a copy; it may overflow where every number is finite.
  if (Number.isFinite(stored.sum().item())) return;
  const count = stored.isfinite().logicalNot().sum().item();
  if (count === 0) return;
  const as = stored.dtype === file.dtypeOf(name) ? '' : ` as ${stored.dtype}`;
  throw new CheckpointError(
    `${where}: expected finite weights in ${folder}, received ${count} of ${stored.numel} numbers of ${name} that are NaN or infinite${as}.`,
    {
      hint: 'The run that saved them diverged, or the file is damaged: take an earlier checkpoint, or fetch it again.',
    },
  );
}

function checkTensors(request: TensorRequest): void {
  const { where, folder, file, config, shapes, described = 'config.json' } = request;
  const stored = new Map(
    [...shapes].map(([name, { shape }]) => [
      storedName(config, name),
      isStoredTransposed(config, name) ? shape.toReversed() : shape,
    ]),
  );
  const missing = [...stored.keys()].filter((name) => !file.has(name));
  const surplus = file.names.filter((name) => !stored.has(name) && !isHarmless(name, config, file));
  const misshapen = [...stored].flatMap(([name, shape]) => {
    if (!file.has(name) || String(file.shapeOf(name)) === String(shape)) return [];
    return [`${name} [${file.shapeOf(name).join(', ')}] instead of [${shape.join(', ')}]`];
  });
  const notFloating = [...stored.keys()].flatMap((name) => {
    if (!file.has(name) || isFloatingPoint(file.dtypeOf(name))) return [];
    return [`${name} (${file.dtypeOf(name)})`];
  });
  const faults = [
    ['missing', missing],
    ['not part of this model', surplus],
    [`of another shape than ${described} says`, misshapen],
    ['not of floating point', notFloating],
  ] as const;
  const found = faults.filter(([, names]) => names.length > 0);
  if (found.length === 0) return;
  const text = found.map(([fault, names]) => `${names.length} ${fault}: ${shorten(names)}`);
  throw new CheckpointError(
    `${where}: the tensors in ${folder} do not fit: ${text.join('; ')}.`,
    adviceOn(request),
  );
}

/** Which function opens what was meant, where the head tells. */
function adviceOn({ file, shapes, described }: TensorRequest): { hint: string } {
  const other = {
    hint:
      described === undefined
        ? 'Check that config.json belongs to these weights and that they are complete.'
        : `Check that ${described} belongs to these weights, and that the base model is the one that they were trained on: --base names another.`,
  };
  if (!file.has(SCORE)) return other;
  const [outputs] = file.shapeOf(SCORE);
  const [expected] = shapes.get(SCORE)?.shape ?? [0];
  if (outputs === expected) return other;
  if (outputs === 1)
    return {
      hint: 'This is a reward or value model: a language model is expected here. In code, loadScalarModel opens it.',
    };
  return outputs === 2
    ? {
        hint: 'This is a process reward model: another kind is expected here. In code, loadStepModel opens it.',
      }
    : other;
}

/** The checkpoint's names of a head. */
export const SCORE = 'score.weight';
/** Of a head that has one. */
export const SCORE_BIAS = 'score.bias';

/** Masks that GPT-2's first checkpoints carry: they say that no token looks to its right. */
const GPT2_MASK = /^(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)$/;

/**
 * Old checkpoints carry the rotary frequencies or masks, and some carry the output layer although it is tied, or the model
 * has none.
 */
function isHarmless(name: string, config: DecoderConfig, file: SafetensorsFile): boolean {
  if (name.endsWith('rotary_emb.inv_freq')) return true;
  if (config.modelType === 'gpt2' && GPT2_MASK.test(name)) return true;
  const names = checkpointNames(config);
  const embedding = storedName(config, `${names.embedding}.weight`);
  if (name !== `${names.head}.weight` || !config.tieWordEmbeddings || !file.has(embedding))
    return false;
  if (file.dtypeOf(name) !== file.dtypeOf(embedding)) return false;
  return tidy(() => file.tensor(name).equal(file.tensor(embedding)));
}

function shorten(names: readonly string[]): string {
  const shown = names.slice(0, 10).join(', ');
  return names.length > 10 ? `${shown} and ${names.length - 10} more` : shown;
}
