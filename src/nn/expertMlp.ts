import { zeros, type Tensor } from '../torch/index.js';
import type { Linear } from './linear.js';
import type { Mlp } from './mlp.js';
import { Module } from './module.js';

/** How tokens are given to experts. */
export interface Routing {
  /** k: experts per token. */
  readonly expertsPerToken: number;
  /** Whether the k weights of a token are divided by their sum. */
  readonly normalize: boolean;
}

/**
 * A feed-forward layer of many, of which each token uses k.
 *
 *     p = softmax(router(x));  y = Σ_{e ∈ top k of p} p_e · expert_e(x),  p over its k largest summing to 1 if normalised
 *
 * The gradient reaches the router through the weights p_e; which experts are chosen has none. No loss that balances the
 * experts is added: post-training leaves the routing where the policy gradient moves it.
 *
 * Source: Shazeer et al. 2017, arXiv:1701.06538, Eq. 1; Qwen Team 2025, arXiv:2505.09388. The softmax is taken in float32
 * before the k are chosen, as transformers does.
 */
export class ExpertMlp extends Module {
  /** [E, width]. Checkpoint key: `gate`. */
  readonly router: Linear;
  readonly experts: readonly Mlp[];
  readonly routing: Routing;

  constructor(parts: { router: Linear; experts: readonly Mlp[] }, routing: Routing) {
    super();
    this.router = this.child('gate', parts.router);
    this.experts = parts.experts.map((expert, index) => this.child(`experts.${index}`, expert));
    this.routing = routing;
  }

  /**
   * @param x [..., width]
   * @returns [..., width]
   */
  forward(x: Tensor): Tensor {
    const rows = x.reshape([-1, x.size(-1)]);
    const experts = this.experts.map((expert) => (chosen: Tensor) => expert.forward(chosen));
    return mixExperts(rows, this.router.forward(rows), experts, this.routing).view(x.shape);
  }
}

/**
 * The weighted sum of what the chosen experts compute for each row.
 *
 * @param rows [N, width]
 * @param scores [N, E] of the router
 * @param experts each [n, width] → [n, width], called for the rows that chose it
 * @returns [N, width]
 */
export function mixExperts(
  rows: Tensor,
  scores: Tensor,
  experts: readonly ((rows: Tensor) => Tensor)[],
  { expertsPerToken, normalize }: Routing,
): Tensor {
  const dtype = rows.dtype === 'float64' ? 'float64' : 'float32';
  const top = scores.softmax(-1, { dtype }).topk(expertsPerToken);
  const sum = normalize ? top.values.sum(-1, { keepDim: true }) : null;
  const weights = (sum === null ? top.values : top.values.div(sum)).to(rows.dtype);
  const mixed = zeros(rows.shape, { dtype: rows.dtype, device: rows.device });
  experts.forEach((expert, index) => {
    const places = top.indices.eq(index).nonzero(); // [n, 2]: row, and which of its k
    if (places.size(0) === 0) return;
    const [row, choice] = [places.select(1, 0), places.select(1, 1)];
    const weighted = expert(rows.indexSelect(0, row)).mul(
      weights.index([row, choice]).unsqueeze(-1),
    );
    mixed.indexAdd_(0, row, weighted);
  });
  return mixed;
}
