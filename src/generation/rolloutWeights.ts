/**
 * A decoder's weights in the form that is fastest to sample with. Built from the model before a rollout, freed after it:
 * weights do not change while sampling. Adapters are folded into these copies, never into the model's own weights.
 *
 * q, k and v are one matrix, gate and up another. The rows of q and k are reordered so that the two numbers of each
 * rotary pair are neighbours: the rotation is then one complex product. Scores q·k do not change, since both are
 * reordered alike. Numbers of a head that do not turn stay where they are. On the CPU matrices are packed
 * (`native/src/packed.cpp`).
 */
import assert from 'node:assert/strict';
import type { Decoder, DecoderConfig, DecoderLayer, LayerKind, Norm } from '../models/index.js';
import {
  innerValues,
  mixExperts,
  Mlp,
  RMSNorm,
  type ExpertMlp,
  type Linear,
  type MlpSettings,
} from '../nn/index.js';
import {
  arange,
  cat,
  fewRowsLinear,
  keepOwned,
  noGrad,
  packedLinear,
  packLinearWeight,
  runtimeInfo,
  tidy,
  type AttentionWeights,
  type DecodeNorms,
  type Dtype,
  type FrozenWeight,
  type MlpWeights,
  type Tensor,
} from '../torch/index.js';

/** oneDNN tunes the packed layout to a number of rows; 64 served from 1 to 64 rows nearly as well as layouts of their own. */
const PACKED_FOR_ROWS = 64;
/** Below this many elements a few rows are multiplied faster without packing. */
const SMALL_MATRIX = 2 ** 18;
/** Up to so many rows a product is as fast as its weight can be read, and packing gains nothing. */
export const FEW_ROWS: Readonly<Record<string, number>> = { float32: 4, bfloat16: 4 };

/** Whether a packed form is there, and faster: in bfloat16 only with instructions for it, or where it is widened. */
function canPack({ dtype, device }: Tensor): boolean {
  if (device !== 'cpu') return false;
  if (dtype !== 'bfloat16') return dtype === 'float32';
  const { multipliesBfloat16, widensBfloat16 } = runtimeInfo();
  return multipliesBfloat16 || widensBfloat16;
}

/** A matrix product with a weight that stays as it is. */
export class FrozenLinear {
  private readonly plain: Tensor | null;
  private readonly packed: Tensor | null;
  private readonly bias: Tensor | null;
  private readonly dtype: Dtype;
  private readonly fewRows: number;

  /** @param weight [out, in]; a copy is kept only in the form that is used */
  constructor(weight: Tensor, bias: Tensor | null, packing: boolean) {
    const packs = packing && canPack(weight);
    this.packed = packs ? keepOwned(packLinearWeight(weight, PACKED_FOR_ROWS)) : null;
    this.plain = packs && weight.numel >= SMALL_MATRIX ? null : keepOwned(weight.detach());
    this.bias = bias === null ? null : keepOwned(bias.detach());
    this.dtype = weight.dtype;
    this.fewRows = weight.device === 'cpu' ? (FEW_ROWS[weight.dtype] ?? 0) : 0;
  }

  /** @param x [rows, in] → [rows, out] */
  apply(x: Tensor): Tensor {
    const { plain, packed, bias } = this;
    // Under autocast the other products round what they take; these do not.
    const rounded = (): Tensor => (this.dtype === 'bfloat16' ? x.to('bfloat16') : x);
    if (plain !== null && x.size(0) <= this.fewRows) return fewRowsLinear(rounded(), plain, bias);
    if (packed !== null) return packedLinear(rounded(), packed, bias);
    assert(plain !== null, 'internal: a matrix is kept packed, plain or both');
    return x.linear(plain, bias);
  }

  /** The form that `rows` rows are multiplied with. */
  forRows(rows: number): FrozenWeight {
    const { plain, packed, bias } = this;
    const weight = plain !== null && (packed === null || rows <= this.fewRows) ? plain : packed;
    assert(weight !== null, 'internal: a matrix is kept packed, plain or both');
    return { weight, bias };
  }

  /** Frees the copies. */
  dispose(): void {
    for (const tensor of [this.plain, this.packed, this.bias]) tensor?.dispose();
  }
}

/** What a feed-forward layer computes, [rows, D] → [rows, D]. */
type FeedForward = (x: Tensor) => Tensor;

interface FrozenMlp {
  readonly input: FrozenLinear;
  readonly output: FrozenLinear;
  readonly settings: MlpSettings;
  readonly apply: FeedForward;
}

/** The halves of a layer that are computed in one call each, where there are kernels for them. */
export interface FusedHalves {
  /** For so many rows. */
  attention(rows: number): AttentionWeights;
  mlp(rows: number): MlpWeights;
}

/** One layer of `RolloutWeights`. */
export interface RolloutLayer {
  readonly kind: LayerKind;
  readonly inputNorm: Norm;
  /** D → (H + 2·Hkv)·headDim: queries, keys, values. */
  readonly queryKeyValue: FrozenLinear;
  /** Weight [headDim] in pair order, or null where the family has none. */
  readonly queryNorm: Norm | null;
  readonly keyNorm: Norm | null;
  readonly output: FrozenLinear;
  readonly attentionOutputNorm: Norm | null;
  readonly mlpNorm: Norm;
  readonly feedForward: FeedForward;
  readonly mlpOutputNorm: Norm | null;
  /** null where a layer is computed operator by operator. */
  readonly fused: FusedHalves | null;
}

