/** Low-rank adapters of linear layers: what is added to a frozen weight, and how it is folded into a copy of it. */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import {
  deriveSeed,
  Generator,
  noGrad,
  rand,
  showShape,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import { Module } from './module.js';

/** What an adapter of one layer is made of. */
export interface LoraParts {
  /** A [r, in]. */
  readonly a: Tensor;
  /** B [out, r]. */
  readonly b: Tensor;
  /** m [out]: the length of each row of the adapted weight (DoRA); null for LoRA. */
  readonly magnitude: Tensor | null;
  /** s, by which B·A is multiplied: see `loraScaling`. */
  readonly scaling: number;
}

/** A frozen weight and its bias. */
interface Frozen {
  /** [out, in] */
  readonly weight: Tensor;
  /** [out] */
  readonly bias: Tensor | null;
}

/** How a new adapter of one layer begins. */
export interface LoraInit {
  readonly rank: number;
  readonly scaling: number;
  readonly dora: boolean;
  /** The same one gives the same A in every dtype and on every device. */
  readonly seed: number;
}

/**
 * The factor of B·A.
 *
 *     s = α / r, with rank stabilisation s = α / √r
 *
 * Source: Hu et al. 2021, arXiv:2106.09685, §4.1; Kalajdzievski 2023 (rsLoRA), arXiv:2312.03732, Theorem 3.2.
 *
 * @throws ValueRangeError unless the rank is a positive integer
 */
export function loraScaling({
  rank,
  alpha,
  rsLora,
}: {
  readonly rank: number;
  readonly alpha: number;
  readonly rsLora: boolean;
}): number {
  if (!Number.isInteger(rank) || rank < 1)
    throw new ValueRangeError(
      `loraScaling: expected rank to be a positive integer, received ${rank}.`,
    );
  return rsLora ? alpha / Math.sqrt(rank) : alpha / rank;
}

/** The dtype of an adapter on weights of `dtype`: at least float32, because small updates vanish in 16 bits. */
export function loraDtype(dtype: Dtype): Dtype {
  return dtype === 'float64' ? 'float64' : 'float32';
}

/**
 * The adapter of one linear layer.
 *
 *     LoRA: y = x·Wᵀ + b + s·B·A·d(x)
 *     DoRA: y = x·Wᵀ + b + (m/‖W + s·B·A‖ − 1)·d(x)·Wᵀ + m/‖W + s·B·A‖·s·B·A·d(x)
 *
 * The norm is that of each row and counts as a constant: no gradient flows through it. d is dropout where
 * `withLoraDropout` runs, and the identity everywhere else; without dropout the second line is
 * y = m/‖W + s·B·A‖ · (W + s·B·A)·x + b.
 *
 * Source: Hu et al. 2021, arXiv:2106.09685, Eq. 3; Liu et al. 2024 (DoRA), arXiv:2402.09353, Eq. 5 and §4.3. Dropout in
 * DoRA as in PEFT, which multiplies the dropped-out input with W too.
 */
export class LoraAdapter extends Module {
  /** [r, in] */
  readonly a: Tensor;
  /** [out, r] */
  readonly b: Tensor;
  /** [out], or null. */
  readonly magnitude: Tensor | null;
  readonly scaling: number;
  private dropout: { readonly p: number; readonly generator: Generator } | null = null;

  /** @throws ShapeError unless the parts fit together */
  constructor({ a, b, magnitude, scaling }: LoraParts) {
    super();
    if (a.ndim !== 2 || b.ndim !== 2 || a.shape[0] !== b.shape[1])
      throw new ShapeError(
        `LoraAdapter: expected A [r, in] and B [out, r], received ${showShape(a.shape)} and ${showShape(b.shape)}.`,
      );
    if (magnitude !== null && (magnitude.ndim !== 1 || magnitude.shape[0] !== b.shape[0]))
      throw new ShapeError(
        `LoraAdapter: expected magnitude [${b.shape[0]}], received ${showShape(magnitude.shape)}.`,
      );
    // Names as in PEFT's files.
    this.a = this.parameter('lora_A.weight', a);
    this.b = this.parameter('lora_B.weight', b);
    this.magnitude = magnitude === null ? null : this.parameter('lora_magnitude_vector', magnitude);
    this.scaling = scaling;
  }

  /** Drops elements of the input with probability p from now on, drawn from a stream of `seed`; null for never. */
  dropInputs(dropout: { readonly p: number; readonly seed: number } | null): void {
    this.dropout =
      dropout === null
        ? null
        : { p: dropout.p, generator: new Generator(dropout.seed, this.a.device) };
  }

  /**
   * The output of the adapted layer.
   *
   * @param x [..., in]
   * @param y [..., out] what the frozen layer gives for x, bias included
   * @returns [..., out] in the dtype of y; gradients flow to x, A, B and m
   */
  forward(x: Tensor, y: Tensor, { weight, bias }: Frozen): Tensor {
    const { a, b, magnitude, scaling } = this;
    const dropped = this.drop(x);
    const low = dropped.to(a.dtype).linear(a).linear(b).mul(scaling);
    if (magnitude === null) return y.add(low).to(y.dtype);
    const ratio = magnitude.div(noGrad(() => this.rowNorms(weight)));
    const base = this.dropout === null ? withoutBias(y, bias) : dropped.linear(weight);
    return y.add(ratio.sub(1).mul(base)).add(ratio.mul(low)).to(y.dtype);
  }

  /**
   * W with the adapter folded in: W + s·B·A, for DoRA with rows of length m. Not recorded for gradients.
   *
   * @param weight [out, in], which stays as it is
   * @returns [out, in] float32, float64 for an adapter of float64
   */
  merged(weight: Tensor): Tensor {
    return noGrad(() =>
      tidy(() => {
        const sum = this.sum(weight);
        if (this.magnitude === null) return sum;
        return sum.mul(this.magnitude.div(rowNorms(sum)).unsqueeze(1));
      }),
    );
  }

  private sum(weight: Tensor): Tensor {
    return weight.to(this.a.dtype).add(this.b.mm(this.a).mul(this.scaling));
  }

  private rowNorms(weight: Tensor): Tensor {
    return tidy(() => rowNorms(this.sum(weight)));
  }

  private drop(x: Tensor): Tensor {
    if (this.dropout === null) return x;
    const { p, generator } = this.dropout;
    const kept = noGrad(() => rand(x.shape, { generator, device: x.device }).ge(p).to(x.dtype));
    return x.mul(kept).div(1 - p);
  }
}

function rowNorms(weight: Tensor): Tensor {
  return weight.norm({ dim: 1 });
}

function withoutBias(y: Tensor, bias: Tensor | null): Tensor {
  return bias === null ? y : y.sub(bias);
}

/**
 * A new adapter of a frozen weight, which changes nothing yet: A ~ U(−1/√in, 1/√in), B = 0, and for DoRA the length of
 * each row of the weight as its magnitude.
 *
 * Source: PEFT 0.21 (`init_lora_weights=True`: Kaiming uniform with a = √5), as in the authors' code.
 *
 * @param weight [out, in]
 * @throws ValueRangeError unless the rank is a positive integer. It may exceed the weight's sizes, as in PEFT: one rank
 *   for all layers suits the large ones
 */
export function createLora(weight: Tensor, { rank, scaling, dora, seed }: LoraInit): LoraAdapter {
  const [outputs, inputs] = [weight.size(0), weight.size(1)];
  if (!Number.isInteger(rank) || rank < 1)
    throw new ValueRangeError(
      `createLora: expected rank to be a positive integer, received ${rank}.`,
    );
  const { device } = weight;
  const dtype = loraDtype(weight.dtype);
  return noGrad(() => {
    const { a, magnitude } = tidy(() => {
      const uniform = rand([rank, inputs], { generator: new Generator(seed) });
      return {
        a: uniform.mul(2).sub(1).div(Math.sqrt(inputs)).to({ dtype, device }),
        magnitude: dora ? rowNorms(weight.to(dtype)) : null,
      };
    });
    return new LoraAdapter({ a, b: zeros([outputs, rank], { dtype, device }), magnitude, scaling });
  });
}

/** A layer that may have an adapter. */
interface Adaptable {
  readonly lora: LoraAdapter | null;
}

/**
 * Runs `callback` with dropout before every adapter: for the trainer's own pass. Log-probabilities that are compared with
 * others are computed without. The streams depend on `seed` and the layer's name only.
 *
 * @param layers by their names
 * @param p probability with which an element of an adapter's input is dropped, from 0 to below 1
 */
export function withLoraDropout<Result>(
  layers: ReadonlyMap<string, Adaptable>,
  { p, seed }: { readonly p: number; readonly seed: number },
  callback: () => Result,
): Result {
  if (p === 0) return callback();
  if (!(p > 0 && p < 1))
    throw new ValueRangeError(
      `withLoraDropout: expected p to be from 0 to below 1, received ${p}.`,
    );
  for (const [name, { lora }] of layers)
    lora?.dropInputs({ p, seed: deriveSeed(seed, 'lora dropout', name) });
  try {
    return callback();
  } finally {
    for (const { lora } of layers.values()) lora?.dropInputs(null);
  }
}
