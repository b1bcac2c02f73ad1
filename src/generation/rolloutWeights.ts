/**
 * A decoder's weights in the form that is fastest to sample with. Built from the model before a rollout, freed after it:
 * weights do not change while sampling.
 *
 * q, k and v are one matrix, gate and up another. The rows of q and k are reordered so that the two numbers of each
 * rotary pair are neighbours: the rotation is then one complex product. Scores q·k do not change, since both are
 * reordered alike. On the CPU matrices are packed by oneDNN (`npm run bench -- generate` compares the whole with plain products).
 */
import assert from 'node:assert/strict';
import type { Decoder } from '../models/index.js';
import {
  arange,
  cat,
  keep,
  noGrad,
  packedLinear,
  packLinearWeight,
  tidy,
  type Tensor,
} from '../torch/index.js';

/** oneDNN tunes the packed layout to a number of rows; 64 served from 1 to 64 rows nearly as well as layouts of their own. */
const PACKED_FOR_ROWS = 64;
/** Below this many elements a single row is multiplied faster without packing. */
const SMALL_MATRIX = 2 ** 18;

/** A matrix product with a weight that stays as it is. */
export class FrozenLinear {
  private readonly plain: Tensor | null;
  private readonly packed: Tensor | null;
  private readonly bias: Tensor | null;

  /** @param weight [out, in]; a copy is kept only in the form that is used */
  constructor(weight: Tensor, bias: Tensor | null, packing: boolean) {
    const packs = packing && weight.device === 'cpu' && weight.dtype === 'float32';
    this.packed = packs ? keep(packLinearWeight(weight, PACKED_FOR_ROWS)) : null;
    this.plain = packs && weight.numel >= SMALL_MATRIX ? null : keep(weight.detach());
    this.bias = bias === null ? null : keep(bias.detach());
  }

  /** @param x [rows, in] → [rows, out] */
  apply(x: Tensor): Tensor {
    const { plain, packed } = this;
    if (packed === null || (plain !== null && x.size(0) === 1)) {
      assert(plain !== null, 'internal: a matrix is kept packed, plain or both');
      return x.linear(plain, this.bias);
    }
    return packedLinear(x, packed, this.bias);
  }

  /** Frees the copies. */
  dispose(): void {
    for (const tensor of [this.plain, this.packed, this.bias]) tensor?.dispose();
  }
}

/** One layer of `RolloutWeights`. */
export interface RolloutLayer {
  /** [D] */
  inputNorm: Tensor;
  /** D → (H + 2·Hkv)·headDim: queries, keys, values. */
  queryKeyValue: FrozenLinear;
  /** [headDim] in pair order, or null where the family has none. */
  queryNorm: Tensor | null;
  keyNorm: Tensor | null;
  output: FrozenLinear;
  /** [D] */
  postAttentionNorm: Tensor;
  /** D → 2·intermediate: gate, up. */
  gateUp: FrozenLinear;
  down: FrozenLinear;
}

/** All weights of a decoder for sampling. */
export interface RolloutWeights {
  /** [V, D] */
  embedding: Tensor;
  layers: RolloutLayer[];
  /** [D] */
  finalNorm: Tensor;
  head: FrozenLinear;
  dispose(): void;
}

/** [0, d/2, 1, d/2 + 1, …]: where the numbers of pair order come from in Hugging Face's half-split order. */
function pairOrder(headDim: number, device: string): Tensor {
  return arange(headDim, undefined, { device })
    .view([2, headDim / 2])
    .transpose(0, 1)
    .flatten();
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

/**
 * @param options.packing use oneDNN's packed form where the device and dtype allow it (default). Off is for checking.
 */
export function rolloutWeights(
  model: Decoder,
  options: { packing?: boolean } = {},
): RolloutWeights {
  const packing = options.packing ?? true;
  const { headDim } = model.config;
  const owned: { dispose(): void }[] = [];
  const own = <Owned extends { dispose(): void }>(value: Owned): Owned => {
    owned.push(value);
    return value;
  };
  const linear = (weight: Tensor, bias: Tensor | null): FrozenLinear =>
    own(new FrozenLinear(weight, bias, packing));
  const vector = (value: Tensor): Tensor => own(keep(value.detach()));

  const build = (): RolloutWeights => {
    const layers = model.layers.map((layer): RolloutLayer => {
      return tidy(() => {
        const { qProj, kProj, vProj, oProj, qNorm, kNorm } = layer.attention;
        const order = pairOrder(headDim, qProj.weight.device);
        const paired = (rows: Tensor): Tensor => inPairOrder(rows, headDim, order);
        const bias =
          qProj.bias && kProj.bias && vProj.bias
            ? cat([paired(qProj.bias), paired(kProj.bias), vProj.bias])
            : null;
        const { gateProj, upProj, downProj } = layer.mlp;
        const gateUpBias = gateProj.bias && upProj.bias ? cat([gateProj.bias, upProj.bias]) : null;
        return {
          inputNorm: vector(layer.inputNorm.weight),
          queryKeyValue: linear(
            cat([paired(qProj.weight), paired(kProj.weight), vProj.weight]),
            bias,
          ),
          queryNorm: qNorm ? vector(paired(qNorm.weight)) : null,
          keyNorm: kNorm ? vector(paired(kNorm.weight)) : null,
          output: linear(oProj.weight, oProj.bias),
          postAttentionNorm: vector(layer.postAttentionNorm.weight),
          gateUp: linear(cat([gateProj.weight, upProj.weight]), gateUpBias),
          down: linear(downProj.weight, downProj.bias),
        };
      });
    });
    return {
      embedding: vector(model.embedTokens.weight),
      layers,
      finalNorm: vector(model.norm.weight),
      head: linear(model.outputWeight(), null),
      dispose: () => {
        for (const value of owned.splice(0)) value.dispose();
      },
    };
  };
  try {
    return noGrad(build);
  } catch (error) {
    for (const value of owned) value.dispose();
    throw error;
  }
}