/** All weights of a decoder for sampling. Norms and embeddings are the model's own. */
export interface RolloutWeights {
  /** ids [rows] and positions [rows] → [rows, D] */
  readonly embed: (ids: Tensor, positions: () => Tensor) => Tensor;
  readonly layers: readonly RolloutLayer[];
  readonly finalNorm: Norm;
  readonly head: FrozenLinear;
  readonly device: string;
  /** Of the residual stream and of rotations. */
  readonly dtype: Dtype;
  /** Of products, and of the cache. */
  readonly computeDtype: Dtype;
  /** Whether logits are computed in float32. */
  readonly float32Head: boolean;
  dispose(): void;
}

/**
 * [0, r/2, 1, r/2 + 1, …], then r, r + 1, …: where the numbers of pair order come from in Hugging Face's half-split order
 * of a head whose first r numbers turn.
 */
function pairOrder(headDim: number, rotaryDim: number, device: string): Tensor {
  const pairs = arange(rotaryDim, undefined, { device })
    .view([2, rotaryDim / 2])
    .transpose(0, 1)
    .flatten();
  return rotaryDim === headDim ? pairs : cat([pairs, arange(rotaryDim, headDim, { device })]);
}

/** Rows of a projection [heads·headDim, …], reordered within each head. */
function inPairOrder(rows: Tensor, headDim: number, order: Tensor): Tensor {
  const heads = rows.size(0) / headDim;
  const rest = rows.shape.slice(1);
  return rows
    .view([heads, headDim, ...rest])
    .indexSelect(1, order)
    .view(rows.shape);
}

/** The rows of layers that read the same input, one below the other. */
function stacked(layers: readonly Linear[]): { weight: Tensor; bias: Tensor | null } {
  const biases = layers.flatMap(({ bias }) => (bias === null ? [] : [bias]));
  const [first] = layers;
  if (first !== undefined && layers.length === 1)
    return { weight: first.effectiveWeight(), bias: first.bias };
  const bias = biases.length === layers.length ? cat(biases) : null;
  return { weight: cat(layers.map((layer) => layer.effectiveWeight())), bias };
}

/** Remembers what was made for as many rows as last time. */
function remembered<Made>(make: (rows: number) => Made): (rows: number) => Made {
  let known: { rows: number; made: Made } | null = null;
  return (rows) => (known?.rows === rows ? known : (known = { rows, made: make(rows) })).made;
}

/** Makes what `RolloutWeights` holds, and knows what to free. */
class Freezer {
  private readonly owned: { dispose(): void }[] = [];
  private readonly config: DecoderConfig;
  private readonly packing: boolean;
  /** Whether halves of layers are computed in one call. */
  private readonly kernels: boolean;
  /** What weights are rounded to; null leaves them as they are. */
  private readonly dtype: Dtype | null;

  constructor(
    config: DecoderConfig,
    { packing, kernels }: { packing: boolean; kernels: boolean },
    dtype: Dtype | null,
  ) {
    this.config = config;
    this.packing = packing;
    this.kernels = kernels;
    this.dtype = dtype;
  }

  private own<Owned extends { dispose(): void }>(value: Owned): Owned {
    this.owned.push(value);
    return value;
  }

  dispose(): void {
    for (const value of this.owned.splice(0)) value.dispose();
  }

  linear(weight: Tensor, bias: Tensor | null): FrozenLinear {
    const { dtype } = this;
    if (dtype === null) return this.own(new FrozenLinear(weight, bias, this.packing));
    return this.own(new FrozenLinear(weight.to(dtype), bias?.to(dtype) ?? null, this.packing));
  }

  /** The output layer, in float32 where that is asked for. */
  head(weight: Tensor, inFloat32: boolean): FrozenLinear {
    if (!inFloat32 || weight.dtype === 'float64') return this.linear(weight, null);
    return this.own(new FrozenLinear(weight.to('float32'), null, this.packing));
  }

  private mlp({ inputs, output, settings }: Mlp): FrozenMlp {
    const { weight, bias } = stacked(inputs);
    const input = this.linear(weight, bias);
    const last = this.linear(output.effectiveWeight(), output.bias);
    const apply = (x: Tensor): Tensor => last.apply(innerValues([input.apply(x)], settings));
    return { input, output: last, settings, apply };
  }

  private experts(layer: ExpertMlp): FeedForward {
    const router = this.linear(layer.router.effectiveWeight(), layer.router.bias);
    const experts = layer.experts.map((expert) => this.mlp(expert).apply);
    return (x) => mixExperts(x, router.apply(x), experts, layer.routing);
  }

  /** A weight as kernels take it. */
  private factors(norm: Norm | null): Tensor | null {
    if (!(norm instanceof RMSNorm)) return null;
    const weight = norm.weight.detach().to('float32');
    return this.own(keepOwned(norm.plusOne ? weight.add(1) : weight.clone()));
  }

