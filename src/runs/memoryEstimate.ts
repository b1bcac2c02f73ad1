/**
 * How much memory a run needs, from configurations and settings alone: nothing is loaded. Knows what is held when, not
 * what the machine has. docs/memory.md compares it with what was measured.
 */
import { checkpointNames, parameterShapes, type DecoderConfig } from '../models/index.js';
import { DTYPE_BYTES, type Dtype } from '../torch/index.js';

/** One model that is held while a run goes on. */
export interface PlannedModel {
  readonly config: DecoderConfig;
  /** Parameters that are trained: all of them, none, or how many where adapters are. */
  readonly trained: 'all' | 'none' | number;
  /** Whether its weights are those of another model, as with LoRA: only what is trained is its own. */
  readonly sharesWeights?: boolean | undefined;
  /** Of a frozen model: whether its weights wait on the disk while it is not used. */
  readonly rests?: boolean | undefined;
  /** false for a reward or value model, which has no output layer over the vocabulary. */
  readonly hasLmHead: boolean;
}

/** Completions that are sampled together. */
export interface PlannedRollout {
  readonly rows: number;
  /** Of the longest row, prompt included. */
  readonly tokens: number;
}

/** Everything that memory depends on. */
export interface MemoryPlan {
  /** The first one is the policy. */
  readonly models: readonly PlannedModel[];
  /** Tokens of a pass with gradients, padding included; 0 where nothing is trained. */
  readonly passTokens: number;
  /** Whether an optimizer step takes several passes, so that gradients stand beside activations. */
  readonly accumulates: boolean;
  /** Null where nothing is sampled. */
  readonly rollout: PlannedRollout | null;
  readonly dtype: Dtype;
  readonly precision: 'full' | 'bf16-mixed';
  readonly gradientCheckpointing: boolean;
  /** Whether the output layer computes in float32 where weights have 16 bits; false unless said. */
  readonly float32Head?: boolean | undefined;
  /** Whether frozen models are read between the passes of a step where something is sampled, too; false unless said. */
  readonly readsBetweenPasses?: boolean | undefined;
}

/** Bytes at the moment when most is held, by what they are for. */
export interface MemoryEstimate {
  readonly total: number;
  readonly parts: Readonly<Record<MemoryPart, number>>;
}

/**
 * What memory is for: `runtime` is Node.js and libtorch, `frozen` a model whose weights come from the disk while it is used,
 * `scores` the logits and what is computed from them.
 */
export type MemoryPart =
  | 'runtime'
  | 'weights'
  | 'frozen'
  | 'optimizer'
  | 'gradients'
  | 'activations'
  | 'scores'
  | 'rolloutWeights'
  | 'cache';

/** Node.js with libtorch loaded, before a tensor is made: measured on Linux, see docs/memory.md. */
const RUNTIME_BYTES = 300e6;
/**
 * What is held for each byte of activations: blocks have sizes that are rounded up by at most a 32nd
 * (native/src/allocator.cpp), and rows that share a prompt have its keys and values beside their own.
 */
const ROUNDING = 1.1;
/** Logits that stand at a time, and for how many tokens at least: those of `backwardTokenLogprobs`. */
const RECORDED_ELEMENTS = 2 ** 25;
const MIN_RECORDED_TOKENS = 1024;
/** Matrices [rows, V] while a token is drawn. */
const DRAW_MATRICES = 4;

/**
 * The most memory that a run holds at a time.
 *
 *     runtime + weights + optimizer + max(update, rollout, reading)
 *     update  = gradients + activations + scores, in a single pass max(gradients, activations + scores)
 *     rollout = weights packed for sampling + KV cache
 *     reading = the largest model that rests between uses, and gradients where they are collected meanwhile
 *
 * Source: ours. Activations are what our decoder keeps for its backward pass, counted layer by layer.
 */
