import { scaledDotProductAttention, type Tensor } from '../torch/index.js';
import type { Linear } from './linear.js';
import { Module } from './module.js';
import type { RMSNorm } from './rmsNorm.js';
import { applyRope, type Rotation } from './rope.js';

/** The parts of one attention layer. */
export interface AttentionParts {
  /** [H·D, width] */
  readonly qProj: Linear;
  /** [Hkv·D, width] */
  readonly kProj: Linear;
  /** [Hkv·D, width] */
  readonly vProj: Linear;
  /** [width, H·D] */
  readonly oProj: Linear;
  /** Normalises each query head over D before the rotation (Qwen3); null without. */
  readonly qNorm: RMSNorm | null;
  /** The same for keys. */
  readonly kNorm: RMSNorm | null;
}

/**
 * Causal self-attention with rotary positions, in which H/Hkv query heads share one head of keys and values.
 *
 * Source: Ainslie et al. 2023 (grouped-query attention), arXiv:2305.13245.
 */
export class Attention extends Module implements AttentionParts {
  readonly qProj: Linear;
  readonly kProj: Linear;
  readonly vProj: Linear;
  readonly oProj: Linear;
  readonly qNorm: RMSNorm | null;
  readonly kNorm: RMSNorm | null;
  private readonly headDim: number;

  constructor(parts: AttentionParts, { headDim }: { headDim: number }) {
    super();
    this.qProj = this.child('q_proj', parts.qProj);
    this.kProj = this.child('k_proj', parts.kProj);
    this.vProj = this.child('v_proj', parts.vProj);
    this.oProj = this.child('o_proj', parts.oProj);
    this.qNorm = parts.qNorm && this.child('q_norm', parts.qNorm);
    this.kNorm = parts.kNorm && this.child('k_norm', parts.kNorm);
    this.headDim = headDim;
  }

  /**
   * @param x [B, L, width]
   * @param rotation of the L positions
   * @param mask [B, 1, L, L] bool, true where a query may look; without it every query looks at itself and what is
   *   before it
   * @returns [B, L, width]
   */
  forward(x: Tensor, rotation: Rotation, mask: Tensor | null): Tensor {
    const [batch, length] = [x.size(0), x.size(1)];
    const heads = (projected: Tensor): Tensor => projected.view([batch, length, -1, this.headDim]);
    const q = heads(this.qProj.forward(x));
    const k = heads(this.kProj.forward(x));
    const v = heads(this.vProj.forward(x));
    const query = applyRope(this.qNorm?.forward(q) ?? q, rotation);
    const key = applyRope(this.kNorm?.forward(k) ?? k, rotation);
    const attended = scaledDotProductAttention(
      query.transpose(1, 2),
      key.transpose(1, 2),
      v.transpose(1, 2),
      {
        ...(mask === null ? { causal: true } : { mask }),
        // Without repeating keys and values the CPU's fused kernel gives the same bits and a backward pass twice as fast.
        groupedQuery: q.size(2) !== k.size(2),
      },
    );
    return this.oProj.forward(attended.transpose(1, 2).reshape([batch, length, -1]));
  }
}