  /** null for another kind of layer, dtype or device than there are kernels for. */
  private fused(layer: Omit<RolloutLayer, 'fused'>, mlp: FrozenMlp | null): FusedHalves | null {
    const { config } = this;
    const { inputNorm, attentionOutputNorm, mlpNorm, mlpOutputNorm, queryKeyValue, output } = layer;
    if (!this.kernels || mlp === null) return null;
    if (!(inputNorm instanceof RMSNorm && mlpNorm instanceof RMSNorm)) return null;
    const norms = (input: RMSNorm, after: Norm | null): DecodeNorms => ({
      input: this.factors(input) as Tensor,
      output: this.factors(after),
      eps: input.eps,
      roundsLast: input.plusOne,
    });
    const attention = {
      norms: norms(inputNorm, attentionOutputNorm),
      queryNorm: this.factors(layer.queryNorm),
      keyNorm: this.factors(layer.keyNorm),
      scale: config.attentionScale,
      softcap: config.attentionSoftcap,
    };
    const feedForward = { norms: norms(mlpNorm, mlpOutputNorm), ...mlp.settings };
    return {
      attention: remembered((rows) => ({
        ...attention,
        queryKeyValue: queryKeyValue.forRows(rows),
        output: output.forRows(rows),
      })),
      mlp: remembered((rows) => ({
        ...feedForward,
        input: mlp.input.forRows(rows),
        output: mlp.output.forRows(rows),
      })),
    };
  }

  layer(layer: DecoderLayer): RolloutLayer {
    const { headDim, rotaryDim, numHeads, numKeyValueHeads, learnedPositions } = this.config;
    const { projections, output, qNorm, kNorm } = layer.attention;
    const { weight, bias } = stacked(projections);
    const order = pairOrder(headDim, rotaryDim, weight.device);
    const turning = (numHeads + numKeyValueHeads) * headDim;
    const paired = (rows: Tensor): Tensor => {
      if (learnedPositions) return rows; // nothing turns
      const rest = rows.size(0) - turning;
      const turned = inPairOrder(rows.narrow(0, 0, turning), headDim, order);
      return cat([turned, rows.narrow(0, turning, rest)]);
    };
    const pairedNorm = (norm: RMSNorm | null): Norm | null => {
      if (norm === null) return null;
      const reordered = norm.weight.indexSelect(0, order);
      return this.own(new RMSNorm(reordered, norm.eps, { plusOne: norm.plusOne }));
    };
    const mlp = layer.mlp instanceof Mlp ? this.mlp(layer.mlp) : null;
    const frozen = {
      kind: layer.kind,
      inputNorm: layer.inputNorm,
      queryKeyValue: this.linear(paired(weight), bias && paired(bias)),
      queryNorm: pairedNorm(qNorm),
      keyNorm: pairedNorm(kNorm),
      output: this.linear(output.effectiveWeight(), output.bias),
      attentionOutputNorm: layer.attentionOutputNorm,
      mlpNorm: layer.mlpNorm,
      feedForward: layer.mlp instanceof Mlp ? (mlp as FrozenMlp).apply : this.experts(layer.mlp),
      mlpOutputNorm: layer.mlpOutputNorm,
    };
    return { ...frozen, fused: this.fused(frozen, mlp) };
  }
}

/** Whether there are kernels for a device and its dtypes. */
function hasKernels({ device, dtype, computeDtype }: Decoder): boolean {
  const isKnown = (one: Dtype): boolean => one === 'float32' || one === 'bfloat16';
  return device === 'cpu' && isKnown(dtype) && isKnown(computeDtype);
}

/**
 * @param options.packing use kernels for halves of layers and the packed form where the device and dtype allow it
 *   (default), the latter where `rows` are so many that it is faster. Off, everything is plain operators: for checking.
 * @param options.rows the most that will be computed together; many unless said
 */
export function rolloutWeights(
  model: Decoder,
  options: { packing?: boolean; rows?: number } = {},
): RolloutWeights {
  const { embedTokens, embedPositions, norm, device, dtype, compute, computeDtype } = model;
  const rounded = computeDtype === dtype ? null : computeDtype;
  const isFew = (options.rows ?? Infinity) <= (FEW_ROWS[computeDtype] ?? 0);
  const packing = (options.packing ?? true) && !isFew;
  const kernels = (options.packing ?? true) && hasKernels(model);
  const freezer = new Freezer(model.config, { packing, kernels }, rounded);
  try {
    return noGrad(() => ({
      embed: (ids, positions) => {
        const embedded = embedTokens.forward(ids);
        return embedPositions === null
          ? embedded
          : embedded.add(embedPositions.forward(positions()));
      },
      layers: model.layers.map((layer) => tidy(() => freezer.layer(layer))),
      finalNorm: norm,
      head: tidy(() => freezer.head(model.outputWeight(), compute.float32Head)),
      float32Head: compute.float32Head,
      device,
      dtype,
      computeDtype,
      dispose: () => freezer.dispose(),
    }));
  } catch (error) {
    freezer.dispose();
    throw error;
  }
}