export function estimateMemory(plan: MemoryPlan): MemoryEstimate {
  const { models, passTokens, rollout, dtype } = plan;
  const bytes = DTYPE_BYTES[dtype];
  const counts = models.map(parameterCount);
  const trained = models.map(({ trained: which }, index) =>
    which === 'all' ? (counts[index] ?? 0) : which === 'none' ? 0 : which,
  );
  const sum = (values: readonly number[]): number => values.reduce((total, n) => total + n, 0);
  const own = models.map(({ sharesWeights }, index) =>
    sharesWeights === true ? 0 : (counts[index] ?? 0),
  );
  const held = own.filter((_, index) => models[index]?.rests !== true);
  const resting = own.filter((_, index) => models[index]?.rests === true);
  // Adapters come on top of the weights that they adapt.
  const adapters = models.map(({ trained: which }) => (typeof which === 'number' ? which : 0));
  const weights = (sum(held) + sum(adapters)) * bytes;
  const optimizer = 2 * sum(trained) * bytes;
  const learning = models.filter((_, index) => (trained[index] ?? 0) > 0);
  const most = (of: (model: PlannedModel) => number): number => Math.max(0, ...learning.map(of));
  const update = {
    gradients: passTokens === 0 ? 0 : sum(trained) * bytes,
    activations: passTokens === 0 ? 0 : ROUNDING * most((model) => activationBytes(model, plan)),
    scores: passTokens === 0 ? 0 : most((model) => scoreBytes(model, plan)),
  };
  const [policy] = models;
  const sampled = rollout === null || policy === undefined ? null : { ...policy, rollout };
  const sampling = {
    rolloutWeights: sampled === null ? 0 : rolloutBytes(sampled, plan),
    cache: sampled === null ? 0 : cacheBytes(sampled, plan),
  };
  // In the only pass of a step a gradient takes the place of the activations that it was computed from.
  if (!plan.accumulates) {
    const others = update.activations + update.scores;
    update.gradients = Math.max(0, update.gradients - others);
  }
  // On policy a frozen model mostly reads a whole rollout before the update; otherwise micro-batch by micro-batch.
  const readsBetweenPasses = plan.readsBetweenPasses ?? rollout === null;
  const reading = {
    frozen: Math.max(0, ...resting) * bytes,
    gradients: plan.accumulates && readsBetweenPasses ? update.gradients : 0,
  };
  const [phase] = [update, sampling, reading].sort(
    (a, b) => sum(Object.values(b)) - sum(Object.values(a)),
  );
  const parts = {
    runtime: RUNTIME_BYTES,
    weights,
    optimizer,
    ...{ frozen: 0, gradients: 0, activations: 0, scores: 0, rolloutWeights: 0, cache: 0 },
    ...phase,
  };
  return { total: sum(Object.values(parts)), parts };
}

/** Parameters of a model, without an output layer of its own where it has none. */
export function parameterCount({ config, hasLmHead }: PlannedModel): number {
  const shapes = parameterShapes(hasLmHead ? config : { ...config, tieWordEmbeddings: true });
  let count = 0;
  for (const { shape } of shapes.values()) count += shape.reduce((product, n) => product * n, 1);
  return count;
}

/** Numbers per token that one layer keeps for its backward pass: of the residual stream's width, and inner ones. */
function layerNumbers(
  { config, trained }: PlannedModel,
  { dtype }: MemoryPlan,
): { stream: number; inner: number } {
  const { hiddenSize, numHeads, numKeyValueHeads, headDim, intermediateSize, experts } = config;
  const perToken = experts === null ? 1 : experts.expertsPerToken;
  const width = experts === null ? intermediateSize : experts.intermediateSize;
  const trainsAll = trained === 'all';
  const hasKernel = dtype === 'float32' || dtype === 'bfloat16';
  const normalisesAgain = hasKernel && config.norm !== 'layer' && trainsAll;
  // Queries, keys, values and what attention wrote; what projections read, where it is not normalised again in the backward
  // pass; and queries and keys before they are normalised, where they are.
  const heads = numHeads + numKeyValueHeads;
  const attention = (normalisesAgain ? 0 : hiddenSize) + (config.qkNorm ? 3 : 2) * heads * headDim;
  // The feed-forward layer's gate and up, or what its activation read; what its last product reads, where that is not
  // computed again; what its first products read; and what an expert takes and gives.
  const isGated = config.gatedMlp;
  const isWhole =
    isGated && !config.mlpBias && trainsAll && checkpointNames(config).mlpInputs.length === 2;
  const matrices = (isGated ? 2 : 1) + (isWhole ? 0 : 1);
  const passed = experts === null ? 0 : 2 * hiddenSize * perToken;
  const feedForward =
    (normalisesAgain && experts === null ? 0 : hiddenSize) + passed + matrices * width * perToken;
  // Inputs of the norms.
  return { stream: (config.outputNorms ? 4 : 2) * hiddenSize, inner: attention + feedForward };
}

