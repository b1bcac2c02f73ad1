/** Rotary positions of tokens that are computed one by one, in pair order. */
import { ropeSettings, type DecoderConfig, type LayerKind } from '../models/index.js';
import { ropeAttentionFactor, ropeInverseFrequencies, ropeLength } from '../nn/index.js';
import { cat, complex, tensor, type Dtype, type Tensor } from '../torch/index.js';

const KINDS = ['full', 'sliding'] as const;

/** Whether rows turn otherwise at one length than at another. */
export function needsOtherRotations(config: DecoderConfig, before: number, now: number): boolean {
  return KINDS.some((kind) => {
    const settings = ropeSettings(config, kind);
    return ropeLength(settings, before) !== ropeLength(settings, now);
  });
}

/** Makes the rotations of a decoder's positions. */
export class Rotations {
  private readonly config: DecoderConfig;
  private readonly device: string;
  private readonly dtype: Dtype;
  /** Per kind of layer and length, as `ropeLength` names it. */
  private readonly known = new Map<string, Float64Array>();

  constructor(config: DecoderConfig, { device, dtype }: { device: string; dtype: Dtype }) {
    this.config = config;
    this.device = device;
    this.dtype = dtype;
  }

  /**
   * e^{i·position·frequency} per kind of layer, [N, 1, R/2] complex; null where nothing turns. Angles, cosines and sines
   * are computed in float32 and rounded to the model's dtype, as the model computes them.
   *
   * @param positions N of them
   * @param lengths tokens of the row that each stands in
   */
  at(
    positions: readonly number[],
    lengths: readonly number[],
  ): Readonly<Record<LayerKind, Tensor | null>> {
    if (this.config.learnedPositions) return { full: null, sliding: null };
    const full = this.of('full', positions, lengths);
    const hasOwn = this.config.localRope !== null;
    return { full, sliding: hasOwn ? this.of('sliding', positions, lengths) : full };
  }

  private of(kind: LayerKind, positions: readonly number[], lengths: readonly number[]): Tensor {
    const half = this.config.rotaryDim / 2;
    const values = new Float32Array(positions.length * half);
    positions.forEach((position, row) => {
      const frequencies = this.frequencies(kind, lengths[row] ?? 0);
      for (let pair = 0; pair < half; pair++)
        values[row * half + pair] = position * (frequencies[pair] ?? 0);
    });
    const angles = tensor(values, { shape: [positions.length, 1, half], device: this.device });
    const factor = ropeAttentionFactor(ropeSettings(this.config, kind));
    const wide = this.dtype === 'float64' ? 'float64' : 'float32';
    const [cos, sin] = [angles.cos(), angles.sin()].map((part) =>
      part.mul(factor).to(this.dtype).to(wide),
    );
    return complex(cos as Tensor, sin as Tensor);
  }

  private frequencies(kind: LayerKind, length: number): Float64Array {
    const settings = ropeSettings(this.config, kind);
    const key = `${kind} ${ropeLength(settings, length)}`;
    const known = this.known.get(key) ?? ropeInverseFrequencies(settings, length);
    this.known.set(key, known);
    return known;
  }
}

/**
 * x [N, heads, headDim] with its first R numbers in pair order, times e^{iθ} [N or 1, 1, R/2] pair by pair; the other
 * numbers stay. Computed in float32 at least.
 */
export function rotate(x: Tensor, rotations: Tensor): Tensor {
  const { dtype } = x;
  const [rows, heads, headDim] = x.shape as [number, number, number];
  const rotary = 2 * rotations.size(-1);
  const turning = rotary === headDim ? x : x.narrow(2, 0, rotary);
  const wide = dtype === 'float64' ? turning : turning.to('float32');
  const pairs = wide.reshape([rows, heads, rotary / 2, 2]).viewAsComplex();
  const turned = pairs.mul(rotations).viewAsReal().view([rows, heads, rotary]).to(dtype);
  return rotary === headDim ? turned : cat([turned, x.narrow(2, rotary, headDim - rotary)], -1);
}