function activationBytes(model: PlannedModel, plan: MemoryPlan): number {
  const { config } = model;
  const { passTokens, dtype, precision, gradientCheckpointing } = plan;
  const wide = DTYPE_BYTES[dtype];
  const narrow = precision === 'bf16-mixed' ? DTYPE_BYTES.bfloat16 : wide;
  const { stream, inner } = layerNumbers(model, plan);
  const layer = stream * wide + inner * narrow;
  const perToken = gradientCheckpointing
    ? config.numLayers * config.hiddenSize * wide + layer
    : config.numLayers * layer;
  // Copies of the weights in bfloat16, which products keep for their backward pass.
  const copies =
    precision === 'full'
      ? 0
      : (linearCount(config) * narrow) / (gradientCheckpointing ? config.numLayers : 1);
  return passTokens * perToken + copies;
}

/** Numbers in the matrices of all layers. */
function linearCount(config: DecoderConfig): number {
  let count = 0;
  for (const { shape, kind } of parameterShapes({ ...config, tieWordEmbeddings: true }).values())
    if (kind === 'linear') count += shape.reduce((product, n) => product * n, 1);
  return count;
}

function scoreBytes(
  { config, hasLmHead }: PlannedModel,
  { passTokens, dtype, float32Head = false }: MemoryPlan,
): number {
  if (!hasLmHead) return 0;
  const { vocabSize, hiddenSize } = config;
  const most = Math.max(MIN_RECORDED_TOKENS, Math.floor(RECORDED_ELEMENTS / vocabSize));
  // A cap keeps what it divides, bends and multiplies.
  const matrices = config.logitSoftcap === null ? 1 : 4;
  const logits = matrices * Math.min(passTokens, most) * vocabSize;
  const layer = vocabSize * hiddenSize;
  // And a chunk's gradient of the output layer; in float32 beside narrower weights a copy of the layer, too.
  return float32Head && DTYPE_BYTES[dtype] < DTYPE_BYTES.float32
    ? (logits + 2 * layer) * DTYPE_BYTES.float32
    : (logits + layer) * DTYPE_BYTES[dtype];
}

interface Sampled extends PlannedModel {
  readonly rollout: PlannedRollout;
}

/** A copy of the matrices to sample with: packed, or with layers that read the same side by side. */
function rolloutBytes({ config }: Sampled, { dtype, precision }: MemoryPlan): number {
  const count = linearCount(config) + config.vocabSize * config.hiddenSize;
  return count * DTYPE_BYTES[precision === 'full' ? dtype : 'bfloat16'];
}

function cacheBytes({ config, rollout }: Sampled, { dtype, precision }: MemoryPlan): number {
  const { numLayers, numKeyValueHeads, headDim, vocabSize } = config;
  const bytes = precision === 'full' ? DTYPE_BYTES[dtype] : DTYPE_BYTES.bfloat16;
  const cache = rollout.rows * rollout.tokens * 2 * numLayers * numKeyValueHeads * headDim * bytes;
  return cache + DRAW_MATRICES * rollout.rows * vocabSize * DTYPE_BYTES.float32;
}
